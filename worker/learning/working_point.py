"""A working point by any method, from scores of normal frames that the fit has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.calibration import BY_LAW, Method, WorkingPoint, calibrate, frames_needed
from gaussline.worker.gaussian.chi_squared import chi_squared
from gaussline.worker.gaussian.combination import Combination, Rule
from gaussline.worker.gaussian.density import Gaussian
from gaussline.worker.gaussian.hotelling import HotellingLaw
from gaussline.worker.gaussian.law import Law, LawKind
from gaussline.worker.gaussian.robust import FEWEST_FRAMES, RobustPoint, robust_point
from gaussline.worker.gaussian.tail import fit_tail, frames_needed_for_tail


def calibration_frames_needed(method: Method, rate: float) -> int:
    """Fewest calibration frames with which a method can hold a rate. Raises FitError for a rate that is none."""
    conformal = frames_needed(rate)
    if method in BY_LAW:
        return 0
    if method is Method.PARETO:
        return frames_needed_for_tail()
    return FEWEST_FRAMES if method is Method.ROBUST else conformal


def working_point(
    method: Method,
    rate: float,
    scores: ArrayLike,
    gaussians: Sequence[Gaussian],
    combination: Combination,
    *,
    seed: int = 0,
    copies: int = 0,
) -> WorkingPoint:
    """Calibrate on (n,) scores; `cross_conformal` needs the fits of all folds, and is made by a fit alone.

    Args:
        copies: augmented copies of each frame that the Gaussians were fitted on too.

    Raises FitError, with what is needed, where the method cannot be had from these frames or of this model.
    """
    if method is Method.CROSS_CONFORMAL:
        raise FitError("cross_conformal keeps a fit for each fold: it is made by 'gaussline fit', not afterwards")
    if method in (Method.CONFORMAL, Method.EMPIRICAL):
        return calibrate(scores, rate, method)
    ordered = np.sort(np.asarray(scores, np.float64))
    if not np.isfinite(ordered).all():
        raise FitError("calibration scores are not finite numbers, one a frame")
    if method is Method.PARETO:
        tail = fit_tail(ordered, rate)
        parameters = {"start": tail.start, "share": tail.share, "shape": tail.shape, "scale": tail.scale}
        return WorkingPoint(
            method, rate, tail.threshold, ordered, Law(LawKind.PARETO, parameters), interval=tail.interval
        )
    if method is Method.ROBUST:
        point = robust_point(ordered, rate, seed=seed)
        return WorkingPoint(
            method, rate, point.threshold, ordered, point.law, interval=point.interval, warning=_doubt(point)
        )
    gaussian = _one_level(method, gaussians, combination)
    if method is Method.CHI_SQUARED:
        found = chi_squared(gaussian, rate, copies=copies)
        warning = "" if found.warning is None else found.warning.text
        law = Law(LawKind.CHI_SQUARED, {"features": float(gaussian.rank)})
        return WorkingPoint(method, rate, found.threshold, ordered, law, warning=warning)
    exact = HotellingLaw.of(gaussian)
    law = Law(LawKind.HOTELLING, {"features": float(exact.dimension), "frames": float(exact.frames)})
    return WorkingPoint(method, rate, exact.threshold(rate), ordered, law)


def _doubt(point: RobustPoint) -> str:
    if point.misfit <= point.usual_misfit:
        return ""
    return (
        f"the body of the scores does not follow the law that the threshold is read off: it is {point.misfit:.3f} "
        f"away, samples of the law itself are at most {point.usual_misfit:.3f}; the rate may be far off, either way. "
        "Are there several kinds of parts among the frames? Clean the folder, and use conformal"
    )


def _one_level(method: Method, gaussians: Sequence[Gaussian], combination: Combination) -> Gaussian:
    """The one level whose distance is the score; a law is known of no combination of several."""
    if len(gaussians) != 1 or combination.rule is Rule.STANDARDISED:
        raise FitError(
            f"{method.value} is a law of one level's distance, not of {len(gaussians)} distances combined: name one "
            "level, uncut (--levels NAME --grid 1), or use conformal"
        )
    return gaussians[0]
