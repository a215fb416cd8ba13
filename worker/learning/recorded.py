"""Frames as a line recorded them: feature events of one model, for a fit without the images.

Which frames calibrate was drawn by chance before they were scored (the reservoir), and those that failed are among
them. Calibrating on frames that an earlier model let pass instead would be a spiral: each model would cut the tail that
the next one needs to know, and the share of good parts that fail would grow from fit to fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.feature_log import read_events
from gaussline.worker.broker.registry import Registry
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.calibration import attainable_rate, frames_needed
from gaussline.worker.learning.fit import FEWEST_TRAINING


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """Features of recorded frames, (n, d) float32 a level.

    Attributes:
        reservoir: (n,) which of them calibrate: the reservoir, whatever was decided. The others passed, and teach.
        reservoir_failed: how many of the reservoir had failed.
        spec, version: the backbone spec they were recorded under, and the newest version that judged them.
    """

    features: list[NDArray[np.float32]]
    reservoir: NDArray[np.bool_]
    reservoir_failed: int
    spec: BackboneSpec
    version: int

    @property
    def calibrating(self) -> int:
        """Frames that calibrate."""
        return int(self.reservoir.sum())

    @property
    def teaching(self) -> int:
        """Frames that teach."""
        return len(self.reservoir) - self.calibrating

    def require(self, rate: float, reservoir_share: float) -> None:
        """Raise FitError, with the frames needed, where these are too few for a rate.

        Args:
            reservoir_share: share of frames that the line draws, to say how many frames have to be judged.
        """
        needed = frames_needed(rate)
        if self.calibrating < needed:
            told = f"{self.calibrating} recorded frames are in the reservoir, a false-positive rate of {rate:g} needs "
            told += f"{needed}: "
            if reservoir_share > 0:
                told += f"record about {int(np.ceil(needed / reservoir_share))} frames (a reservoir share of "
                told += f"{reservoir_share:g})"
            else:
                told += "set GAUSSLINE_RESERVOIR_SHARE of the workers above 0"
            if self.calibrating:
                told += f", or state a rate of at least {attainable_rate(self.calibrating):.3g}"
            raise FitError(told)
        if self.teaching < FEWEST_TRAINING:
            raise FitError(
                f"{self.teaching} recorded frames passed outside the reservoir: {FEWEST_TRAINING} are needed"
            )


def read_recorded(client: Redis, line: str, model: str, registry: Registry) -> Recorded:
    """What is recorded of a model under its newest backbone spec. Raises FitError where that is nothing."""
    events = [event for _, event in read_events(client, line, model)]
    if not events:
        raise FitError(f"no frames of model {model!r} are recorded: run its workers with GAUSSLINE_FEATURES=all")
    last = events[-1]
    spec = Model.from_artefact(Artefact.unpack(registry.fetch(last.digest), last.digest)).spec
    return gather([event for event in events if event.spec_digest == last.spec_digest], spec, last.version)


def gather(events: Sequence[FeatureEvent], spec: BackboneSpec, version: int) -> Recorded:
    """Those of the events that teach or calibrate: passed ones outside the reservoir, and all of the reservoir."""
    own = [event for event in events if event.reservoir or event.decision is Decision.PASS]
    return Recorded(
        [
            np.stack([event.features[level] for event in own]) if own else np.empty((0, width), np.float32)
            for level, width in enumerate(spec.channels)
        ],
        np.array([event.reservoir for event in own], bool),
        sum(event.reservoir and event.decision is Decision.FAIL for event in own),
        spec,
        version,
    )
