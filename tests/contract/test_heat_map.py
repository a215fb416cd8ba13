"""The stored heat map: named before it exists, read under limits, the same bytes for the same map."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.heat_map import MAX_BYTES, Explanation, parse_reference, reference
from gaussline.worker.errors import ContractError, LimitExceeded
from tests.contract.examples import DIGEST, EXPLANATION, FAIL_EXPLAINED, GOLDEN
from tests.support.repository import ROOT


def same(one: Explanation, other: Explanation) -> bool:
    plain = [replace(each, levels={}) for each in (one, other)]
    fields = [(p.score, p.input_size, p.distances, p.contributions, p.frame, p.model) for p in plain]
    arrays = [one.levels[name].tobytes() == other.levels[name].tobytes() for name in one.levels]
    return fields[0] == fields[1] and list(one.levels) == list(other.levels) and all(arrays)


def test_what_version_1_wrote_is_read_and_still_written() -> None:
    recorded = (GOLDEN / "heat_map.v1.safetensors").read_bytes()
    assert same(Explanation.from_bytes(recorded), EXPLANATION)
    assert EXPLANATION.to_bytes() == recorded


def test_an_image_of_no_line_has_no_model() -> None:
    alone = replace(EXPLANATION, frame="", model=None)
    assert same(Explanation.from_bytes(alone.to_bytes()), alone)


def test_the_reference_follows_from_frame_and_model() -> None:
    named = reference("cam1:3:1042", DIGEST)
    assert named == "cam1:3:1042@0123456789abcdef" == FAIL_EXPLAINED.heat_map
    assert parse_reference(named) == ("cam1:3:1042", DIGEST[:16])
    for wrong in ("cam1:3:1042", "cam1:3@0123456789abcdef", "cam1:3:1042@0123", "cam1:3:1042@0123456789ABCDEF", "@"):
        with pytest.raises(ContractError):
            parse_reference(wrong)


def changed(arrays: dict[str, Any] | None = None, **fields: Any) -> bytes:
    artefact = Artefact.unpack(EXPLANATION.to_bytes())
    return Artefact.pack(dict(artefact.manifest) | fields, dict(artefact.arrays) | (arrays or {})).data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 100,
        changed(kind="model"),
        changed(input_size=[1, 1]),
        changed(input_size=[10**6, 4]),
        changed(levels=[["features.1", 1.0]]),
        changed(levels=[["features.1", 1.0, 1.0]] * 65),
        changed({"level0": np.full((2, 3), np.nan, np.float32)}),
        changed({"level0": np.zeros((2, 3))}),
        changed({"level0": np.zeros(6, np.float32)}),
        changed(model={"name": "plates"}),
    ],
)
def test_what_is_no_heat_map_is_an_error(data: bytes) -> None:
    with pytest.raises(ContractError, match="no heat map"):
        Explanation.from_bytes(data)


def test_too_many_bytes_are_not_even_read() -> None:
    with pytest.raises(LimitExceeded):
        Explanation.from_bytes(bytes(MAX_BYTES + 1))


def test_the_page_tells_what_is_stored() -> None:
    section = (ROOT / "docs" / "contract.md").read_text("utf-8").split("\n## Heat map\n")[1].split("\n## ")[0]
    said = set(re.findall(r"`(\w+)`", section))
    assert set(Artefact.unpack(EXPLANATION.to_bytes()).manifest) <= said
    assert f"`{FAIL_EXPLAINED.heat_map}`" in section
    assert f"{MAX_BYTES // 2**20} MiB" in section
