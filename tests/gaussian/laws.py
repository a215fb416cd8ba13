"""The laws of streaming moments, as a table that is run against every accumulator, and against broken ones.

Each law is a function of an accumulator's class, samples (n, d) and a generator for the cuts; it raises AssertionError
where the accumulator breaks it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.moments import Moments

Array = NDArray[np.float64]
Law = Callable[[type[Moments], Array, np.random.Generator], None]


@dataclass(frozen=True)
class Direct:
    """The moments by their definitions, in extended precision, of samples with weights."""

    count: int
    weight: float
    weight_sq: float
    mean: Array
    scatter: Array
    third: Array
    fourth: float

    @classmethod
    def of(cls, samples: Array, weights: Array | None = None) -> Direct:
        """Two passes over samples (n, d), with weights (n,) or 1 each."""
        x = samples.astype(np.longdouble)
        w = np.ones(len(x), np.longdouble) if weights is None else weights.astype(np.longdouble)
        mean = (w[:, None] * x).sum(axis=0) / w.sum()
        y = x - mean
        norm_sq = (y * y).sum(axis=1)
        return cls(
            len(x),
            float(w.sum()),
            float((w * w).sum()),
            mean.astype(np.float64),
            ((w[:, None] * y).T @ y).astype(np.float64),
            ((w * norm_sq) @ y).astype(np.float64),
            float((w * norm_sq * norm_sq).sum()),
        )


def tolerance(samples: Array) -> float:
    """Relative error that rounding the samples' own mean explains; 1e-11 for tame data."""
    spread = float(np.sqrt(samples.var(axis=0).sum()))
    return 1e-11 + 64.0 * float(np.finfo(float).eps) * float(np.abs(samples).max()) / spread if spread else 1e-11


def same(have: Moments | Direct, want: Moments | Direct, relative: float) -> None:
    """Both hold the same moments, each to `relative` of its own natural scale."""
    assert have.count == want.count
    assert have.weight == pytest.approx(want.weight, rel=1e-12)
    assert have.weight_sq == pytest.approx(want.weight_sq, rel=1e-9)
    trace = float(np.trace(want.scatter))
    spread = np.sqrt(trace / want.weight) if want.weight else 0.0
    _near("mean", have.mean, want.mean, relative * spread)
    _near("scatter", have.scatter, want.scatter, relative * trace)
    _near("fourth", np.asarray(have.fourth), np.asarray(want.fourth), relative * want.fourth)
    # By Cauchy and Schwarz the third is at most sqrt(tr S · Q).
    _near("third", have.third, want.third, relative * float(np.sqrt(trace * want.fourth)))


def _near(name: str, have: Array, want: Array, allowed: float) -> None:
    apart = float(np.abs(have - want).max(initial=0.0))
    assert apart <= allowed, f"{name} is off by {apart:.3g}, {allowed:.3g} is allowed"


def identical(have: Moments, want: Moments) -> None:
    """Both hold the same bits."""
    for name, array in want.to_arrays().items():
        assert have.to_arrays()[name].tobytes() == array.tobytes(), f"{name} differs in its bits"


def cut(samples: Array, rng: np.random.Generator) -> list[Array]:
    """Samples in random consecutive batches, some of them empty."""
    places = np.sort(rng.integers(0, len(samples) + 1, int(rng.integers(0, 6))))
    return list(np.split(samples, places))


def of(kind: type[Moments], batches: Sequence[Array], dimension: int) -> Moments:
    """One accumulator, fed batch by batch."""
    moments = kind(dimension)
    for batch in batches:
        moments.update(batch)
    return moments


