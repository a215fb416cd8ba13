"""Bootstrap intervals of evaluation statistics: which images were taken is the chance that they speak of.

Normal and defective images are drawn apart, each with replacement (Efron 1979; percentile intervals). One image may be
scored in several runs (seeds, folds); it is then drawn once for all of them, and the statistic is the mean over runs.
So the interval of a mean over ten seeds is not narrower than its images allow, as ten independent draws would make it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gaussline.worker.errors import FitError

Array = NDArray[np.float64]
RATES = {"tpr_at_1": 0.01, "tpr_at_5": 0.05}
STATISTICS = ("auroc", "average_precision", *RATES)
_CHUNK = 2_000_000
"""Numbers of one block of draws: bounds memory to a few times 16 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Scores of one run.

    Attributes:
        normal, defective: (n,) and (m,) scores.
        normal_ids, defective_ids: (n,) and (m,) whole numbers from 0 on, one an image; the same image has the same
            number in every run.
    """

    normal: Array
    defective: Array
    normal_ids: NDArray[np.intp]
    defective_ids: NDArray[np.intp]


def weighted_statistics(normal: ArrayLike, defective: ArrayLike, wn: ArrayLike, wd: ArrayLike) -> dict[str, Array]:
    """All statistics, with every image counted as often as its weight says, for many draws at once.

    With weights of 1 they are those of `metrics`: area under the ROC curve (ties half), average precision (ties
    together), and the true-positive rates at 1 % and 5 % false positives.

    Args:
        normal, defective: (n,) and (m,) scores.
        wn, wd: (draws, n) and (draws, m) counts.

    Returns:
        name -> (draws,); NaN where a draw has no normal or no defective image.
    """
    scores = np.concatenate([np.asarray(normal, np.float64), np.asarray(defective, np.float64)])
    n = np.asarray(normal).size
    values, place = np.unique(scores, return_inverse=True)
    count_n = _grouped(np.asarray(wn, np.float64), place[:n], values.size)
    count_d = _grouped(np.asarray(wd, np.float64), place[n:], values.size)
    from_n = np.cumsum(count_n[:, ::-1], axis=1)[:, ::-1]  # at or over a value
    from_d = np.cumsum(count_d[:, ::-1], axis=1)[:, ::-1]
    total_n, total_d = from_n[:, 0], from_d[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        beaten = total_n[:, None] - from_n + 0.5 * count_n
        found = {"auroc": np.einsum("bu,bu->b", count_d, beaten) / (total_n * total_d)}
        precision = np.where(count_d > 0, from_d / (from_d + from_n), 0.0)
        found["average_precision"] = np.einsum("bu,bu->b", count_d, precision) / total_d
        over_n, over_d = from_n - count_n, from_d - count_d
        for name, rate in RATES.items():
            allowed = np.floor(rate * total_n + 1e-9)[:, None]
            found[name] = np.where((count_n > 0) & (over_n <= allowed), over_d, 0.0).max(axis=1) / total_d
    empty = (total_n == 0) | (total_d == 0)
    return {name: np.where(empty, np.nan, found[name]) for name in STATISTICS}


def statistics(runs: Sequence[Scored]) -> dict[str, float]:
    """The mean of every statistic over runs."""
    each = [
        weighted_statistics(run.normal, run.defective, np.ones((1, run.normal.size)), np.ones((1, run.defective.size)))
        for run in runs
    ]
    return {name: float(np.mean([one[name][0] for one in each])) for name in STATISTICS}


def intervals(
    columns: Mapping[str, Sequence[Scored]], rng: np.random.Generator, *, draws: int = 500, confidence: float = 0.95
) -> dict[str, dict[str, tuple[float, float]]]:
    """Percentile intervals of the mean over runs: column -> statistic -> (low, high).

    All columns (levels, combinations) share the draws, so that their difference is no matter of luck.

    Raises:
        FitError: no draws, or a confidence out of range.
    """
    if draws < 1 or not 0.0 < confidence < 1.0:
        raise FitError(f"{draws} draws at a confidence of {confidence} give no interval")
    first = next(iter(columns.values()))
    normal = np.unique(np.concatenate([run.normal_ids for run in first]))
    defective = np.unique(np.concatenate([run.defective_ids for run in first]))
    means: dict[str, dict[str, list[Array]]] = {column: {name: [] for name in STATISTICS} for column in columns}
    block = max(1, _CHUNK // (normal.size + defective.size))
    for start in range(0, draws, block):
        size = min(block, draws - start)
        wn = rng.multinomial(normal.size, np.full(normal.size, 1.0 / normal.size), size=size)
        wd = rng.multinomial(defective.size, np.full(defective.size, 1.0 / defective.size), size=size)
        for column, runs in columns.items():
            sums: dict[str, list[Array]] = {name: [] for name in STATISTICS}
            for run in runs:
                own_n = wn[:, np.searchsorted(normal, run.normal_ids)]
                own_d = wd[:, np.searchsorted(defective, run.defective_ids)]
                for name, value in weighted_statistics(run.normal, run.defective, own_n, own_d).items():
                    sums[name].append(value)
            for name, values in sums.items():
                means[column][name].append(np.mean(values, axis=0))
    tail = (1.0 - confidence) / 2.0
    return {
        column: {name: _quantiles(np.concatenate(parts), tail) for name, parts in found.items()}
        for column, found in means.items()
    }


def _quantiles(values: Array, tail: float) -> tuple[float, float]:
    low, high = np.nanquantile(values, [tail, 1.0 - tail])
    return float(low), float(high)


def _grouped(weights: Array, place: NDArray[np.intp], groups: int) -> Array:
    """(draws, n) weights added up over the value that each image has: (draws, groups)."""
    grouped = np.zeros((len(weights), groups))
    order = np.argsort(place, kind="stable")
    there, starts = np.unique(place[order], return_index=True)
    if order.size:
        grouped[:, there] = np.add.reduceat(weights[:, order], starts, axis=1)
    return grouped
