"""Fitting a model: features of normal frames in, a model with a working point out.

The working point never sees a training frame: a share of the normal frames, drawn by the seed, is held back for
calibration, and the Gaussians are fitted on the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussline.worker.contract.model import Model, groups_of
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.calibration import (
    BY_LAW,
    PROMISES,
    Method,
    attainable_rate,
    clopper_pearson,
    cross_point,
    frames_needed,
)
from gaussline.worker.gaussian.combination import Combination, Rule
from gaussline.worker.gaussian.covariance import Estimator
from gaussline.worker.gaussian.density import Gaussian, Projection, fit_gaussian
from gaussline.worker.gaussian.moments import Moments
from gaussline.worker.learning.robust_fit import Suspicion, suspicion
from gaussline.worker.learning.working_point import calibration_frames_needed, working_point

Copies = Sequence[Sequence[ArrayLike]]
"""Features of augmented copies of the same frames, (n, d) a level, once a copy (see `augmentation`)."""
UPDATE_FRAMES = 256
FOLDS = 5
NO_F_LAW = ": the F law (hotelling) holds for frames as they come, each of them once; use conformal"
FEWEST_TRAINING = 3
"""Two frames show one direction, and shrinkage has nothing to shrink by."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How to fit.

    Attributes:
        rate: stated false-positive rate.
        calibration_share: share of the normal frames held back for the working point.
        variance: fraction of variance at which PCA or NPCA cuts.
        folds: of a cross-conformal working point, whose fits see all frames but their own fold's.
        robust: leave out the frames that cross-fitted scores make suspicious (see `robust_fit`).
        seed: of the draw of calibration frames, and of folds.
    """

    rate: float = 0.01
    calibration_share: float = 0.3
    method: Method = Method.CONFORMAL
    estimator: Estimator = Estimator.LEDOIT_WOLF
    projection: Projection = Projection.NONE
    variance: float = 0.99
    rule: Rule = Rule.SUM
    seed: int = 0
    folds: int = FOLDS
    robust: bool = False

    def __post_init__(self) -> None:
        frames_needed(self.rate)
        if self.folds < 2:
            raise FitError(f"{self.folds} folds are none: give at least 2")
        if self.method is Method.CROSS_CONFORMAL and (self.rule is Rule.STANDARDISED or self.robust):
            raise FitError(
                "cross_conformal keeps folds apart, and a standardised combination or a robust fit would carry what "
                "they learn from one to the other: use conformal, or another rule"
            )
        if self.method is Method.HOTELLING and self.robust:
            raise FitError(f"a robust fit chooses its frames by their scores{NO_F_LAW}")
        for name, share in (("calibration share", self.calibration_share), ("variance fraction", self.variance)):
            if not 0.0 < share < 1.0:
                raise FitError(f"{name} {share} is not between 0 and 1")

    def held(self, frames: int) -> int:
        """How many of so many normal frames are held back for calibration."""
        return round(self.calibration_share * frames)

    @property
    def frames_needed(self) -> int:
        """Fewest normal frames from which both the rate and a covariance can be had."""
        needed = calibration_frames_needed(self.method, self.rate)
        if self.method is Method.CROSS_CONFORMAL:
            return max(needed, FEWEST_TRAINING + 1, self.folds)
        count = max(int((needed - 0.5) / self.calibration_share), 0)
        while self.held(count) < needed or count - self.held(count) < FEWEST_TRAINING:
            count += 1
        return count


def fit_moments(features: Sequence[ArrayLike]) -> tuple[Moments, ...]:
    """(n, d) features a level to moments a level, folded in batches."""
    moments = []
    for level in features:
        x = np.asarray(level)
        total = Moments(x.shape[1])
        for start in range(0, len(x), UPDATE_FRAMES):
            total.update(x[start : start + UPDATE_FRAMES])
        moments.append(total)
    return tuple(moments)


def fit_gaussians(moments: Sequence[Moments], levels: Sequence[str], options: FitOptions) -> tuple[Gaussian, ...]:
    """One Gaussian a level. Raises FitError naming the level."""
    gaussians = []
    for name, level in zip(levels, moments, strict=True):
        try:
            gaussians.append(fit_gaussian(level, options.estimator, options.projection, options.variance))
        except FitError as error:
            raise FitError(f"level {name}: {error}") from None
    return tuple(gaussians)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What scores frames, all but the working point: one Gaussian a level, and how levels are combined."""

    gaussians: tuple[Gaussian, ...]
    combination: Combination
    moments: tuple[Moments, ...]

    def distances(self, features: Sequence[ArrayLike], rows: NDArray[np.intp] | None = None) -> NDArray[np.float64]:
        """(n, d) features a level, or some rows of them, to (n, L) distances."""
        return _distances(self.gaussians, [np.asarray(level) for level in features], rows)


def trusted_rows(
    features: Sequence[ArrayLike],
    rows: NDArray[np.intp],
    levels: Sequence[str],
    options: FitOptions,
    copies: Copies = (),
) -> NDArray[np.intp]:
    """The rows that a fit with these options takes: all, or of a robust one those that it trusts. Raises FitError."""
    return suspects(features, rows, levels, options, copies).kept if options.robust else rows


