"""A proposal: a candidate version from what was learnt, and the guard that it must pass.

The candidate's Gaussians come from the moments, its working point from the reservoir: frames that were drawn before
they were scored and never taught. The guard looks at another half of the reservoir. What failed is said in the report,
and such a candidate is published nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from gaussline.worker.contract.model import Model
from gaussline.worker.errors import FitError, NotFound
from gaussline.worker.gaussian.calibration import Method, WorkingPoint, calibrate, frames_needed
from gaussline.worker.gaussian.covariance import Estimator
from gaussline.worker.gaussian.density import Gaussian, Projection, fit_gaussian
from gaussline.worker.gaussian.divergence import divergence, mean_shift
from gaussline.worker.gaussian.truncation import correction
from gaussline.worker.learning.block import level_slices
from gaussline.worker.learning.fit import report
from gaussline.worker.learning.learner import Learner
from gaussline.worker.learning.made_defects import MOST_MADE, made_defects
from gaussline.worker.learning.notice import Notice
from gaussline.worker.learning.reservoir import fence
from gaussline.worker.learning.session import Session

LEARNT = "learnt_from"
"""In a version's facts: it was proposed by a learner, and not fitted by a person."""
NEWEST = 4
"""The newest quarter of the reservoir is looked at by itself too."""
SHAPE_ERROR = 1.6
"""The middle and the width are estimates as well: so many times a share's own error is that of a tail which is seen
from them (delta method, normal scores: 1.5 at a rate of 2 %, 1.6 at 5 %)."""
YOUNG = 1.5
"""After a confirmed change, made defects are so much larger: what was learnt from the new look alone, from few frames
yet, cannot see as sharply as the stable version saw the old one, and the line waits for it with every frame failing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a candidate must keep to.

    Attributes:
        min_frames: effective frames behind the moments.
        max_condition: condition number of a level's covariance.
        confidence: of the interval in which the realised rate on held-back frames must lie.
        detection_loss: share of known or made defects that may be found no more.
        max_shift: of a level's mean, in standard deviations a direction.
        max_divergence: KL(candidate ‖ stable) of a level, nats a direction.
        tail_growth, tail_confidence: how many times the stated rate may lie in the tail, and with what confidence more.
    """

    min_frames: float = 100.0
    max_condition: float = 1e10
    confidence: float = 0.99
    detection_loss: float = 0.05
    max_shift: float = 1.0
    max_divergence: float = 1.0
    tail_growth: float = 1.5
    tail_confidence: float = 0.99


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the guard looked at."""

    name: str
    value: float
    limit: Any
    passed: bool
    said: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """What became of a proposal. `model` is None where not even a candidate could be made."""

    model: Model | None
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether it may be published."""
        return self.model is not None and all(check.passed for check in self.checks)

    def report(self) -> dict[str, Any]:
        """JSON-able."""
        listed = [
            {"check": c.name, "value": c.value, "limit": c.limit, "passed": c.passed, "said": c.said}
            for c in self.checks
        ]
        failed = [check.name for check in self.checks if not check.passed]
        return {"passed": self.passed, "failed": failed, "guard": listed}


