"""The verdict's JSON, its published schema and the code say the same."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussline.worker.contract.clock import MAX_US, to_text
from gaussline.worker.contract.verdict import Decision, ModelRef, Opinion, Reason, Verdict
from gaussline.worker.errors import ContractError, UnknownVersion
from tests.contract.examples import FAIL, NOT_JUDGED

SCHEMA = json.loads((resources.files("gaussline.worker.contract") / "verdict.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker())
PUBLIC = [reason for reason in Reason if reason is not Reason.UNADMITTED]
"""Reasons of verdicts. What came without admission has no identity, and so no verdict."""
TIMES = st.integers(1, MAX_US - 1)
SCORES = st.floats(0, 1e12)


def valid(text: str) -> dict[str, Any]:
    """The parsed verdict, checked against the schema."""
    fields = json.loads(text)
    VALIDATOR.validate(fields)
    assert isinstance(fields, dict)
    return fields


@st.composite
def verdicts(draw: st.DrawFn) -> Verdict:
    """Any verdict that a worker may write."""
    camera, epoch, sequence = (
        draw(st.sampled_from(["cam1", "a.b-c"])),
        draw(st.integers(1, 99)),
        draw(st.integers(0, 10**9)),
    )
    common: dict[str, Any] = {
        "id": f"{camera}:{epoch}:{sequence}",
        "line": "line1",
        "camera": camera,
        "epoch": epoch,
        "sequence": sequence,
        "worker": "w1",
        "admitted_us": draw(TIMES),
        "judged_us": draw(TIMES),
        "part": draw(st.none() | st.text(max_size=50)),
        "kept": draw(st.booleans()),
        "heat_map": draw(st.none() | st.text(max_size=20)),
        "random_weights": draw(st.booleans()),
        "retry_of": draw(st.none() | st.just("cam1:3:1042")),
        "traceparent": draw(st.none() | st.just("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
    }
    if draw(st.booleans()):
        return Verdict(
            **common,
            decision=Decision.NOT_JUDGED,
            reason=draw(st.sampled_from(PUBLIC)),
            detail=draw(st.none() | st.text(max_size=200)),
            captured_us=draw(st.none() | TIMES),
        )
    return Verdict(
        **common,
        decision=draw(st.sampled_from([Decision.PASS, Decision.FAIL])),
        captured_us=draw(TIMES),
        score=draw(SCORES),
        threshold=draw(SCORES),
        p_value=draw(st.floats(0, 1)),
        level_scores=draw(st.dictionaries(st.text(max_size=12), SCORES, max_size=9)),
        model=ModelRef("plates", draw(st.integers(1, 999)), "0f" * 32, draw(st.sampled_from(["stable", "canary"]))),
        backbone="mobilenet_v2",
    )


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"] == "urn:gaussline:verdict:1"


@given(verdicts())
def test_every_verdict_follows_the_schema_and_comes_back(verdict: Verdict) -> None:
    text = verdict.to_json()
    assert "\n" not in text
    valid(text)
    assert Verdict.from_json(text) == verdict
    assert Verdict.from_json(text.encode()) == verdict


@pytest.mark.parametrize("reason", PUBLIC)
def test_every_reason_is_in_the_schema(reason: Reason) -> None:
    assert valid(replace(NOT_JUDGED, reason=reason).to_json())["reason"] == reason.value


def test_the_lists_of_the_schema_and_of_the_code_are_one() -> None:
    assert set(SCHEMA["properties"]["reason"]["enum"]) == {None, *(reason.value for reason in PUBLIC)}
    assert set(SCHEMA["properties"]["decision"]["enum"]) == {decision.value for decision in Decision}
    optional = {"retry_of", "opinions", "device", "traceparent"}
    required = [name for name in SCHEMA["properties"] if name not in optional]
    assert optional < set(SCHEMA["properties"])
    assert list(json.loads(FAIL.to_json())) == required == SCHEMA["required"]


@pytest.mark.parametrize("verdict", [FAIL, NOT_JUDGED, replace(FAIL, part='"} \\ \x00 ä\u2028')])
def test_the_open_text_takes_its_judging_time_at_its_end(verdict: Verdict) -> None:
    """The settle script knows neither JSON nor the other fields; it appends."""
    spliced = verdict.to_open_json() + f',"judged_at":"{to_text(verdict.judged_us)}"' + "}"
    assert spliced == verdict.to_json()
    assert Verdict.from_json(spliced) == verdict


@pytest.mark.parametrize(
    "changes",
    [
        {"decision": "maybe"},
        {"decision": "not_judged"},
        {"reason": "expired"},
        {"reason": "unadmitted", "decision": "not_judged"},
        {"score": None},
        {"score": -1.0},
        {"p_value": 1.5},
        {"p_value": None},
        {"threshold": None},
        {"model": None},
        {"model": {"name": "plates", "version": 0, "digest": "0f" * 32, "channel": "stable"}},
        {"model": {"name": "plates", "version": 1, "digest": "short", "channel": "stable"}},
        {"captured_at": None},
        {"judged_at": None},
        {"v": 2},
        {"id": "cam1:x:1"},
        {"epoch": 0},
        {"sequence": -1},
        {"level_scores": {"features.1": -0.5}},
        {"kept": "yes"},
    ],
)
def test_the_schema_refuses_what_is_no_verdict(changes: dict[str, Any]) -> None:
    fields = {**json.loads(FAIL.to_json()), **changes}
    assert not VALIDATOR.is_valid(fields)


@pytest.mark.parametrize("name", SCHEMA["required"])
def test_the_schema_misses_every_field(name: str) -> None:
    fields = json.loads(FAIL.to_json())
    del fields[name]
    assert not VALIDATOR.is_valid(fields)


def test_readers_ignore_fields_of_tomorrow() -> None:
    text = json.dumps({**json.loads(FAIL.to_json()), "color": "red"})
    valid(text)
    assert Verdict.from_json(text) == FAIL


def test_fields_that_an_older_build_did_not_write_have_defaults() -> None:
    least = {
        name: value
        for name, value in json.loads(NOT_JUDGED.to_json()).items()
        if name
        in {
            "v",
            "id",
            "line",
            "camera",
            "epoch",
            "sequence",
            "decision",
            "worker",
            "admitted_at",
            "judged_at",
            "reason",
        }
    }
    verdict = Verdict.from_json(json.dumps(least))
    assert verdict == replace(NOT_JUDGED, captured_us=None, detail=None)


@pytest.mark.parametrize("version", [2, 0, "1", None, True, 1.0])
def test_another_version_is_an_error(version: object) -> None:
    with pytest.raises(UnknownVersion):
        Verdict.from_json(json.dumps({**json.loads(FAIL.to_json()), "v": version}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        "1",
        '"v"',
        '{"v":1}',
        "[" * 100_000,
        FAIL.to_open_json(),
        FAIL.to_json().replace("412.75", "NaN"),
        FAIL.to_json().replace("412.75", "Infinity"),
        FAIL.to_json().replace('"fail"', '"maybe"'),
        FAIL.to_json().replace("2026-01-31T", "2026-01-31 "),
        FAIL.to_json().replace('"model":{', '"model":[{').replace('"stable"}', '"stable"}]'),
    ],
)
def test_other_texts_are_no_verdicts(text: str) -> None:
    with pytest.raises(ContractError):
        Verdict.from_json(text)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_never_reaches_an_mes(score: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(FAIL, score=score).to_json()


def test_opinions_are_there_only_where_somebody_has_one() -> None:
    assert "opinions" not in json.loads(FAIL.to_json())
    spoken = replace(FAIL, opinions=(Opinion("shadow", 8, "ab" * 32, Decision.PASS, 12.5, 0.25),))
    text = spoken.to_json()
    valid(text)
    assert Verdict.from_json(text) == spoken


def test_an_unsettled_verdict_is_not_written() -> None:
    with pytest.raises(ContractError, match="was not settled"):
        replace(FAIL, judged_us=0).to_json()