# --- the laws --------------------------------------------------------------------------------------------------------
def batch_is_direct(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """One batch gives the moments of the definition."""
    same(of(kind, [x], x.shape[1]), Direct.of(x), tolerance(x))


def loop_is_batch(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """One sample at a time, (d,) or (1, d), gives what one batch gives."""
    same(of(kind, list(x), x.shape[1]), Direct.of(x), tolerance(x))
    same(of(kind, [row[None] for row in x], x.shape[1]), Direct.of(x), tolerance(x))


def cuts_are_batch(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """Any batches give what one batch gives."""
    for _ in range(3):
        same(of(kind, cut(x, rng), x.shape[1]), Direct.of(x), tolerance(x))


def split_and_merge_is_batch(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """Parts gathered apart and merged in a random tree give what one batch gives."""
    for _ in range(3):
        parts = [of(kind, cut(part, rng), x.shape[1]) for part in cut(x, rng)]
        while len(parts) > 1:
            taken = parts.pop(int(rng.integers(len(parts))))
            parts[int(rng.integers(len(parts)))] += taken
        same(parts[0], Direct.of(x), tolerance(x))


def empty_is_identity(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """Merging with nothing, on either side, changes no bit; so does a batch of no samples."""
    full = of(kind, [x], x.shape[1])
    identical(full.copy().merge(kind(x.shape[1])), full)
    identical(kind(x.shape[1]).merge(full), full)
    identical(full.copy().update(x[:0]), full)
    identical(full.copy().subtract(kind(x.shape[1])), full)
    identical(kind(x.shape[1]).merge(kind(x.shape[1])), kind(x.shape[1]))


def merge_commutes(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """a + b = b + a."""
    a, b = of(kind, [x[: len(x) // 3]], x.shape[1]), of(kind, [x[len(x) // 3 :]], x.shape[1])
    same(a.copy().merge(b), b.copy().merge(a), tolerance(x))


def merge_associates(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """(a + b) + c = a + (b + c)."""
    a, b, c = (of(kind, [part], x.shape[1]) for part in np.array_split(x, 3))
    same(a.copy().merge(b).merge(c), a.copy().merge(b.copy().merge(c)), tolerance(x))


def merge_leaves_other(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """What was merged in is unchanged, and shares no memory with the result."""
    for held in (kind(x.shape[1]), of(kind, [x[::2]], x.shape[1])):
        other = of(kind, [x], x.shape[1])
        before = other.copy()
        held.merge(other)
        held.update(x[:1]).decay(0.5)
        identical(other, before)


def subtract_inverts_merge(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """(a + b) - b = a, and a - a is empty."""
    half = len(x) // 2
    a, b = of(kind, [x[:half]], x.shape[1]), of(kind, [x[half:]], x.shape[1])
    whole = a.copy().merge(b)
    same(whole.copy().subtract(b), a, 100 * tolerance(x))
    same(whole.subtract(a), b, 100 * tolerance(x))
    identical(a.copy().subtract(a), kind(x.shape[1]))


def decay_is_weight(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """Decay between batches gives the moments of samples with the weights that are left; no decay changes no bit."""
    batches = [part for half in np.array_split(x, 2) for part in cut(half, rng) if len(part)]
    moments = kind(x.shape[1])
    for batch in batches:
        moments.decay(0.9).update(batch)
    weights = np.concatenate([np.full(len(part), 0.9**age) for age, part in enumerate(reversed(batches))][::-1])
    same(moments, Direct.of(x, weights), tolerance(x))
    identical(moments.copy().decay(1.0), moments)


def weights_are_weight(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """Samples with weights, in any cuts, give the moments of the definition; equal weights of 1 are none at all."""
    weights = rng.uniform(0.01, 3.0, len(x))
    moments = kind(x.shape[1])
    for rows in np.array_split(np.arange(len(x)), 4):
        moments.update(x[rows], weights[rows])
    same(moments, Direct.of(x, weights), tolerance(x))
    same(kind(x.shape[1]).update(x, np.ones(len(x))), Direct.of(x), tolerance(x))
    before = moments.copy()
    for bad in (weights[1:], 0.0 * weights, -weights, np.full(len(x), np.nan)):
        with pytest.raises(FitError):
            moments.update(x, bad)
        identical(moments, before)


def decay_distributes(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """Forgetting a sum is summing what was forgotten."""
    a, b = of(kind, [x[::2]], x.shape[1]), of(kind, [x[1::2]], x.shape[1])
    together = a.copy().merge(b).decay(0.7)
    same(together, a.decay(0.7).merge(b.decay(0.7)), tolerance(x))


def bad_samples_change_nothing(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """NaN, infinity, another width, too many axes and numbers too large for Q are refused; no bit changes."""
    held = of(kind, [x], x.shape[1])
    before = held.copy()
    bad = [x.copy() for _ in range(4)]
    bad[0][len(x) // 2, 0], bad[1][0, -1], bad[2][-1, 0], bad[3][0, 0] = np.nan, np.inf, -np.inf, 1e200
    wide = np.zeros((2, x.shape[1] + 1))
    for samples in (*bad, bad[0][len(x) // 2], wide, wide[0], x[None], np.float64(1.0), np.zeros((0, x.shape[1] + 1))):
        with pytest.raises(FitError):
            held.update(samples)
        identical(held, before)
    for wrong in (kind(x.shape[1] + 1), of(kind, [wide], x.shape[1] + 1)):
        with pytest.raises(FitError):
            held.merge(wrong)
        with pytest.raises(FitError):
            held.subtract(wrong)
        identical(held, before)


def samples_are_not_kept(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """Samples are neither changed nor looked at again: overwriting them later changes no bit."""
    mine = x.copy()
    held = of(kind, [mine], x.shape[1])
    assert (mine == x).all()
    before = held.copy()
    mine[:] = 1e6
    identical(held, before)


def storing_is_exact(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """To arrays and back changes no bit, and going on afterwards neither; what was stored stays as it was."""
    held = of(kind, cut(x, rng), x.shape[1]).decay(0.9)
    stored = held.to_arrays()
    kept = {name: array.copy() for name, array in stored.items()}
    twin = kind.from_arrays(stored)
    identical(twin, held)
    identical(twin.decay(0.9).update(x), held.decay(0.9).update(x))
    for name, array in kept.items():
        assert stored[name].tobytes() == array.tobytes(), f"{name} changed after it was stored"


def same_cuts_same_bits(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """The same batches in the same order give the same bits."""
    batches = cut(x, rng)
    identical(of(kind, [part.copy() for part in batches], x.shape[1]), of(kind, batches, x.shape[1]))


def memory_is_bounded(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """However many samples: d(d + 1)/2 + 2d + 4 numbers are stored."""
    held = of(kind, [x] * 20, x.shape[1])
    d = x.shape[1]
    assert sum(array.size for array in held.to_arrays().values()) == d * (d + 1) // 2 + 2 * d + 4
    assert not hasattr(held, "__dict__")


def scatter_is_symmetric(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """S is symmetric to the bit, merged, forgotten and stored too, and has no direction of negative variance."""
    held = of(kind, cut(x, rng), x.shape[1])
    trace = float(np.trace(held.scatter))
    other = of(kind, cut(x, rng), x.shape[1])
    for one in (held, held.copy().merge(other), held.copy().decay(0.7), kind.from_arrays(other.to_arrays())):
        assert (one.scatter == one.scatter.T).all()
    assert float(np.linalg.eigvalsh(held.scatter)[0]) >= -1e-10 * trace


def constants_do_not_vary(kind: type[Moments], x: Array, rng: np.random.Generator) -> None:
    """A channel that never changes has a scatter of exactly zero, however its value rounds."""
    x = np.concatenate([x, np.full((len(x), 1), 0.1), np.full((len(x), 1), -1.1e7)], axis=1)
    held = of(kind, cut(x, rng), x.shape[1])
    assert (held.mean[-2:] == x[0, -2:]).all()
    assert not held.scatter[-2:].any()
    assert not held.scatter[:, -2:].any()


LAWS: tuple[Law, ...] = (
    batch_is_direct,
    loop_is_batch,
    cuts_are_batch,
    split_and_merge_is_batch,
    empty_is_identity,
    merge_commutes,
    merge_associates,
    merge_leaves_other,
    subtract_inverts_merge,
    decay_is_weight,
    weights_are_weight,
    decay_distributes,
    bad_samples_change_nothing,
    samples_are_not_kept,
    storing_is_exact,
    same_cuts_same_bits,
    memory_is_bounded,
    scatter_is_symmetric,
    constants_do_not_vary,
)
