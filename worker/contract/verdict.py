"""The verdict: the one answer to one frame, as JSON text that any MES language reads.

The JSON Schema beside this file (`verdict.schema.json`) is the published form; the tests hold the two together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from gaussline.worker.contract.clock import from_text, to_text
from gaussline.worker.errors import ContractError, UnknownVersion

VERSION: Final = 1


class Decision(StrEnum):
    """What a verdict says."""

    PASS = "pass"
    FAIL = "fail"
    NOT_JUDGED = "not_judged"


class Reason(StrEnum):
    """Why a frame was not judged. A closed list: it is a metric label and the name of a dead-letter stream."""

    UNDECODABLE_MESSAGE = "undecodable_message"  # the msgpack envelope is broken or lies about its frames
    UNKNOWN_VERSION = "unknown_version"  # the message speaks a contract version of tomorrow
    INVALID_FRAME = "invalid_frame"  # one frame of a right message breaks the contract
    UNDECODABLE = "undecodable"  # the image cannot be decoded
    TOO_LARGE = "too_large"  # bytes, pixels or sides over the limits
    UNSUPPORTED_FORMAT = "unsupported_format"  # an image format that is not on the list
    INVALID_ARRAY = "invalid_array"  # a raw array whose shape, dtype, size or values are wrong
    EXPIRED = "expired"  # its deadline passed before it could be judged
    NO_MODEL = "no_model"  # no model is promoted for its camera
    POISON = "poison"  # workers died over it
    LOST = "lost"  # its bytes were deleted behind our back
    UNADMITTED = "unadmitted"  # it came without admission; dead-lettered, never a verdict
    INTERNAL = "internal"  # a fault of ours, logged with its traceback


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Which model judged: its name, its version and the SHA-256 of its artefact."""

    name: str
    version: int
    digest: str
    channel: str = "stable"


