"""What version 1 wrote is read by every later build, and this build still writes it so.

The files in golden/ are recorded and never written again. A later version gets files of its own beside them.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.dead_letter import DeadLetter
from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.frame import Frame, FrameBatch, decode_batch, encode_batch
from gaussline.worker.contract.verdict import Verdict
from tests.contract import examples
from tests.contract.examples import GOLDEN

BATCHES = [("batch_full", examples.FULL_BATCH), ("batch_least", examples.LEAST_BATCH)]
VERDICTS = [
    ("verdict_fail", examples.FAIL),
    ("verdict_fail_explained", examples.FAIL_EXPLAINED),
    ("verdict_fail_traced", examples.FAIL_TRACED),
    ("verdict_not_judged", examples.NOT_JUDGED),
]


@pytest.mark.parametrize(("name", "batch"), BATCHES)
def test_frame_batches(name: str, batch: FrameBatch) -> None:
    recorded = (GOLDEN / f"{name}.v1.msgpack").read_bytes()
    assert decode_batch(recorded) == batch
    frames = [frame for frame in batch.frames if isinstance(frame, Frame)]
    assert encode_batch(batch.camera, batch.epoch, batch.first_sequence, frames) == recorded


@pytest.mark.parametrize(("name", "verdict"), VERDICTS)
def test_verdicts(name: str, verdict: Verdict) -> None:
    recorded = (GOLDEN / f"{name}.v1.json").read_text("utf-8")
    assert Verdict.from_json(recorded) == verdict
    assert verdict.to_json() + "\n" == recorded


def test_feature_events() -> None:
    recorded = (GOLDEN / "feature_event.v1.msgpack").read_bytes()
    event = FeatureEvent.decode(recorded)
    assert examples.EVENT.encode() == event.encode() == recorded
    for ours, theirs in zip(examples.EVENT.features, event.features, strict=True):
        assert np.array_equal(ours, theirs)


def test_dead_letters() -> None:
    recorded = json.loads((GOLDEN / "dead_letter.v1.json").read_text("utf-8"))
    assert examples.letter_to_json(examples.LETTER.to_fields()) == recorded
    fields = {
        name.encode(): bytes.fromhex(value) if name == "data" else value.encode() for name, value in recorded.items()
    }
    assert DeadLetter.from_fields(fields) == examples.LETTER


def test_artefacts() -> None:
    recorded = (GOLDEN / "artefact.v1.safetensors").read_bytes()
    read = Artefact.unpack(recorded, "08dc5f0935b8ebbfa3cb5be18cfa6521b4a976156b0bad7bac361681648a6e36")
    made = examples.artefact()
    assert read.manifest == made.manifest
    assert set(read.arrays) == set(made.arrays)
    for name, array in made.arrays.items():
        assert (read.arrays[name].dtype, read.arrays[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(read.arrays[name], array)
    assert made.data == recorded
