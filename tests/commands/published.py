"""Verdicts on a line without a worker: what the commands that read them are tested on."""

from __future__ import annotations

from typing import Any

from gaussline.worker.broker.settle import Settlement, Settler
from gaussline.worker.contract.dead_letter import DeadLetter
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.contract.verdict import Decision, ModelRef, Reason, Verdict
from tests.broker.way import Way

MODEL = ModelRef("default", 1, "ab" * 32)


def publish(way: Way, *decisions: Decision, camera: str = "cam1", **fields: Any) -> None:
    """Admit a frame for each decision, and settle it."""
    for decision in decisions:
        way.admit(camera)
        (message,) = way.take()
        sequence = message.first_sequence
        identity = f"{camera}:{message.epoch}:{sequence}"
        judged: dict[str, Any] = {"reason": Reason.UNDECODABLE, "detail": "no\x1b[2Jpicture"}
        dead = [DeadLetter(identity, camera, Reason.UNDECODABLE, "no picture", data=b"broken")]
        if decision is not Decision.NOT_JUDGED:
            judged = {"score": 12.5, "threshold": 20.0, "p_value": 0.25, "level_scores": {}, "model": MODEL}
            dead = []
        judged |= {"part": f"P-{sequence}", **fields}
        verdict = Verdict(
            identity, way.line, camera, message.epoch, sequence, decision, "w1", message.admitted_us, **judged
        )
        kept = [(identity, encode_batch(camera, message.epoch, sequence, [Frame(b"picture", "png", 1)]))]
        settlement = Settlement(
            camera,
            message.entry_id,
            [(identity, decision.value, verdict.to_open_json())],
            kept=kept if decision is Decision.FAIL else (),
            dead=dead,
        )
        assert Settler(way.client, way.line).settle([settlement]) == [True]
