"""One example of each wire type, as version 1 wrote it. The files in golden/ are these, recorded once and for all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.clock import from_text
from gaussline.worker.contract.dead_letter import DeadLetter
from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.feedback import Feedback, Label
from gaussline.worker.contract.frame import Frame, FrameBatch
from gaussline.worker.contract.heat_map import Explanation
from gaussline.worker.contract.part_verdict import PartFrame, PartReason, PartVerdict
from gaussline.worker.contract.verdict import Decision, ModelRef, Reason, Verdict

GOLDEN = Path(__file__).parent / "golden"
CAPTURED_US = from_text("2026-01-31T14:03:00.250000Z")
DIGEST = "0123456789abcdef" * 4

FULL_BATCH = FrameBatch(
    "cam1",
    3,
    1042,
    (
        Frame(
            b"\xff\xd8\xff\xe0picture",
            "jpeg",
            CAPTURED_US,
            part="A-1042 ä",
            deadline_us=CAPTURED_US + 2_000_000,
            trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        Frame(bytes(range(24)), "raw", CAPTURED_US + 40_000, shape=(2, 4, 3), dtype="uint8"),
        Frame(bytes(16), "raw", CAPTURED_US + 80_000, part="A-1044", shape=(2, 2), dtype="float32"),
    ),
)
LEAST_BATCH = FrameBatch("cam-2.b", 1, 0, (Frame(b"\x89PNG", "png", CAPTURED_US),))
FAIL = Verdict(
    id="cam1:3:1042",
    line="line1",
    camera="cam1",
    epoch=3,
    sequence=1042,
    decision=Decision.FAIL,
    worker="inspect1-2207",
    admitted_us=CAPTURED_US + 6_214,
    captured_us=CAPTURED_US,
    part="A-1042",
    score=412.75,
    threshold=305.5,
    p_value=0.00125,
    level_scores={"features.1": 38.25, "features.3": 61.5, "features.6": 313.0},
    model=ModelRef("plates", 7, DIGEST),
    backbone="mobilenet_v2",
    kept=True,
    judged_us=CAPTURED_US + 41_388,
)
FAIL_EXPLAINED = replace(FAIL, heat_map="cam1:3:1042@0123456789abcdef", device="cpu AVX2")
FAIL_TRACED = replace(FAIL_EXPLAINED, traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
NOT_JUDGED = Verdict(
    id="cam1:3:1043",
    line="line1",
    camera="cam1",
    epoch=3,
    sequence=1043,
    decision=Decision.NOT_JUDGED,
    worker="inspect1-2207",
    admitted_us=CAPTURED_US + 46_000,
    captured_us=CAPTURED_US + 40_000,
    reason=Reason.EXPIRED,
    detail="its deadline had passed by 0.120 s when a worker took it",
    judged_us=CAPTURED_US + 2_160_000,
)
EVENT = FeatureEvent(
    id="cam1:3:1042",
    camera="cam1",
    captured_us=CAPTURED_US,
    admitted_us=CAPTURED_US + 6_214,
    decision=Decision.PASS,
    model="plates",
    version=7,
    digest=DIGEST,
    spec_digest=DIGEST[::-1],
    score=99.5,
    p_value=0.25,
    features=(np.array([0.5, -1.25], np.float32), np.array([1e-30, 3.0, 7.5], np.float32)),
    reservoir=True,
    weight=10.0,
    statistics={"exposure": 0.5},
)
EXPLANATION = Explanation(
    5.5,
    (4, 6),
    {
        "features.1": np.array([[1.0, -0.5, 2.0], [0.0, 4.0, 2.5]], np.float32),
        "features.3": np.array([[6.25]], np.float32),
    },
    {"features.1": 3.0, "features.3": 2.5},
    {"features.1": 3.0, "features.3": 2.5},
    "cam1:3:1042",
    ModelRef("plates", 7, DIGEST),
)
FEEDBACK = Feedback("cam1:3:1042", Label.BAD, "Ada Müller", "crack at final check")
PART = PartVerdict(
    line="line1",
    part="A-1042",
    decision=Decision.NOT_JUDGED,
    reason=PartReason.MISSING,
    frames=(PartFrame("cam1:3:1042", "cam1", Decision.PASS),),
    missing=("cam2",),
    first_us=CAPTURED_US + 41_000,
    deadline_us=CAPTURED_US + 10_041_000,
    decided_us=CAPTURED_US + 10_052_115,
)
LETTER = DeadLetter("cam1:3:1044", "cam1", Reason.UNDECODABLE, "not a jpeg: marker ff00", 1, 2, b"\x00\xffbytes")


def artefact() -> Artefact:
    """A small artefact of every dtype that a model holds."""
    return Artefact.pack(
        {"kind": "example", "info": {"frames": 3, "note": "ä"}},
        {
            "b": np.arange(6, dtype=np.float64).reshape(2, 3),
            "a": np.array([1.5, -2.0], np.float32),
            "n": np.array(3, np.int64),
        },
    )


def letter_to_json(fields: dict[str, Any]) -> dict[str, str]:
    """Stream fields as JSON-able text, bytes in hex."""
    return {name: value.hex() if isinstance(value, bytes) else str(value) for name, value in fields.items()}
