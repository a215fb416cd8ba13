"""Fitting a model: features of normal frames in, a model with a working point out.

The working point never sees a training frame: a share of the normal frames, drawn by the seed, is held back for
calibration, and the Gaussians are fitted on the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gaussline.worker.contract.model import Model
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.calibration import Method, calibrate, clopper_pearson, frames_needed
from gaussline.worker.gaussian.combination import Combination, Rule
from gaussline.worker.gaussian.covariance import Estimator
from gaussline.worker.gaussian.density import Gaussian, Projection, fit_gaussian
from gaussline.worker.gaussian.moments import Moments

UPDATE_FRAMES = 256


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


def fit_model(
    features: Sequence[ArrayLike], spec: BackboneSpec, options: FitOptions, info: dict[str, Any] | None = None
) -> Model:
    """Fit and calibrate on (n, d) features a level of normal frames. Raises FitError, with the frames needed."""
    arrays = [np.asarray(level) for level in features]
    count = len(arrays[0])
    held = round(options.calibration_share * count)
    needed = frames_needed(options.rate)
    if count < 4 or count - held < 2:
        raise FitError(f"{count} normal frames are too few to fit and to calibrate on: give at least 20")
    if held < needed:
        total = int(np.ceil(needed / options.calibration_share))
        raise FitError(
            f"a false-positive rate of {options.rate:g} needs {needed} calibration frames, and "
            f"{options.calibration_share:.0%} of {count} normal frames are {held}: give at least {total} frames, or "
            f"state a rate of at least {1 / (held + 1):.3g}"
        )
    order = np.random.default_rng(options.seed).permutation(count)
    calibration, training = order[:held], order[held:]
    moments = fit_moments([level[training] for level in arrays])
    gaussians = fit_gaussians(moments, spec.levels, options)
    distances = np.stack(
        [gaussian.mahalanobis(level[calibration]) for gaussian, level in zip(gaussians, arrays, strict=True)], axis=1
    )
    combination = Combination.learn(options.rule, distances)
    point = calibrate(combination.combine(distances), options.rate, options.method)
    return Model(
        spec,
        gaussians,
        combination,
        point,
        moments,
        {"training_frames": len(training), "calibration_frames": held, "seed": options.seed, **(info or {})},
    )


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
