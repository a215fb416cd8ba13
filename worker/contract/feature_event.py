"""The feature event: the level features of one judged frame, written together with its verdict.

Only the learner and the watchers of drift read it. Features travel as little-endian float32, one byte string a level.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, Final

import msgpack
import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.bounded import unpack
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.errors import ContractError, LimitExceeded, UnknownVersion

VERSION: Final = 1
MAX_LEVELS: Final = 1024
MAX_FEATURES: Final = 65_536
MAX_BYTES: Final = 4 * MAX_FEATURES + 65_536


@dataclass(frozen=True, slots=True)
class FeatureEvent:
    """What a model saw of one frame.

    Attributes:
        id: the frame's identity, camera:epoch:sequence.
        model, version, digest: the model that judged it.
        spec_digest: SHA-256 of the backbone spec the features come from.
        features: one float32 vector (d,) a level.
        reservoir: drawn for calibration before it was scored; such a frame never teaches.
        weight: how many frames this one stands for where only a share is written.
        statistics: cheap image statistics by name (exposure, contrast, …), for the causes of drift.
    """

    id: str
    camera: str
    captured_us: int
    admitted_us: int
    decision: Decision
    model: str
    version: int
    digest: str
    spec_digest: str
    score: float
    p_value: float
    features: tuple[NDArray[np.float32], ...]
    reservoir: bool = False
    weight: float = 1.0
    statistics: dict[str, float] | None = None

    def encode(self) -> bytes:
        """As msgpack."""
        fields: dict[str, Any] = {
            "v": VERSION,
            "id": self.id,
            "camera": self.camera,
            "captured_us": self.captured_us,
            "admitted_us": self.admitted_us,
            "decision": self.decision.value,
            "model": self.model,
            "version": self.version,
            "digest": self.digest,
            "spec": self.spec_digest,
            "score": self.score,
            "p": self.p_value,
            "features": [np.ascontiguousarray(level, dtype="<f4").tobytes() for level in self.features],
        }
        if self.reservoir:
            fields["reservoir"] = True
        if self.weight != 1.0:
            fields["weight"] = self.weight
        if self.statistics:
            fields["statistics"] = self.statistics
        result = msgpack.packb(fields, use_bin_type=True)
        assert isinstance(result, bytes)
        return result

    @classmethod
    def decode(cls, payload: bytes) -> FeatureEvent:
        """Read one event. Raises UnknownVersion, LimitExceeded, ContractError (also for NaN or infinite numbers)."""
        try:
            fields = unpack(payload, max_bytes=MAX_BYTES, max_array=MAX_LEVELS, max_containers=256)
            version = fields["v"]
            if type(version) is not int or version != VERSION:
                raise UnknownVersion(f"feature event speaks version {version!r:.20}; this build speaks {VERSION}")
            for name, kind in _KINDS.items():
                if type(fields[name]) is not kind:
                    raise TypeError(f"{name} is a {type(fields[name]).__name__}, not a {kind.__name__}")
            statistics = fields.get("statistics")
            levels = fields["features"]
            # One array under all levels: what is done once a frame counts here, thousands of times a second.
            joined = np.frombuffer(b"".join(levels), dtype="<f4")
            ends = [0, *itertools.accumulate(len(level) // 4 for level in levels)]
            event = cls(
                id=fields["id"],
                camera=fields["camera"],
                captured_us=fields["captured_us"],
                admitted_us=fields["admitted_us"],
                decision=Decision(fields["decision"]),
                model=fields["model"],
                version=fields["version"],
                digest=fields["digest"],
                spec_digest=fields["spec"],
                score=float(fields["score"]),
                p_value=float(fields["p"]),
                features=tuple(joined[start:end] for start, end in itertools.pairwise(ends)),
                reservoir=bool(fields.get("reservoir", False)),
                weight=float(fields.get("weight", 1.0)),
                statistics=None if statistics is None else {str(k): float(v) for k, v in statistics.items()},
            )
        except ContractError:
            raise
        except Exception as error:  # fields of any kind may be missing or wrong; all mean that these bytes are no event
            raise ContractError(f"bytes are no feature event: {type(error).__name__}: {str(error)[:200]}") from None
        if any(len(level) % 4 for level in levels):
            raise ContractError("bytes are no feature event: a level's bytes are no whole number of float32")
        event._check(joined)
        return event

    def _check(self, joined: NDArray[np.float32]) -> None:
        """Raise ContractError for numbers that would poison whoever learns from them."""
        if joined.size > MAX_FEATURES:
            raise LimitExceeded(f"feature event {self.id} holds more than {MAX_FEATURES} features")
        numbers = (self.score, self.p_value, self.weight, *(self.statistics or {}).values())
        if not (all(map(math.isfinite, numbers)) and np.isfinite(joined).all()):
            raise ContractError(f"feature event {self.id} holds NaN or infinite numbers")
        if not (0 <= self.p_value <= 1 and self.weight > 0):
            raise ContractError(f"feature event {self.id} has p {self.p_value} and weight {self.weight}")


_KINDS: Final = {
    "id": str,
    "camera": str,
    "captured_us": int,
    "admitted_us": int,
    "model": str,
    "version": int,
    "digest": str,
    "spec": str,
    "features": list,
}
