"""A line in numbers: frames are drawn, judged by the stable version, learnt from; candidates that pass are promoted.

Everything but the frames is the product: the model that judges, the learner that folds, the guard that proposes. Time
is the frames' own; nothing waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.order import Order
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.gaussian.density import Gaussian
from gaussline.worker.learning.block import Block, level_slices
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.learning.learner import Learner
from gaussline.worker.learning.notice import Notice
from gaussline.worker.learning.obedience import obey
from gaussline.worker.learning.policy import Policy
from gaussline.worker.learning.proposal import Candidate, Limits, make_candidate
from tests.learning.log import START_US
from tests.learning.synthetic import CHANNELS, SPEC

Rows = NDArray[np.float32]
BLOCK = 128
FRAMES_A_SECOND = 5
QUARANTINE_S = 60.0
_SLICES = level_slices(CHANNELS)


class Scene:
    """Normal frames of one look, and defects of one type.

    Frames are heavy-tailed (Student's t with 6 degrees of freedom), and each resembles the one before a little.
    """

    def __init__(self, seed: int = 0) -> None:
        shape = np.random.default_rng(99)
        self._mixing = [shape.standard_normal((w, w)) * np.geomspace(1.0, 0.05, w) for w in CHANNELS]
        self._middle = [shape.standard_normal(w) for w in CHANNELS]
        self._draw = np.random.default_rng(seed)
        self.drift, self.defect = self._direction(), self._direction()

    def _direction(self) -> NDArray[np.float64]:
        """(D,) a change that moves every level by one standard deviation a direction."""
        parts = [self._draw.standard_normal(w) @ mix for w, mix in zip(CHANNELS, self._mixing, strict=True)]
        return np.concatenate(parts)

    def frames(self, count: int, moved: float | NDArray[np.float64] = 0.0, defective: float = 0.0) -> Rows:
        """(n, D) frames, moved along the drift (one number, or one a frame) and along the defect."""
        parts = [
            self._draw.standard_t(6, (count, w)) @ mix + middle
            for w, mix, middle in zip(CHANNELS, self._mixing, self._middle, strict=True)
        ]
        move = np.broadcast_to(np.asarray(moved, np.float64), (count,))[:, None] * self.drift
        return (np.concatenate(parts, axis=1) + move + defective * self.defect).astype(np.float32)


def levels(rows: Rows) -> list[Rows]:
    """(n, D) to one (n, d) a level."""
    return [rows[:, place] for place in _SLICES]


def failed(model: Model, rows: Rows) -> NDArray[np.bool_]:
    """Which frames a version fails."""
    return model.working_point.fails(model.scores([*levels(rows)]))


@dataclass(slots=True)
class Told:
    """One stretch of frames.

    Attributes:
        normal, wrong: frames without a defect, and how many of them failed.
        frozen: how many of them the first version would have failed.
    """

    normal: int = 0
    wrong: int = 0
    frozen: int = 0

    @property
    def rate(self) -> float:
        """Realised false-positive rate."""
        return self.wrong / self.normal

    @property
    def frozen_rate(self) -> float:
        """The same of the frozen version."""
        return self.frozen / self.normal


@dataclass(eq=False)
class Line:
    """A line that judges, learns and promotes.

    Attributes:
        guarded: only candidates that pass the guard are promoted; without it every one that can be made is.
        limits: of the guard.
    """

    scene: Scene
    policy: Policy
    rate: float = 0.02
    fitted_on: int = 4_000
    guarded: bool = True
    seed: int = 5
    limits: Limits = Limits()  # noqa: RUF009, frozen
    stable: Model = field(init=False)
    first: Model = field(init=False)
    learner: Learner = field(init=False)
    notices: list[Notice] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    promoted: int = 0
    frame: int = 0
    _versions: dict[str, Model] = field(default_factory=dict)
    _waiting: list[Order] = field(default_factory=list)

    def __post_init__(self) -> None:
        fit = fit_model(levels(self.scene.frames(self.fitted_on)), SPEC, FitOptions(rate=self.rate))
        self.first = fit
        self._draw = np.random.default_rng(self.seed)
        self._promote(fit)
        self.learner = Learner.start(SPEC, self.policy, fit.moments or (), self.gaussians)

    def _promote(self, model: Model) -> None:
        artefact = model.to_artefact()
        self.stable, self.digest = model, artefact.digest
        self._versions[self.digest] = model

    def gaussians(self, digest: str) -> tuple[tuple[str, ...], tuple[Gaussian, ...], int] | None:
        """What a watch asks for."""
        model = self._versions.get(digest)
        return None if model is None else (SPEC.levels, model.gaussians, len(model.working_point.scores))

    def order(self, order: Order) -> None:
        """It stands in the log before the next frame."""
        self._waiting.append(order)

    def run(
        self,
        count: int,
        *,
        moved: Callable[[NDArray[np.int64]], Any] = lambda frame: 0.0,
        defects: float = 0.0,
        size: float = 0.0,
        camera: str = "cam1",
    ) -> Told:
        """Judge and learn so many frames, a whole number of blocks.

        Args:
            moved: from the number of a frame to its place along the drift.
            defects, size: share of frames that have the defect, and how far it moves them.
        """
        assert count % BLOCK == 0
        told = Told()
        for _ in range(count // BLOCK):
            number = np.arange(self.frame, self.frame + BLOCK)
            rows = self.scene.frames(BLOCK, moved(number))
            bad = self._draw.random(BLOCK) < defects
            rows[bad] += (size * self.scene.defect).astype(np.float32)
            wrong = self._step(rows, camera)
            told.normal += int((~bad).sum())
            told.wrong += int(wrong[~bad].sum())
            told.frozen += int(failed(self.first, rows[~bad]).sum()) if (~bad).any() else 0
        return told

    def _step(self, rows: Rows, camera: str) -> NDArray[np.bool_]:
        items = self.judge(rows, camera)
        orders, self._waiting = [(0, order) for order in self._waiting], []
        entries = [(f"{self.frame + row + 1}-0", 1) for row in range(len(rows))]
        self.notices += self.learner.fold(Block(entries, items, rows, orders), obey)
        self.frame += len(rows)
        if self.learner.due():
            self.propose()
        return np.array([event.decision is Decision.FAIL for event in items])

    def judge(self, rows: Rows, camera: str) -> list[FeatureEvent]:
        """What a worker would write of these frames, without their features."""
        scores = self.stable.scores([*levels(rows)])
        p_values, wrong = self.stable.working_point.p_value(scores), self.stable.working_point.fails(scores)
        drawn = self._draw.random(len(rows)) < 0.1
        every_us = 1_000_000 // FRAMES_A_SECOND
        return [
            FeatureEvent(
                id=f"{camera}:1:{self.frame + row}",
                camera=camera,
                captured_us=START_US,
                admitted_us=START_US + (self.frame + row) * every_us,
                decision=Decision.FAIL if wrong[row] else Decision.PASS,
                model="default",
                version=1 + self.promoted,
                digest=self.digest,
                spec_digest=_SPEC_DIGEST,
                score=float(scores[row]),
                p_value=float(p_values[row]),
                features=(),
                reservoir=bool(drawn[row]),
            )
            for row in range(len(rows))
        ]

    def propose(self) -> Candidate:
        """A candidate from what was learnt; promoted where it passes."""
        candidate = make_candidate(self.learner, self.stable, self.limits, stable_digest=self.digest)
        self.learner.proposed()
        self.candidates.append(candidate)
        if candidate.model is not None and (candidate.passed or not self.guarded):
            self._promote(candidate.model)
            self.promoted += 1
        return candidate

    def alarms(self, kinds: Sequence[str] = ()) -> list[Notice]:
        """Alarms that began."""
        return [one for one in self.notices if one.kind == "alarm" and (not kinds or _kind(one) in kinds)]

    def refusals(self) -> list[str]:
        """Which checks kept candidates back."""
        return [check.name for one in self.candidates for check in one.checks if not check.passed]


def _kind(notice: Notice) -> str:
    assert notice.alarm is not None
    return notice.alarm.kind


_SPEC_DIGEST = SPEC.digest