def make_candidate(
    learner: Learner, stable: Model, limits: Limits | None = None, *, stable_digest: str = ""
) -> Candidate:
    """A candidate from the learner's state, looked at by the guard beside the stable version. Never raises FitError.

    Where a person has confirmed since that the line looks otherwise than the stable version knows it (by its digest),
    the distance from it is reported and limits nothing, and detection is compared with the stable version *moved to the
    new look*: around the old one every frame is far out, so that it would find whatever it is shown.
    """
    limits = limits or Limits()
    if stable.spec.digest != learner.spec.digest:
        said = (
            f"the stable version's backbone is another: {stable.spec.name}, weights {stable.spec.weights_digest[:12]}…"
        )
        return Candidate(None, [Check("backbone", 0.0, None, False, said)])
    try:
        gaussians = _gaussians(learner, stable)
        point, rows, scores, cleaned = _calibrated(learner, stable, gaussians)
    except FitError as error:
        return Candidate(None, [Check("fit", 0.0, None, False, str(error))])
    info = {
        LEARNT: learner.lineage[-1] if learner.lineage else {},
        "position": learner.position,
        "last_id": learner.taught_id,
        "training_frames": learner.moments[0].count,
        "effective_frames": learner.moments[0].effective_size,
        "gated_share": learner.gated_share,
        "calibration_frames": len(point.scores),
        "reservoir_cleaned": cleaned,
        "variance": _variance(stable),
    }
    model = Model(
        stable.spec, gaussians, stable.combination, point, tuple(level.copy() for level in learner.moments), info
    )
    held, confirmed = rows[1::2], learner.confirmed.get(stable_digest)
    if confirmed is None and (not learner.anchor or LEARNT not in stable.info):
        learner.anchor = _anchor(stable.working_point)
    beside = _recentred(stable, model) if confirmed is None else _moved(stable, model, rows[0::2])
    checks = [
        _frames(learner, limits),
        _condition(model, limits),
        _rate(point, scores[1::2], limits),
        _tail(learner.anchor, scores, point.rate, limits, confirmed),
        *_distance(model, stable, limits, confirmed),
        *_detection(learner, model, stable, beside, held, limits, 1.0 if confirmed is None else YOUNG),
    ]
    return Candidate(model, checks)


class Proposer:
    """Publishes the candidates of a session that pass; says the others."""

    def __init__(self, session: Session, *, by: str, limits: Limits | None = None) -> None:
        self._session = session
        self._by = by
        self._limits = limits

    def propose(self) -> Candidate:
        """One proposal from the learner's present state. Raises Fenced, BrokerError.

        The same state gives the same artefact: one that was published before a crash is not published again.
        """
        session = self._session
        learner = session.learner
        digest, stable = session.stable()
        candidate = make_candidate(learner, stable, self._limits, stable_digest=digest)
        facts = candidate.report()
        if candidate.passed and candidate.model is not None:
            artefact = candidate.model.to_artefact()
            number = self._known(artefact.digest)
            if number is None:
                session.lease.renew()
                text = report(candidate.model) | facts
                number = session.registry.publish(
                    session.model, artefact.data, by=self._by, note="learnt", report=text
                ).number
            facts |= {"version": number, "text": f"version {number} of model {session.model} is proposed"}
        else:
            what = ", ".join(facts["failed"])
            facts["text"] = f"a version of model {session.model} was refused by the guard: {what}"
        learner.proposed()  # where Redis went away before, it is tried again
        session.say(Notice("proposal", "", learner.clock.seen_us, facts), learner.scouted_id)
        return candidate

    def _known(self, digest: str) -> int | None:
        try:
            versions = self._session.registry.versions(self._session.model)
        except NotFound:
            return None
        return next((version.number for version in versions if version.digest == digest), None)


# --- making ----------------------------------------------------------------------------------------------------------
def _variance(stable: Model) -> float:
    return float(stable.info.get("variance", 0.99))


def _gaussians(learner: Learner, stable: Model) -> tuple[Gaussian, ...]:
    """As the stable version was fitted, with what the gate cut off given back."""
    made = []
    cut = max(learner.policy.gate_p, stable.working_point.rate)  # whichever is stricter
    for name, level, old in zip(learner.spec.levels, learner.moments, stable.gaussians, strict=True):
        try:
            fitted = fit_gaussian(level, Estimator(old.estimator), Projection(old.projection), _variance(stable))
        except FitError as error:
            raise FitError(f"level {name}: {error}") from None
        grown = correction(fitted.rank, cut, learner.gated_share)
        made.append(replace(fitted, whitening=fitted.whitening / np.sqrt(grown)))
    return tuple(made)


def _rows(model: Model, rows: NDArray[np.float32]) -> list[ArrayLike]:
    return [rows[:, place] for place in level_slices(model.spec.channels)]


