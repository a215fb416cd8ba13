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
from gaussline.worker.gaussian.calibration import Method, attainable_rate, calibrate, clopper_pearson, frames_needed
from gaussline.worker.gaussian.combination import Combination, Rule
from gaussline.worker.gaussian.covariance import Estimator
from gaussline.worker.gaussian.density import Gaussian, Projection, fit_gaussian
from gaussline.worker.gaussian.moments import Moments

UPDATE_FRAMES = 256
FOLDS = 5
FEWEST_TRAINING = 3
"""Two frames show one direction, and shrinkage has nothing to shrink by."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How to fit.

    Attributes:
        rate: stated false-positive rate.
        calibration_share: share of the normal frames held back for the working point.
        variance: fraction of variance at which PCA or NPCA cuts.
        seed: of the draw of calibration frames.
    """

    rate: float = 0.01
    calibration_share: float = 0.3
    method: Method = Method.CONFORMAL
    estimator: Estimator = Estimator.LEDOIT_WOLF
    projection: Projection = Projection.NONE
    variance: float = 0.99
    rule: Rule = Rule.SUM
    seed: int = 0

    def __post_init__(self) -> None:
        frames_needed(self.rate)
        if not 0.0 < self.calibration_share < 1.0:
            raise FitError(f"calibration share {self.calibration_share} is not between 0 and 1")

    def held(self, frames: int) -> int:
        """How many of so many normal frames are held back for calibration."""
        return round(self.calibration_share * frames)

    @property
    def frames_needed(self) -> int:
        """Fewest normal frames from which both the rate and a covariance can be had."""
        needed = frames_needed(self.rate)
        count = int((needed - 0.5) / self.calibration_share)
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


def fit_rows(
    features: Sequence[ArrayLike], rows: NDArray[np.intp], levels: Sequence[str], options: FitOptions
) -> Fitted:
    """Fit on some rows of (n, d) features a level, and on nothing else. Raises FitError naming the level."""
    arrays = [np.asarray(level) for level in features]
    moments = fit_moments([level[rows] for level in arrays])
    gaussians = fit_gaussians(moments, levels, options)
    return Fitted(gaussians, _combination(arrays, rows, levels, options), moments)


def fit_model(
    features: Sequence[ArrayLike],
    spec: BackboneSpec,
    options: FitOptions,
    info: dict[str, Any] | None = None,
    *,
    calibrating: NDArray[np.bool_] | None = None,
) -> Model:
    """Fit and calibrate on (n, d) features a level of normal frames. Raises FitError, with the frames needed.

    Which frames calibrate is drawn by the seed before anything is looked at; nothing that makes a score, the scales of
    a standardised combination included, is learnt from them. So the stated rate is held exactly (see `calibrate`).

    Args:
        calibrating: (n,) where the frames that calibrate were drawn already, by chance and before anybody looked: which
            ones. `options.calibration_share` is not used then.
    """
    arrays = _checked(features, spec)
    count = len(arrays[0])
    if calibrating is not None:
        calibration, training = np.flatnonzero(calibrating), np.flatnonzero(~calibrating)
        held = len(calibration)
    else:
        held = options.held(count)
        if held < frames_needed(options.rate) or count - held < FEWEST_TRAINING:
            _refuse(count, options)
        order = np.random.default_rng(options.seed).permutation(count)
        calibration, training = order[:held], order[held:]
    fitted = fit_rows(arrays, training, spec.levels, options)
    point = calibrate(fitted.combination.combine(fitted.distances(arrays, calibration)), options.rate, options.method)
    return Model(
        spec,
        fitted.gaussians,
        fitted.combination,
        point,
        fitted.moments,
        {"training_frames": len(training), "calibration_frames": held, "seed": options.seed, **(info or {})},
    )


def _checked(features: Sequence[ArrayLike], spec: BackboneSpec) -> list[NDArray[Any]]:
    arrays = [np.asarray(level) for level in features]
    shapes = [level.shape for level in arrays]
    if [shape[1:] for shape in shapes] != [(width,) for width in spec.channels] or len({s[0] for s in shapes}) != 1:
        raise FitError(f"features have shapes {shapes}, the backbone's levels have {list(spec.channels)} channels")
    for name, level in zip(spec.levels, arrays, strict=True):
        if not np.isfinite(level).all():
            raise FitError(f"level {name}: features hold NaN or infinite values")
    return arrays


def _refuse(count: int, options: FitOptions) -> None:
    held = options.held(count)
    told = f"{count} normal frames, of which {held} ({options.calibration_share:.0%}) are held back for calibration, "
    told += f"are too few for a false-positive rate of {options.rate:g}, which needs {frames_needed(options.rate)} of "
    told += f"them: give at least {options.frames_needed} normal frames"
    if held and count - held >= FEWEST_TRAINING:
        told += f", or state a rate of at least {attainable_rate(held):.3g}"
    raise FitError(told)


def _combination(
    arrays: Sequence[NDArray[Any]], training: NDArray[np.intp], levels: Sequence[str], options: FitOptions
) -> Combination:
    """The rule; where it learns scales, from each fifth of the training frames under Gaussians of the other four."""
    groups = groups_of(levels)
    if options.rule is not Rule.STANDARDISED:
        return Combination(options.rule, groups=groups)
    distances = []
    for aside in np.array_split(training, min(FOLDS, len(training))):
        rest = np.setdiff1d(training, aside)
        gaussians = fit_gaussians(fit_moments([level[rest] for level in arrays]), levels, options)
        distances.append(_distances(gaussians, arrays, aside))
    return Combination.learn(options.rule, np.concatenate(distances), groups)


def _distances(
    gaussians: Sequence[Gaussian], arrays: Sequence[NDArray[Any]], rows: NDArray[np.intp] | None
) -> NDArray[np.float64]:
    pairs = zip(gaussians, arrays, strict=True)
    return np.stack([g.mahalanobis(level if rows is None else level[rows]) for g, level in pairs], axis=1)


def report(model: Model, held_out: Sequence[ArrayLike] | None = None) -> dict[str, Any]:
    """What a person should know of a model: conditioning a level, and the stated beside the realised rate."""
    text: dict[str, Any] = {
        "stated_rate": model.working_point.rate,
        "threshold": model.working_point.threshold,
        "method": model.working_point.method.value,
        "levels": [
            {"level": name, **gaussian.describe()}
            for name, gaussian in zip(model.spec.levels, model.gaussians, strict=True)
        ],
        **model.info,
    }
    if held_out is not None and len(np.asarray(held_out[0])):
        failed = model.working_point.fails(model.scores(list(held_out)))
        low, high = clopper_pearson(int(failed.sum()), failed.size)
        text |= {
            "held_out_frames": int(failed.size),
            "realised_rate": float(failed.mean()),
            "realised_interval": [low, high],
        }
    return text