@dataclass(frozen=True, slots=True)
class Opinion:
    """What another channel of the same model says of the frame, on the same features; it decides nothing."""

    channel: str
    version: int
    digest: str
    decision: Decision
    score: float
    p_value: float

    def to_json(self) -> dict[str, Any]:
        """JSON-able fields."""
        return {
            "channel": self.channel,
            "version": self.version,
            "digest": self.digest,
            "decision": self.decision.value,
            "score": self.score,
            "p_value": self.p_value,
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Opinion:
        """From `to_json`; fields of later versions are ignored."""
        return cls(
            fields["channel"],
            fields["version"],
            fields["digest"],
            Decision(fields["decision"]),
            fields["score"],
            fields["p_value"],
        )


_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
"""allow_nan: a NaN is no JSON, and a score that is none must never reach an MES."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one frame.

    `judged_us` is 0 until the settle script, which alone knows the moment, appends it by Redis's clock.

    Attributes:
        score: the combined distance of the frame, None where it was not judged.
        threshold: the score above which the model's working point fails a frame.
        p_value: share of normal frames at least as far out, by the model's calibration.
        level_scores: Mahalanobis distance a level (not squared), in the order of the levels.
        kept: the frame's bytes were kept and can be asked for by its id.
        heat_map: reference of the heat map (`contract.heat_map`), which may come later or never.
        random_weights: the backbone had random weights; such a verdict means nothing (demo and tests only).
        device: what the backbone ran on, such as `cpu AVX2`; None in verdicts of earlier builds.
        retry_of: the frame whose dead letter this one is a retry of. Written only where it is one.
        traceparent: W3C trace context of the frame, to go on from. Written only where the frame is traced.
        opinions: what the model's other channels say, while a canary or a shadow is on trial.
    """

    id: str
    line: str
    camera: str
    epoch: int
    sequence: int
    decision: Decision
    worker: str
    admitted_us: int
    captured_us: int | None = None
    part: str | None = None
    reason: Reason | None = None
    detail: str | None = None
    score: float | None = None
    threshold: float | None = None
    p_value: float | None = None
    level_scores: dict[str, float] | None = None
    model: ModelRef | None = None
    backbone: str | None = None
    kept: bool = False
    heat_map: str | None = None
    random_weights: bool = False
    judged_us: int = 0
    retry_of: str | None = None
    opinions: tuple[Opinion, ...] = ()
    device: str | None = None
    traceparent: str | None = None

    def to_json(self) -> str:
        """The whole verdict as one line of JSON, `judged_at` included."""
        if self.judged_us <= 0:
            raise ContractError(f"verdict {self.id} was not settled: it has no judging time")
        return f'{self.to_open_json()},"judged_at":"{to_text(self.judged_us)}"}}'

    def to_open_json(self) -> str:
        """The verdict's JSON without its end; the settle script appends `,"judged_at":"…"}`."""
        model = self.model
        fields: dict[str, Any] = {
            "v": VERSION,
            "id": self.id,
            "line": self.line,
            "camera": self.camera,
            "epoch": self.epoch,
            "sequence": self.sequence,
            "part": self.part,
            "decision": self.decision.value,
            "reason": None if self.reason is None else self.reason.value,
            "detail": self.detail,
            "score": self.score,
            "threshold": self.threshold,
            "p_value": self.p_value,
            "level_scores": self.level_scores,
            "model": None
            if model is None
            else {"name": model.name, "version": model.version, "digest": model.digest, "channel": model.channel},
            "backbone": self.backbone,
            "random_weights": self.random_weights,
            "worker": self.worker,
            "kept": self.kept,
            "heat_map": self.heat_map,
            "captured_at": None if self.captured_us is None else to_text(self.captured_us),
            "admitted_at": to_text(self.admitted_us),
        }
        if self.retry_of is not None:
            fields["retry_of"] = self.retry_of
        if self.opinions:
            fields["opinions"] = [opinion.to_json() for opinion in self.opinions]
        if self.device is not None:
            fields["device"] = self.device
        if self.traceparent is not None:
            fields["traceparent"] = self.traceparent
        return _ENCODER.encode(fields)[:-1]

    @classmethod
    def from_json(cls, text: str | bytes) -> Verdict:
        """Read one verdict; fields of later minor versions are ignored. Raises ContractError, UnknownVersion."""
        try:
            fields = json.loads(text, parse_constant=_refuse_constant)
            version = fields["v"]
            if type(version) is not int or version != VERSION:
                raise UnknownVersion(f"verdict speaks contract version {version!r:.20}; this build speaks {VERSION}")
            model = fields.get("model")
            captured = fields.get("captured_at")
            return cls(
                id=fields["id"],
                line=fields["line"],
                camera=fields["camera"],
                epoch=fields["epoch"],
                sequence=fields["sequence"],
                decision=Decision(fields["decision"]),
                worker=fields["worker"],
                admitted_us=from_text(fields["admitted_at"]),
                captured_us=None if captured is None else from_text(captured),
                part=fields.get("part"),
                reason=None if fields.get("reason") is None else Reason(fields["reason"]),
                detail=fields.get("detail"),
                score=fields.get("score"),
                threshold=fields.get("threshold"),
                p_value=fields.get("p_value"),
                level_scores=fields.get("level_scores"),
                model=None
                if model is None
                else ModelRef(model["name"], model["version"], model["digest"], model.get("channel", "stable")),
                backbone=fields.get("backbone"),
                kept=fields.get("kept", False),
                heat_map=fields.get("heat_map"),
                random_weights=fields.get("random_weights", False),
                judged_us=from_text(fields["judged_at"]),
                device=fields.get("device"),
                traceparent=fields.get("traceparent"),
                retry_of=fields.get("retry_of"),
                opinions=tuple(Opinion.from_json(each) for each in fields.get("opinions") or ()),
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ContractError(f"text is no verdict: {type(error).__name__}: {str(error)[:200]}") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
