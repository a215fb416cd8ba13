"""The one-class support vector machine, a control of the paper; scikit-learn is optional."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussline.worker.learning.protocol import Plan

Array = NDArray[np.float64]


def svm_scores(
    training: Sequence[ArrayLike], features: Sequence[NDArray[np.float32]], plan: Plan
) -> tuple[Array, Array] | None:
    """(n, L) and (m, L) scores of the plan's normal and defective rows, higher is stranger; None without scikit-learn.

    Args:
        training: (t, d) features a level of what is fitted on.

    Radial basis functions, gamma = 1 / (d · variance) ("scale"), nu = 0.5; one machine a level.
    """
    try:
        from sklearn.svm import OneClassSVM
    except ModuleNotFoundError:
        return None
    normal, defective = [], []
    for fitted_on, level in zip(training, features, strict=True):
        x = np.asarray(level, np.float64)
        machine = OneClassSVM(kernel="rbf", gamma="scale").fit(np.asarray(fitted_on, np.float64))
        normal.append(-machine.score_samples(x[plan.normal]))
        defective.append(-machine.score_samples(x[plan.defective]))
    return np.stack(normal, axis=1), np.stack(defective, axis=1)