def fit_rows(
    features: Sequence[ArrayLike],
    rows: NDArray[np.intp],
    levels: Sequence[str],
    options: FitOptions,
    copies: Copies = (),
) -> Fitted:
    """Fit on some rows of (n, d) features a level, and on nothing else. Raises FitError naming the level.

    Args:
        copies: augmented copies of the same frames, whose rows are fitted on too.
    """
    arrays = [np.asarray(level) for level in features]
    return _fit_rows(arrays, trusted_rows(arrays, rows, levels, options, copies), levels, options, copies)


def suspects(
    features: Sequence[ArrayLike],
    rows: NDArray[np.intp],
    levels: Sequence[str],
    options: FitOptions,
    copies: Copies = (),
) -> Suspicion:
    """How suspicious each of some rows is among the others. Raises FitError."""
    arrays = [np.asarray(level) for level in features]

    def score(on: NDArray[np.intp], scored: NDArray[np.intp]) -> NDArray[np.float64]:
        fitted = _fit_rows(arrays, on, levels, options, copies)
        return fitted.combination.combine(fitted.distances(arrays, scored))

    return suspicion(rows, score, seed=options.seed)


def _fit_rows(
    arrays: Sequence[NDArray[Any]],
    rows: NDArray[np.intp],
    levels: Sequence[str],
    options: FitOptions,
    copies: Copies,
) -> Fitted:
    moments = fit_moments(rows_and_copies(arrays, rows, copies))
    gaussians = fit_gaussians(moments, levels, options)
    return Fitted(gaussians, _combination(arrays, rows, levels, options, copies), moments)


def rows_and_copies(arrays: Sequence[NDArray[Any]], rows: NDArray[np.intp], copies: Copies) -> list[NDArray[Any]]:
    """Rows of (n, d) features a level, and the same rows of their copies behind them: what is fitted on."""
    return [
        np.concatenate([level[rows], *(np.asarray(copy[index])[rows] for copy in copies)]) if copies else level[rows]
        for index, level in enumerate(arrays)
    ]


def fit_model(
    features: Sequence[ArrayLike],
    spec: BackboneSpec,
    options: FitOptions,
    info: dict[str, Any] | None = None,
    *,
    calibrating: NDArray[np.bool_] | None = None,
    digests: NDArray[np.uint64] | None = None,
    copies: Copies = (),
) -> Model:
    """Fit and calibrate on (n, d) features a level of normal frames. Raises FitError, with the frames needed.

    Which frames calibrate is drawn by the seed before anything is looked at; nothing that makes a score, the scales of
    a standardised combination included, is learnt from them. So the stated rate is held exactly (see `calibrate`).

    Args:
        calibrating: (n,) where the frames that calibrate were drawn already, by chance and before anybody looked: which
            ones. `options.calibration_share` is not used then.
        digests: (n,) of the frames' files, where there are files; the model keeps those it was fitted on.
        copies: augmented copies of the frames; those of training frames are fitted on, none calibrates.
    """
    arrays = _checked(features, spec)
    count = len(arrays[0])
    if options.method is Method.HOTELLING and copies:
        raise FitError(f"augmented copies are no new frames{NO_F_LAW}")
    if options.method is Method.CROSS_CONFORMAL:
        if calibrating is not None:
            raise FitError("cross_conformal takes every frame for both: a drawn reservoir has no part in it")
        return _cross_fitted(arrays, spec, options, info or {}, digests, copies)
    if calibrating is not None:
        calibration, training = np.flatnonzero(calibrating), np.flatnonzero(~calibrating)
    else:
        require_frames(count, options)
        held = options.held(count)
        order = np.random.default_rng(options.seed).permutation(count)
        calibration, training = order[:held], order[held:]
    fitted = fit_rows(arrays, training, spec.levels, options, copies)
    scores = fitted.combination.combine(fitted.distances(arrays, calibration))
    point = working_point(
        options.method,
        options.rate,
        scores,
        fitted.gaussians,
        fitted.combination,
        seed=options.seed,
        copies=len(copies),
    )
    kept = round(fitted.moments[0].count / (1 + len(copies)))
    told = {"training_frames": kept, "calibration_frames": len(calibration), "seed": options.seed}
    if options.robust:
        told["left_out"] = len(training) - kept
    if options.method in BY_LAW and scores.size:
        # What the law does not take, it can be held against.
        told |= realised(point.fails(scores))
    return Model(
        spec,
        fitted.gaussians,
        fitted.combination,
        point,
        fitted.moments,
        told | (info or {}),
        trained_on=_digests(digests, training),
    )