def _failed(model: Model, rows: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of (n, D) frames a version fails."""
    failed: NDArray[np.bool_] = model.judge(_rows(model, rows)).failed
    return failed


def _combined(stable: Model, gaussians: tuple[Gaussian, ...], rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n,) scores of (n, D) frames under other Gaussians, combined as the stable version's are."""
    pairs = zip(gaussians, _rows(stable, rows), strict=True)
    return stable.combination.combine(np.stack([gaussian.mahalanobis(level) for gaussian, level in pairs], axis=1))


def _calibrated(
    learner: Learner, stable: Model, gaussians: tuple[Gaussian, ...]
) -> tuple[WorkingPoint, NDArray[np.float32], NDArray[np.float64], int]:
    """A working point from every other reservoir frame, all of these and their scores, and how many were left out."""
    rate = stable.working_point.rate
    bad = {frame for frame, label in learner.labels.items() if label == "bad"}
    rows = learner.reservoir.usable(bad, learner.spans.covered, learner.taught_us)
    needed = 2 * frames_needed(rate)
    if len(rows) < needed:
        raise FitError(f"the reservoir holds {len(rows)} usable frames, and a rate of {rate:g} needs {needed}")
    scores = _combined(stable, gaussians, rows)
    normal = scores <= fence(scores)
    rows, scores = rows[normal], scores[normal]
    # Laws and folds belong to a fit: what is learnt from a stream is calibrated by ranks alone.
    empirical = stable.working_point.method is Method.EMPIRICAL
    point = calibrate(scores[0::2], rate, Method.EMPIRICAL if empirical else Method.CONFORMAL)
    return point, rows, scores, int((~normal).sum())


# --- looking ---------------------------------------------------------------------------------------------------------
def _frames(learner: Learner, limits: Limits) -> Check:
    size = min(level.effective_size for level in learner.moments)
    return Check("frames", size, limits.min_frames, size >= limits.min_frames, "effective frames behind the moments")


def _condition(model: Model, limits: Limits) -> Check:
    worst = max(gaussian.condition for gaussian in model.gaussians)
    return Check("condition", worst, limits.max_condition, worst <= limits.max_condition, "largest condition number")


def rate_interval(calibration: int, held: int, rate: float, confidence: float) -> tuple[int, int]:
    """Fewest and most failures among held-back normal frames that a conformal working point explains.

    The true rate of a threshold at an order statistic follows Beta(r, n + 1 - r), r = ⌊rate·(n + 1)⌋, so the failures
    among m other frames are beta-binomial: the error of the calibration set is in the interval.
    """
    reached = max(1, int(np.floor(rate * (calibration + 1) + 1e-9)))
    law = stats.betabinom(held, reached, calibration + 1 - reached)
    tail = (1.0 - confidence) / 2.0
    return int(law.ppf(tail)), int(law.ppf(1.0 - tail))


def _rate(point: WorkingPoint, held: NDArray[np.float64], limits: Limits) -> Check:
    failed = int(point.fails(held).sum())
    low, high = rate_interval(len(point.scores), len(held), point.rate, limits.confidence)
    said = f"{failed} of {len(held)} held-back frames fail at a stated rate of {point.rate:g}"
    return Check("rate", failed / len(held), [low / len(held), high / len(held)], low <= failed <= high, said)


def _shape(scores: NDArray[np.float64]) -> tuple[float, float]:
    """The middle of scores, and the width of their lower half, that a few defects do not move."""
    low, median = np.quantile(scores, (0.1, 0.5))
    return float(median), float(median - low)


def _anchor(point: WorkingPoint) -> dict[str, float]:
    """Where the tail of a version's calibration scores begins, in widths over their middle, and how many they are."""
    median, width = _shape(point.scores)
    start = float(np.quantile(point.scores, 1.0 - point.rate))
    return {"start": (start - median) / width if width > 0.0 else 0.0, "frames": float(len(point.scores))}


def _tail(
    anchor: Mapping[str, float], scores: NDArray[np.float64], rate: float, limits: Limits, confirmed: str | None
) -> Check:
    """Whether the frames that calibrate have the tail that normal frames had when a person last vouched for them.

    Defects that score little more than normal frames pass no fence. Calibrated on, they move the working point until
    they pass, version by version, and no failure tells of it, for the share of failures stays as stated. But they lie
    in the tail alone, where a drift of normal frames moves the middle as well.
    """
    if not anchor:
        return Check("tail", 0.0, None, True, "a change was confirmed: there is nothing to compare with yet")
    worst, limit = -np.inf, 0.0
    for part in (scores, scores[-(len(scores) // NEWEST) :]):
        median, width = _shape(part)
        share = float(np.mean(part > median + anchor["start"] * width))
        error = SHAPE_ERROR * float(np.sqrt(rate * (1.0 - rate) * (1.0 / len(part) + 1.0 / anchor["frames"])))
        most = max(limits.tail_growth * rate, rate + float(stats.norm.ppf(limits.tail_confidence)) * error)
        if share - most > worst:
            worst, found, limit = share - most, share, most
    passed = worst <= 0.0 or confirmed is not None
    said = f"{found:.1%} of the frames that calibrate lie where {rate:.1%} of normal ones did: defects among them?"
    return Check("tail", found, limit, passed, said)


def _distance(model: Model, stable: Model, limits: Limits, confirmed: str | None) -> list[Check]:
    pairs = list(zip(model.spec.levels, stable.gaussians, model.gaussians, strict=True))
    after = "" if confirmed is None else f"; the change was confirmed by {confirmed}"
    level, shift = max(((name, mean_shift(old, new)) for name, old, new in pairs), key=lambda pair: pair[1])
    passed = shift <= limits.max_shift or confirmed is not None
    checks = [Check("shift", shift, limits.max_shift, passed, f"of the mean of level {level}{after}")]
    if all(gaussian.projection == Projection.NONE.value for gaussian in (*stable.gaussians, *model.gaussians)):
        level, apart = max(((name, divergence(old, new)) for name, old, new in pairs), key=lambda pair: pair[1])
        passed = apart <= limits.max_divergence or confirmed is not None
        checks.append(Check("divergence", apart, limits.max_divergence, passed, f"of level {level}{after}"))
    return checks


def _recentred(stable: Model, model: Model) -> Model:
    """The stable version as it was when its means were true: its covariances and working point around the candidate's.

    A stale version fails frames for the drift alone. Taken for detection, that sets made defects too small to find.
    """
    own, *folds = (
        tuple(replace(old, mean=new.mean) for old, new in zip(fit, model.gaussians, strict=True))
        for fit in (stable.gaussians, *stable.folds)
    )
    return replace(stable, gaussians=own, folds=tuple(folds), moments=())


def _moved(stable: Model, model: Model, rows: NDArray[np.float32]) -> Model:
    """The stable version's covariances around the candidate's means, calibrated on the candidate's own frames."""
    pairs = zip(stable.gaussians, model.gaussians, strict=True)
    gaussians = tuple(replace(old, mean=new.mean) for old, new in pairs)
    point = model.working_point
    scores = _combined(stable, gaussians, rows)
    return Model(stable.spec, gaussians, stable.combination, calibrate(scores, point.rate, point.method))


def _detection(
    learner: Learner,
    model: Model,
    stable: Model,
    beside: Model,
    held: NDArray[np.float32],
    limits: Limits,
    stretch: float,
) -> list[Check]:
    checks = []
    if learner.bank:
        known = np.stack(learner.bank)
        checks.append(_found("known defects", known, model, stable, limits))
    made = made_defects(beside, held[-MOST_MADE:], stretch)
    checks.append(_found("made defects", made, model, beside, limits))
    return checks


def _found(name: str, frames: NDArray[np.float32], model: Model, stable: Model, limits: Limits) -> Check:
    before, after = (float(_failed(m, frames).mean()) for m in (stable, model))
    # So few frames show a share only so well: two standard errors of it are nobody's fault.
    slack = limits.detection_loss + 2.0 * float(np.sqrt(before * (1.0 - before) / len(frames)))
    said = f"{after:.1%} of {len(frames)} found, {before:.1%} by the stable version"
    return Check(name, after, before - slack, after >= before - slack, said)
