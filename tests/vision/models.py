"""Models fitted on the spot, for the tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from gaussline.worker.contract.model import Model
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.gaussian.calibration import Method, calibrate
from gaussline.worker.gaussian.combination import Combination, Rule
from gaussline.worker.gaussian.density import Projection, fit_gaussian
from gaussline.worker.gaussian.moments import Moments


def fitted(
    spec: BackboneSpec,
    features: Sequence[ArrayLike],
    rule: Rule = Rule.SUM,
    projection: Projection = Projection.NONE,
) -> Model:
    """A model of (n, d) features a level; its working point, calibrated on the same frames, means nothing."""
    gaussians = []
    for level in features:
        x = np.asarray(level)
        moments = Moments(x.shape[1])
        moments.update(x)
        gaussians.append(fit_gaussian(moments, projection=projection))
    distances = np.stack([g.mahalanobis(x) for g, x in zip(gaussians, features, strict=True)], axis=1)
    combination = Combination.learn(rule, distances)
    point = calibrate(combination.combine(distances), 0.2, Method.CONFORMAL)
    return Model(spec, tuple(gaussians), combination, point)
