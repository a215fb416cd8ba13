"""Outcomes between a worker and its isolated process, as msgpack: both ends are one build, so it needs no version."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgpack
import numpy as np

from gaussline.worker.contract.verdict import Decision, ModelRef, Opinion, Reason
from gaussline.worker.engine.judgement import Judgement
from gaussline.worker.engine.prepare import Refusal


def pack_outcome(outcome: Judgement | Refusal) -> bytes:
    """One outcome, without the frame that a refusal carries: the worker has it."""
    if isinstance(outcome, Refusal):
        return _packed([outcome.reason.value, outcome.detail])
    model = outcome.model
    features = outcome.features
    return _packed(
        {
            "model": [model.name, model.version, model.digest, model.channel],
            "failed": outcome.failed,
            "score": outcome.score,
            "threshold": outcome.threshold,
            "p_value": outcome.p_value,
            "level_scores": outcome.level_scores,
            "backbone": outcome.backbone,
            "spec_digest": outcome.spec_digest,
            "random_weights": outcome.random_weights,
            "heat_map": outcome.heat_map,
            "device": outcome.device,
            "opinions": [asdict(opinion) for opinion in outcome.opinions],
            "features": None if features is None else [level.astype("<f4").tobytes() for level in features],
        }
    )


def unpack_outcome(data: bytes) -> Judgement | Refusal:
    """The outcome that `pack_outcome` packed."""
    fields: Any = msgpack.unpackb(data, raw=False)
    if isinstance(fields, list):
        return Refusal(Reason(fields[0]), fields[1])
    features = fields.pop("features")
    levels = None if features is None else tuple(np.frombuffer(level, "<f4") for level in features)
    opinions = (Opinion(**one | {"decision": Decision(one["decision"])}) for one in fields.pop("opinions"))
    return Judgement(model=ModelRef(*fields.pop("model")), features=levels, opinions=tuple(opinions), **fields)


def _packed(fields: object) -> bytes:
    data = msgpack.packb(fields, use_bin_type=True)
    assert isinstance(data, bytes)
    return data
