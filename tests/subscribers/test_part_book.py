"""The book of parts: the definition, whatever the order, the cuts into turns, and the restarts."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussline.worker.commands.parts import part_rule
from gaussline.worker.contract.part_verdict import PartReason, PartVerdict
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.engine.part_book import OpenPart, PartBook, PartRule
from gaussline.worker.errors import ContractError, SettingsError
from gaussline.worker.settings import Settings
from tests.contract.examples import PART
from tests.subscribers.part_oracle import decided, expected
from tests.support.repository import ROOT

SCHEMA = json.loads((ROOT / "worker" / "contract" / "part_verdict.schema.json").read_text("utf-8"))
RULE = PartRule({"cam1": 1, "cam2": 2}, 0, 100)
PARTS = ["A", "B", "C ä"]
Entry = tuple[str, dict[str, Any]]


def verdict(camera: str, sequence: int, part: str | None, decision: str, retry_of: str | None = None) -> dict[str, Any]:
    said: dict[str, Any] = {"id": f"{camera}:1:{sequence}", "camera": camera, "part": part, "decision": decision}
    return said if retry_of is None else said | {"retry_of": retry_of}


@st.composite
def streams(draw: st.DrawFn) -> list[Entry]:
    """Verdicts of a few parts, in any order, near and beyond their deadlines; some retried, some without a part."""
    entries: list[Entry] = []
    at = 1_000
    for number in range(draw(st.integers(0, 40))):
        at += draw(st.sampled_from([0, 1, 7, 50, 101]))
        camera = draw(st.sampled_from(["cam1", "cam2", "cam3"]))
        part = draw(st.sampled_from([*PARTS, None]))
        decision = draw(st.sampled_from(["pass", "pass", "fail", "not_judged"]))
        earlier = [str(old["id"]) for _, old in entries if old["part"] == part and old["decision"] == "not_judged"]
        retry_of = draw(st.none() | st.sampled_from(earlier)) if earlier else None
        entries.append((f"{at}-{number}", verdict(camera, number, part, decision, retry_of)))
    return entries


@given(streams(), st.lists(st.integers(1, 7), min_size=1, max_size=12))
def test_any_cut_into_turns_with_a_restart_after_each_gives_what_the_definition_says(
    entries: list[Entry], cuts: list[int]
) -> None:
    book = PartBook("line1", RULE)
    done: list[PartVerdict] = []
    rest, turns = list(entries), 0
    while rest:
        size = cuts[turns % len(cuts)]
        turns += 1
        turn = book.read(rest[:size], {answer.part for answer in done}.__contains__, 5_000_000)
        rest = rest[size:]
        done += turn.decided
        # Killed here: what was written is all that the next one knows.
        kept = [(part, found.to_json()) for part in PARTS if (found := book.get(part)) is not None]
        book = PartBook("line1", RULE, [OpenPart.from_json(part, text) for part, text in kept])
    done += book.expire(10_000_000, 5_000_000).decided
    answers = [("0-0", json.loads(answer.to_json())) for answer in done]
    assert decided(answers) == expected(entries, RULE.cameras, 0, RULE.deadline_ms)
    for answer in done:
        jsonschema.validate(json.loads(answer.to_json()), SCHEMA)
        assert PartVerdict.from_json(answer.to_json()) == answer


def test_a_late_frame_is_reported_and_changes_nothing() -> None:
    book = PartBook("line1", PartRule({"cam1": 1}, 0, 100))
    entries = [("1-0", verdict("cam1", 0, "A", "pass")), ("2-0", verdict("cam1", 1, "A", "fail"))]
    turn = book.read(entries, set().__contains__, 9_000)
    assert [(answer.part, answer.decision) for answer in turn.decided] == [("A", Decision.PASS)]
    assert [(late.part, late.frame.decision) for late in turn.late] == [("A", Decision.FAIL)]


def test_a_retry_in_time_heals_what_was_not_judged() -> None:
    book = PartBook("line1", PartRule({"cam1": 1}, 0, 100))
    healed = verdict("cam1.retry", 0, "A", "pass", "cam1:1:0")
    turn = book.read([("1-0", verdict("cam1", 0, "A", "not_judged")), ("9-0", healed)], set().__contains__, 9_000)
    (answer,) = turn.decided
    assert (answer.decision, answer.frames[0].id, answer.frames[0].camera) == (Decision.PASS, "cam1:1:0", "cam1")


def test_open_parts_are_bounded() -> None:
    book = PartBook("line1", PartRule({"cam1": 1, "cam2": 1}, 0, 100, max_open=2))
    entries = [(f"1-{n}", verdict("cam1", n, f"P{n}", "fail" if n == 1 else "pass")) for n in range(4)]
    turn = book.read(entries, set().__contains__, 9_000)
    assert [(answer.part, answer.decision, answer.reason) for answer in turn.decided] == [
        ("P0", Decision.NOT_JUDGED, PartReason.OVERFLOW),
        ("P1", Decision.FAIL, None),
    ]
    assert len(book) == 2


def test_frames_of_a_part_are_bounded_and_a_failed_one_beyond_still_fails_it() -> None:
    book = PartBook("line1", PartRule({"cam1": 1, "cam2": 1}, 0, 100))
    entries = [(f"1-{n}", verdict("cam1", n, "A", "fail" if n == 299 else "pass")) for n in range(300)]
    book.read(entries, set().__contains__, 9_000)
    (answer,) = book.expire(1_000, 9_000).decided
    assert (answer.decision, len(answer.frames), answer.surplus, answer.missing) == (Decision.FAIL, 256, 44, ("cam2",))


def test_the_schema_and_the_code_are_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    said = json.loads(PART.to_json())
    assert list(said) == list(SCHEMA["properties"]) == SCHEMA["required"]
    assert set(SCHEMA["properties"]["reason"]["enum"]) == {None, *(reason.value for reason in PartReason)}
    with pytest.raises(ContractError, match="no part verdict"):
        PartVerdict.from_json("{}")


def test_no_more_frames_are_expected_of_a_part_than_it_can_hold() -> None:
    """Those beyond are counted and not looked at: what is expected of them would be missing for ever."""
    assert part_rule(Settings.load({}, parts_cameras="cam1=128,cam2=128")).cameras == {"cam1": 128, "cam2": 128}
    for text in ("cam1=129,cam2=128", "cam1=257", "cam1=0", "cam 1"):
        with pytest.raises(SettingsError, match="parts_cameras"):
            part_rule(Settings.load({}, parts_cameras=text))
