"""Feedback on the wire: flat fields that any client writes, and what is no feedback."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from gaussline.worker.contract.feedback import BY_MAX_BYTES, NOTE_MAX_BYTES, Feedback, Label
from gaussline.worker.errors import ContractError, UnknownVersion
from tests.contract.examples import FEEDBACK, GOLDEN
from tests.support.repository import ROOT


def fields(**changes: str | None) -> dict[bytes, bytes]:
    """The example's stream fields, some changed; None leaves one out."""
    told: dict[str, str | None] = {name: str(value) for name, value in FEEDBACK.to_fields().items()}
    told |= changes
    return {name.encode(): value.encode() for name, value in told.items() if value is not None}


def test_what_version_1_wrote_is_read_and_still_written() -> None:
    recorded = json.loads((GOLDEN / "feedback.v1.json").read_text("utf-8"))
    assert {name: str(value) for name, value in FEEDBACK.to_fields().items()} == recorded
    assert Feedback.from_fields({name.encode(): value.encode() for name, value in recorded.items()}) == FEEDBACK
    assert FEEDBACK.camera == "cam1"


def test_fields_of_tomorrow_are_ignored_and_a_missing_note_is_empty() -> None:
    assert Feedback.from_fields(fields(colour="red")) == FEEDBACK
    assert Feedback.from_fields(fields(note=None)) == replace(FEEDBACK, note="")


@pytest.mark.parametrize(
    "changes",
    [
        {"v": None},
        {"id": None},
        {"id": "cam1"},
        {"id": "cam1:0:1"},
        {"label": "perhaps"},
        {"label": None},
        {"by": None},
        {"by": " "},
        {"by": "ä" * (BY_MAX_BYTES // 2 + 1)},
        {"by": "ada\x1b[2J"},
        {"note": "x" * (NOTE_MAX_BYTES + 1)},
        {"note": "two\nlines"},
    ],
)
def test_what_is_no_feedback_is_an_error(changes: dict[str, str | None]) -> None:
    with pytest.raises(ContractError):
        Feedback.from_fields(fields(**changes))


def test_bytes_that_are_no_text_are_an_error() -> None:
    with pytest.raises(ContractError, match="no feedback"):
        Feedback.from_fields(fields() | {b"by": b"\xff\xfe"})
    with pytest.raises(UnknownVersion, match="version"):
        Feedback.from_fields(fields(v="2"))
    with pytest.raises(ContractError, match="printable"):
        Feedback("cam1:1:0", Label.GOOD, "\ud800")


def test_the_page_lists_every_field_and_limit() -> None:
    page = (ROOT / "docs" / "contract.md").read_text("utf-8")
    section = page.split("\n## Feedback\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(FEEDBACK.to_fields())
    assert f"{BY_MAX_BYTES} bytes" in section
    assert f"{NOTE_MAX_BYTES} bytes" in section
    assert all(f"`{label.value}`" in section for label in Label)
