"""Normal frames as a line recorded them: feature events of one model, for a fit without the images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.feature_log import read_events
from gaussline.worker.broker.registry import Registry
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.errors import FitError


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """Features of recorded frames, (n, d) float32 a level, and the spec and version they were recorded under."""

    features: list[NDArray[np.float32]]
    spec: BackboneSpec
    version: int


def read_recorded(client: Redis, line: str, model: str, registry: Registry) -> Recorded:
    """Frames that passed, with features of the newest recorded backbone spec.

    Frames that failed are left out, which makes the fit a little too narrow: its working point then fails somewhat more
    than stated. Raises FitError where nothing is recorded.
    """
    events = [event for _, event in read_events(client, line, model) if event.decision is Decision.PASS]
    if not events:
        raise FitError(f"no passed frames of model {model!r} are recorded: run its workers with GAUSSLINE_FEATURES=all")
    last = events[-1]
    own = [event for event in events if event.spec_digest == last.spec_digest]
    spec = Model.from_artefact(Artefact.unpack(registry.fetch(last.digest), last.digest)).spec
    levels = [np.stack([event.features[level] for event in own]) for level in range(len(spec.levels))]
    return Recorded(levels, spec, last.version)
