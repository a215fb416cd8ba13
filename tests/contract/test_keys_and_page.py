"""Keys share one slot and never collide; docs/contract.md says of them, and of all wire types, what the code does."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from itertools import combinations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussline.worker.broker.admission import Status
from gaussline.worker.contract import clock, dead_letter, frame, limits
from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.keys import Keys, check_name
from gaussline.worker.contract.verdict import Decision, Reason
from gaussline.worker.errors import ContractError
from tests.contract.examples import EVENT, FAIL_EXPLAINED, LETTER, PART
from tests.support.repository import ROOT

PAGE = (ROOT / "docs" / "contract.md").read_text("utf-8")
SCRIPTS = ROOT / "worker" / "broker" / "scripts"
ARGUMENT = {"dead": "reason", "kept_blob": "frame id", "blob": "digest", "artefact": "digest"}
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


def all_keys(keys: Keys, argument: str | None = None) -> dict[str, str]:
    """Every key by the name of its method; an argument is `<what it is>` where none is given."""
    found = {}
    for name, member in inspect.getmembers(type(keys)):
        if name.startswith("_") or name in {"line", "prefix"}:
            continue
        if isinstance(member, property):
            found[name] = getattr(keys, name)
        elif inspect.isfunction(member):
            shown = [
                argument or f"<{each.replace('_', ' ')}>" for each in list(inspect.signature(member).parameters)[1:]
            ]
            found[name] = member(keys, *shown)
    return found


def table(heading: str) -> Iterator[list[str]]:
    """Rows of the first table under a heading of the page; the cells without their backticks."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    for row in section.splitlines():
        if row.startswith("|") and not row.startswith("|---"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


# --- keys ------------------------------------------------------------------------------------------------------------
def test_every_key_carries_the_lines_tag_and_none_is_another() -> None:
    keys = all_keys(Keys("line1"))
    assert len(keys) >= 26
    assert all(key.startswith("gl:{line1}:") and key.count("{") == 1 for key in keys.values())
    assert len(set(keys.values())) == len(keys)


@given(NAMES, NAMES, NAMES)
def test_no_name_makes_one_key_into_another(line: str, one: str, other: str) -> None:
    first, second = all_keys(Keys(line), one), all_keys(Keys(line), other)
    for (name, key), (other_name, other_key) in combinations([*first.items(), *second.items()], 2):
        if key == other_key:
            assert name == other_name
    assert not set(all_keys(Keys(line), one).values()) & set(all_keys(Keys(line + "x"), one).values())


@pytest.mark.parametrize("name", ["", "{x}", "a b", "a:b", "a/b", "a\n", ".a", "-a", "ä", "a" * 65, "a*", "a\0"])
def test_names_that_may_not_stand_in_a_key_are_refused(name: str) -> None:
    with pytest.raises(ContractError, match="line name"):
        Keys(name)
    with pytest.raises(ContractError, match="camera name"):
        check_name("camera", name)


def test_a_name_that_is_no_text_is_refused() -> None:
    for name in (None, 5, b"cam1", ["cam1"], "x" * 10_000):
        with pytest.raises(ContractError) as told:
            check_name("camera", name)
        assert len(str(told.value)) < 300


def test_scripts_build_no_key_that_is_not_here() -> None:
    """Scripts that reach many cameras join keys themselves; their words must be those of `Keys`."""
    ours = {
        re.sub(r"(:<>)+$", ":<>", key.removeprefix("gl:{line1}:")) for key in all_keys(Keys("line1"), "<>").values()
    }
    joined = set()
    for script in SCRIPTS.glob("*.lua"):
        joined |= set(re.findall(r"(?:prefix|ARGV\[1\]) \.\. '([a-z][^']*)'", script.read_text("utf-8")))
    assert len(joined) >= 9
    assert {word + "<>" if word.endswith(":") else word for word in joined} <= ours


# --- the page --------------------------------------------------------------------------------------------------------
def test_the_page_lists_every_key_and_no_other() -> None:
    listed = {row[0].strip("`") for row in list(table("Redis keys"))[1:]}
    assert listed == {key.replace("{line1}", "{line}") for key in all_keys(Keys("line1")).values()}


def test_the_page_gives_every_key_a_type_that_the_code_gives_it() -> None:
    types = {row[0].strip("`"): row[1] for row in list(table("Redis keys"))[1:]}
    for name, key in all_keys(Keys("line1")).items():
        member = getattr(Keys, name)
        says = inspect.getdoc(member.fget if isinstance(member, property) else member) or ""
        assert says.lower().startswith(types[key.replace("{line1}", "{line}")]), (key, says)


def test_the_example_on_the_page_is_a_verdict_of_this_build() -> None:
    (example,) = re.findall(r"<!-- example: verdict -->\n```json\n(.*?)\n```", PAGE, re.DOTALL)
    assert example == json.dumps(json.loads(FAIL_EXPLAINED.to_json()), indent=2)
    assert "worker/contract/verdict.schema.json" in PAGE
    assert (ROOT / "worker" / "contract" / "verdict.schema.json").is_file()


def test_the_example_of_a_part_verdict_is_one_of_this_build() -> None:
    (example,) = re.findall(r"<!-- example: part verdict -->\n```json\n(.*?)\n```", PAGE, re.DOTALL)
    assert example == json.dumps(json.loads(PART.to_json()), indent=2)


def test_the_page_lists_every_reason_and_where_its_bytes_stay() -> None:
    rows = {row[0].strip("`"): row[2] for row in table("Verdict") if len(row) == 3}
    rows.pop("reason")
    assert rows == {reason.value: "no" if reason in dead_letter.METADATA_ONLY else "yes" for reason in Reason}
    assert all(f"`{decision.value}`" in PAGE for decision in Decision)


def test_the_page_lists_every_field_of_a_frame_batch() -> None:
    rows = [row[0].strip("`") for row in table("Frame batch")]
    fields = [field.name for field in dataclasses.fields(frame.Frame)]
    listed = rows[rows.index("field of a frame") + 1 : rows.index("answer")]
    assert sorted(listed) == sorted(fields)
    assert rows[1 : rows.index("field of a frame")] == ["v", "camera", "epoch", "seq", "frames"]
    for word in frame.ENCODINGS | frame.DTYPES:
        assert f"`{word}`" in PAGE


def test_the_page_lists_every_answer_of_admission() -> None:
    rows = [row[0] for row in table("Frame batch")]
    listed = {re.findall(r"`(\w+)`", cell)[0] for cell in rows[rows.index("answer") + 1 :]}
    assert listed == {status.value for status in Status}


def test_the_page_lists_every_field_of_an_event_and_a_letter() -> None:
    rows = [name for row in list(table("Feature event"))[1:] for name in re.findall(r"`(\w+)`", row[0])]
    assert rows == list(msgpack.unpackb(EVENT.encode()))
    assert len(dataclasses.fields(FeatureEvent)) + 1 == len(rows)
    section = PAGE.split("\n## Dead letter\n")[1].split("\n## ")[0]
    assert all(f"`{name}`" in section for name in LETTER.to_fields())


def test_the_page_tells_the_limits_that_are_kept() -> None:
    told = limits.MessageLimits()
    assert f"1 to {told.max_frames} frames" in PAGE
    assert f"{told.max_bytes // 2**20} MiB at most" in PAGE
    assert f"{told.max_text} bytes of UTF-8" in PAGE
    assert frame.MAX_SEQUENCE == 2**53 - 1
    assert clock.to_text(clock.MAX_US).startswith("2100-")