def _cross_fitted(
    arrays: list[NDArray[Any]],
    spec: BackboneSpec,
    options: FitOptions,
    info: dict[str, Any],
    digests: NDArray[np.uint64] | None,
    copies: Copies,
) -> Model:
    """Every frame fits and calibrates: one fit a fold on the frames of the others, and one on all for what is shown."""
    count = len(arrays[0])
    require_frames(count, options)
    order = np.random.default_rng(options.seed).permutation(count)
    fits, scores = [], []
    for fold in np.array_split(order, options.folds):
        fitted = fit_rows(arrays, np.setdiff1d(order, fold), spec.levels, options, copies)
        fits.append(fitted.gaussians)
        scores.append(fitted.combination.combine(fitted.distances(arrays, fold)))
    whole = fit_rows(arrays, np.sort(order), spec.levels, options, copies)
    told = {"training_frames": count, "calibration_frames": count, "folds": options.folds, "seed": options.seed}
    return Model(
        spec,
        whole.gaussians,
        whole.combination,
        cross_point(scores, options.rate),
        whole.moments,
        told | info,
        tuple(fits),
        _digests(digests, order),
    )


def _digests(digests: NDArray[np.uint64] | None, rows: NDArray[np.intp]) -> NDArray[np.uint64]:
    return np.empty(0, np.uint64) if digests is None else np.sort(digests[rows])


def _checked(features: Sequence[ArrayLike], spec: BackboneSpec) -> list[NDArray[Any]]:
    arrays = [np.asarray(level) for level in features]
    shapes = [level.shape for level in arrays]
    if [shape[1:] for shape in shapes] != [(width,) for width in spec.channels] or len({s[0] for s in shapes}) != 1:
        raise FitError(f"features have shapes {shapes}, the backbone's levels have {list(spec.channels)} channels")
    for name, level in zip(spec.levels, arrays, strict=True):
        if not np.isfinite(level).all():
            raise FitError(f"level {name}: features hold NaN or infinite values")
    return arrays


def require_frames(count: int, options: FitOptions) -> None:
    """Raise FitError, with the number needed, where so many normal frames are too few."""
    if count >= options.frames_needed:
        return
    if options.method is Method.CROSS_CONFORMAL:
        raise FitError(
            f"{count} normal frames are too few for a cross-conformal false-positive rate of {options.rate:g}: "
            f"give at least {options.frames_needed}"
        )
    held = options.held(count)
    told = f"{count} normal frames, of which {held} ({options.calibration_share:.0%}) are held back for calibration, "
    told += f"are too few for a false-positive rate of {options.rate:g}, which needs "
    told += f"{calibration_frames_needed(options.method, options.rate)} of "
    told += f"them: give at least {options.frames_needed} normal frames"
    by_rate = options.method in (Method.CONFORMAL, Method.EMPIRICAL)
    if by_rate and held and count - held >= FEWEST_TRAINING:
        told += f", or state a rate of at least {attainable_rate(held):.3g}"
    raise FitError(told)


def _combination(
    arrays: Sequence[NDArray[Any]],
    training: NDArray[np.intp],
    levels: Sequence[str],
    options: FitOptions,
    copies: Copies,
) -> Combination:
    """The rule; where it learns scales, from each fifth of the training frames under Gaussians of the other four."""
    groups = groups_of(levels)
    if options.rule is not Rule.STANDARDISED:
        return Combination(options.rule, groups=groups)
    distances = []
    for aside in np.array_split(training, min(FOLDS, len(training))):
        rest = np.setdiff1d(training, aside)
        gaussians = fit_gaussians(fit_moments(rows_and_copies(arrays, rest, copies)), levels, options)
        distances.append(_distances(gaussians, arrays, aside))
    return Combination.learn(options.rule, np.concatenate(distances), groups)


def _distances(
    gaussians: Sequence[Gaussian], arrays: Sequence[NDArray[Any]], rows: NDArray[np.intp] | None
) -> NDArray[np.float64]:
    pairs = zip(gaussians, arrays, strict=True)
    return np.stack([g.mahalanobis(level if rows is None else level[rows]) for g, level in pairs], axis=1)


def realised(failed: NDArray[np.bool_]) -> dict[str, Any]:
    """The realised rate among (n,) normal frames that neither fit nor working point has seen, with its interval."""
    low, high = clopper_pearson(int(failed.sum()), failed.size)
    return {
        "held_out_frames": int(failed.size),
        "realised_rate": float(failed.mean()),
        "realised_interval": [low, high],
    }


def report(model: Model, held_out: Sequence[ArrayLike] | None = None) -> dict[str, Any]:
    """What a person should know of a model: conditioning a level, and the stated beside the realised rate."""
    point = model.working_point
    text: dict[str, Any] = {
        "stated_rate": point.rate,
        "threshold": point.threshold,
        "method": point.method.value,
        "promise": PROMISES[point.method],
        "rule": model.combination.rule.value,
        "levels": [
            {"level": name, **gaussian.describe()}
            for name, gaussian in zip(model.spec.levels, model.gaussians, strict=True)
        ],
        **model.info,
    }
    if point.warning:
        text["warning"] = point.warning
    if point.interval is not None:
        text["interval"] = list(point.interval)
    if held_out is not None and len(np.asarray(held_out[0])):
        text |= realised(model.judge(held_out).failed)
    return text
