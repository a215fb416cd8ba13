"""Another working point for a fitted model: same Gaussians, other frames, rate or method."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gaussline.worker.contract.model import Model
from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.calibration import BY_LAW, Method
from gaussline.worker.learning.fit import NO_F_LAW, realised
from gaussline.worker.learning.normal_images import NormalImages
from gaussline.worker.learning.working_point import calibration_frames_needed, working_point

_OUT_OF_ORDER = frozenset({"left_out", "augmentation"})
"""What a model's record holds where its frames were chosen by their scores, or counted more than once."""
_OF_A_FIT = ("calibration_frames", "held_out_frames", "realised_rate", "realised_interval", "folds")


def recalibrated(
    model: Model,
    images: NormalImages,
    *,
    rate: float,
    method: Method,
    holdout: float = 0.0,
    seed: int = 0,
    origin: dict[str, Any] | None = None,
) -> tuple[Model, int]:
    """The model with a new working point, and how many frames were left out because it was fitted on them.

    Args:
        holdout: share of the frames, drawn by the seed, that do not calibrate but show the realised rate; normal test
            images do so too.

    Raises FitError, with the number needed, where what is left is too few.
    """
    if method is Method.HOTELLING and not _OUT_OF_ORDER.isdisjoint(model.info):
        raise FitError(f"the model was fitted robustly or on augmented copies{NO_F_LAW}")
    unseen = np.flatnonzero(~np.isin(images.digests, model.trained_on))
    left_out = len(images.digests) - unseen.size
    order = np.random.default_rng(seed).permutation(unseen)
    aside = order[: round(holdout * unseen.size)]
    calibrating = order[aside.size :]
    needed = calibration_frames_needed(method, rate)
    if calibrating.size < needed:
        seen = f" ({left_out} of the folder's {len(images.digests)} were fitted on)" if left_out else ""
        raise FitError(
            f"{calibrating.size} frames that the model was not fitted on{seen} are too few for {method.value} at a "
            f"false-positive rate of {rate:g}: at least {needed} are needed"
        )
    scores = model.scores([level[calibrating] for level in images.features])
    copies = int(dict(model.info.get("augmentation") or {}).get("copies", 0))
    point = working_point(method, rate, scores, model.gaussians, model.combination, seed=seed, copies=copies)
    kept = {key: value for key, value in model.info.items() if key not in _OF_A_FIT}
    told = kept | {"calibration_frames": int(calibrating.size)} | (origin or {})
    new = replace(model, working_point=point, folds=(), info=told)
    shown = [level[aside] for level in images.features]
    if images.test is not None:
        shown = [np.concatenate(both) for both in zip(shown, images.test, strict=True)]
    if len(shown[0]):
        told |= realised(new.judge(shown).failed)
    elif method in BY_LAW and calibrating.size:
        told |= realised(point.fails(scores))
    return replace(new, info=told), left_out
