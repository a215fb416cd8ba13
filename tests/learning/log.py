"""A feature log without a line: events as workers would write them, and a model that judges them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.feature_log import Entry
from gaussline.worker.broker.registry import Registry
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.order import Order
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.learning.fit import FitOptions, fit_model
from tests.learning.synthetic import SPEC, normal

START_US = 1_700_000_000_000_000
Rows = list[NDArray[np.float32]]


def fitted(frames: int = 600, seed: int = 1, rate: float = 0.05) -> tuple[Model, Artefact]:
    """A model of the synthetic line."""
    artefact = fit_model(normal(frames, seed), SPEC, FitOptions(rate=rate)).to_artefact()
    return Model.from_artefact(artefact), artefact


def events(
    model: Model,
    digest: str,
    levels: Sequence[NDArray[Any]],
    *,
    first: int = 0,
    camera: str = "cam1",
    every_us: int = 1_000_000,
    start_us: int = START_US,
    reservoir_share: float = 0.1,
    seed: int = 0,
    **fields: Any,
) -> list[FeatureEvent]:
    """Frames of a camera, judged by a model, the reservoir drawn before."""
    scores = model.scores(list(levels))
    p_values, failed = model.working_point.p_value(scores), model.working_point.fails(scores)
    drawn = np.random.default_rng([seed, first]).random(len(scores)) < reservoir_share
    spec_digest = model.spec.digest
    return [
        FeatureEvent(
            id=f"{camera}:1:{first + row}",
            camera=camera,
            captured_us=start_us + (first + row) * every_us,
            admitted_us=start_us + (first + row) * every_us,
            decision=Decision.FAIL if failed[row] else Decision.PASS,
            model="default",
            version=1,
            digest=digest,
            spec_digest=spec_digest,
            score=float(scores[row]),
            p_value=float(p_values[row]),
            features=tuple(np.asarray(level[row], np.float32) for level in levels),
            reservoir=bool(drawn[row]),
            **fields,
        )
        for row in range(len(scores))
    ]


def entries(items: Sequence[FeatureEvent | Order], first: int = 1) -> list[Entry]:
    """The same as they would stand in a log."""
    return [Entry(f"{first + number}-0", item.encode(), isinstance(item, Order)) for number, item in enumerate(items)]


def write(client: Redis, line: str, items: Sequence[FeatureEvent | Order | bytes], model: str = "default") -> None:
    """Append to a line's log, bytes counted, as settling does."""
    keys = Keys(line)
    pipe = client.pipeline(transaction=False)
    for item in items:
        payload = item if isinstance(item, bytes) else item.encode()
        pipe.xadd(keys.features(model), {"o" if isinstance(item, Order) else "e": payload})
        pipe.hincrby(keys.totals, f"features_bytes:{model}", len(payload))
    pipe.execute()


def promote(client: Redis, line: str, artefact: Artefact, model: str = "default") -> None:
    """Publish a version and let it judge."""
    registry = Registry(client, line)
    version = registry.publish(model, artefact.data, by="test")
    registry.promote(model, version.number, by="test")
