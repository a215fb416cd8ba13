"""The moments obey the laws, on tame and on hostile data, and the laws catch accumulators that do not."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.moments import Moments
from tests.gaussian import laws
from tests.gaussian.laws import LAWS, Direct, Law, identical, of, same, tolerance

Array = NDArray[np.float64]


def _data(name: str) -> Array:
    rng = np.random.default_rng(5)
    plain = rng.standard_normal((60, 5)) @ rng.standard_normal((5, 5))
    return {
        "plain": plain,
        "one dimension": plain[:, :1],
        "more dimensions than samples": rng.standard_normal((7, 20)),
        "far from zero": 1e8 + 1e-3 * plain,
        "tiny": 1e-12 * plain,
        "large": 1e12 * plain,
        "scales apart": plain * np.logspace(-6, 6, 5),
        "skewed": rng.exponential(size=(60, 5)) ** 3,
        "drifting": plain + np.linspace(0.0, 1e4, 60)[:, None],
        "a constant channel": np.concatenate([plain, np.full((60, 1), 0.25)], axis=1),
    }[name]


DATA = (
    "plain",
    "one dimension",
    "more dimensions than samples",
    "far from zero",
    "tiny",
    "large",
    "scales apart",
    "skewed",
    "drifting",
    "a constant channel",
)
ACCUMULATORS: tuple[type[Moments], ...] = (Moments,)


def _name(law: Law) -> str:
    return str(getattr(law, "__name__", law))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("law", LAWS, ids=_name)
@pytest.mark.parametrize("kind", ACCUMULATORS, ids=lambda kind: kind.__name__)
def test_every_accumulator_obeys_every_law(kind: type[Moments], law: Law, data: str) -> None:
    law(kind, _data(data), np.random.default_rng(11))


# --- the laws catch what is broken -----------------------------------------------------------------------------------
class Naive(Moments):
    """Raw sums Σx, Σxxᵀ about zero: the textbook formula."""

    __slots__ = ()

    def update(self, samples: ArrayLike, weights: ArrayLike | None = None) -> Self:
        x = np.atleast_2d(np.asarray(samples, np.float64))
        if not len(x):
            return self
        n = self.weight + len(x)
        total = self.mean * self.weight + x.sum(axis=0)
        raw = self.scatter + np.outer(self.mean, self.mean) * self.weight + x.T @ x
        twin = Moments.of(x)
        self.merge(twin)
        self.mean = total / n
        self.scatter = raw - np.outer(self.mean, self.mean) * n
        return self


class FrozenCentre(Moments):
    """T and Q added up without moving them to the common mean."""

    __slots__ = ()

    def _shift(self, a: Array) -> tuple[Array, float]:
        return self.third.copy(), self.fourth


class HalfShift(Moments):
    """The shift of Q without its term in T."""

    __slots__ = ()

    def _shift(self, a: Array) -> tuple[Array, float]:
        third, fourth = super()._shift(a)
        return third, fourth - 4.0 * float(self.third @ a)


class Averaging(Moments):
    """The mean of two means, whatever stands behind each."""

    __slots__ = ()

    def merge(self, other: Moments) -> Self:
        mean = 0.5 * (self.mean + other.mean)
        super().merge(other)
        self.mean = mean
        return self


class CountedOnce(Moments):
    """W₂ decays as n does."""

    __slots__ = ()

    def decay(self, factor: float) -> Self:
        super().decay(factor)
        self.weight_sq /= factor
        return self


class HalfChanged(Moments):
    """Counts a batch before it looks at it."""

    __slots__ = ()

    def update(self, samples: ArrayLike, weights: ArrayLike | None = None) -> Self:
        self.count += len(np.atleast_2d(np.asarray(samples)))
        before = self.count
        super().update(samples)
        self.count = before
        return self


class Sharing(Moments):
    """An empty one takes over the other's arrays instead of a copy."""

    __slots__ = ()

    def merge(self, other: Moments) -> Self:
        if self.weight == 0.0:
            self._assign(other)
            return self
        return super().merge(other)


class Unforgetting(Moments):
    """Subtracting takes Q away where it stands."""

    __slots__ = ()

    def subtract(self, other: Moments) -> Self:
        fourth = self.fourth - other.fourth
        super().subtract(other)
        self.fourth = max(fourth, 0.0) if self.weight else 0.0
        return self


class Hoarding(Moments):
    """Keeps every batch."""

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension)
        self.batches: list[Any] = []


class Stale(Moments):
    """Stores views of its arrays, which go on changing."""

    __slots__ = ()

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        return super().to_arrays() | {"mean": self.mean, "third": self.third}


class Float32(Moments):
    """Stores in single precision."""

    __slots__ = ()

    @classmethod
    def from_arrays(cls, arrays: Any) -> Self:
        return super().from_arrays({k: v.astype(np.float32).astype(v.dtype) for k, v in arrays.items()})


BROKEN: tuple[tuple[type[Moments], Law, str], ...] = (
    (Naive, laws.batch_is_direct, "far from zero"),
    (FrozenCentre, laws.loop_is_batch, "plain"),
    (HalfShift, laws.cuts_are_batch, "skewed"),
    (HalfShift, laws.split_and_merge_is_batch, "skewed"),
    (Averaging, laws.empty_is_identity, "plain"),
    (Averaging, laws.merge_associates, "plain"),
    (CountedOnce, laws.decay_is_weight, "plain"),
    (HalfChanged, laws.bad_samples_change_nothing, "plain"),
    (Sharing, laws.merge_leaves_other, "plain"),
    (Unforgetting, laws.subtract_inverts_merge, "plain"),
    (Hoarding, laws.memory_is_bounded, "plain"),
    (Stale, laws.storing_is_exact, "plain"),
    (Float32, laws.storing_is_exact, "plain"),
)


@pytest.mark.parametrize(("kind", "law", "data"), BROKEN, ids=lambda part: getattr(part, "__name__", part))
def test_a_law_catches_a_broken_accumulator(kind: type[Moments], law: Law, data: str) -> None:
    with pytest.raises((AssertionError, FitError, pytest.fail.Exception)):
        law(kind, _data(data), np.random.default_rng(11))


def test_the_naive_formula_loses_what_ours_keeps() -> None:
    x = 1e8 + 1e-3 * np.random.default_rng(0).standard_normal((1000, 3))
    true = Direct.of(x).scatter
    naive = x.T @ x - len(x) * np.outer(x.mean(axis=0), x.mean(axis=0))
    ours = of(Moments, np.array_split(x, 37), 3).scatter
    assert np.abs(naive - true).max() > 100 * np.trace(true)
    assert np.abs(ours - true).max() < 1e-5 * np.trace(true)


# --- properties ------------------------------------------------------------------------------------------------------
@st.composite
def samples(draw: st.DrawFn) -> Array:
    """Samples (n, d) of any location and scale, n from 2, d from 1."""
    n, d = draw(st.integers(2, 25)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    location = draw(st.sampled_from([0.0, 1.0, -1e3, 1e6]))
    scale = draw(st.sampled_from([1e-2, 1.0, 1e3]))
    return np.asarray(location + scale * rng.standard_normal((n, d)) ** draw(st.sampled_from([1, 3])))


@settings(max_examples=60)
@given(x=samples(), seed=st.integers(0, 2**32 - 1))
def test_any_cut_and_any_tree_give_the_batch(x: Array, seed: int) -> None:
    rng = np.random.default_rng(seed)
    laws.cuts_are_batch(Moments, x, rng)
    laws.split_and_merge_is_batch(Moments, x, rng)
    laws.decay_is_weight(Moments, x, rng)


@settings(max_examples=60)
@given(x=samples(), shift=st.lists(st.floats(-1e3, 1e3), min_size=6, max_size=6))
def test_the_shift_formula_is_the_direct_sums_about_another_centre(x: Array, shift: list[float]) -> None:
    held = of(Moments, [x], x.shape[1])
    a = np.asarray(shift[: x.shape[1]])
    third, fourth = held._shift(a)
    y = x - x.mean(axis=0) + a
    norm_sq = (y * y).sum(axis=1)
    scale = float((norm_sq**2).sum())
    assert fourth == pytest.approx(scale, rel=1e-9 + tolerance(x))
    assert np.abs(third - norm_sq @ y).max() <= (1e-9 + tolerance(x)) * float((norm_sq**1.5).sum())


@settings(max_examples=40)
@given(x=samples(), factor=st.floats(0.01, 1.0))
def test_the_effective_size_is_between_one_and_the_count(x: Array, factor: float) -> None:
    held = Moments(x.shape[1])
    for row in x:
        held.decay(factor).update(row)
    assert 1.0 - 1e-9 <= held.effective_size <= len(x) * (1.0 + 1e-9)


# --- edges -----------------------------------------------------------------------------------------------------------
def test_nothing_is_held_at_first() -> None:
    empty = Moments(3)
    assert (empty.count, empty.weight, empty.effective_size, empty.dimension) == (0, 0.0, 0.0, 3)
    assert not empty.scatter.any()


def test_no_dimension_is_refused() -> None:
    with pytest.raises(FitError, match="at least one dimension, not 0"):
        Moments(0)


def test_merging_with_itself_doubles_it() -> None:
    x = _data("skewed")
    held = of(Moments, [x], 5)
    same(held.merge(held), Direct.of(np.concatenate([x, x])), tolerance(x))


def test_a_batch_in_single_precision_is_summed_in_double() -> None:
    x = (1e4 + np.random.default_rng(2).standard_normal((500, 4))).astype(np.float32)
    same(of(Moments, np.array_split(x, 9), 4), Direct.of(x.astype(np.float64)), 1e-8)


@pytest.mark.parametrize("factor", [0.0, -0.1, 1.0000001, float("nan"), float("inf")])
def test_a_forgetting_factor_out_of_range_is_refused(factor: float) -> None:
    held = of(Moments, [_data("plain")], 5)
    before = held.copy()
    with pytest.raises(FitError, match="forgetting factor"):
        held.decay(factor)
    identical(held, before)


def test_more_than_there_is_cannot_be_subtracted() -> None:
    x = _data("plain")
    held = of(Moments, [x[:10]], 5)
    before = held.copy()
    with pytest.raises(FitError, match="cannot subtract 60 samples from 10"):
        held.subtract(of(Moments, [x], 5))
    identical(held, before)


def test_what_was_forgotten_cannot_be_subtracted_at_full_weight() -> None:
    x = _data("plain")
    held = of(Moments, [x[:10]], 5).decay(0.1).update(x[10:12])
    before = held.copy()
    with pytest.raises(FitError, match="cannot subtract"):
        held.subtract(of(Moments, [x[:10]], 5))
    with pytest.raises(FitError, match="some were forgotten since"):
        held.decay(0.5).subtract(of(Moments, [x[10:11]], 5))
    same(before.decay(0.5), held, 1e-12)


def test_a_merge_that_overflows_changes_nothing() -> None:
    a, b = of(Moments, [np.array([[1e70, 0.0], [0.0, 1.0]])], 2), of(Moments, [np.array([[-1e90, 0.0]])], 2)
    before = a.copy()
    with pytest.raises(FitError, match="too large"):
        a.merge(b)
    identical(a, before)


def _broken(name: str, value: Any) -> dict[str, NDArray[Any]]:
    arrays = of(Moments, [_data("plain")], 5).to_arrays()
    if value is None:
        del arrays[name]
    else:
        arrays[name] = np.asarray(value)
    return arrays


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("triangle", None),
        ("count", None),
        ("mean", np.zeros(4)),
        ("mean", np.zeros(0)),
        ("triangle", np.zeros(14)),
        ("triangle", np.zeros((5, 5))),
        ("third", np.zeros(6)),
        ("triangle", np.full(15, np.nan)),
        ("fourth", np.inf),
        ("fourth", -1.0),
        ("weight", -1.0),
        ("weight_sq", -1.0),
        ("weight_sq", 0.0),
        ("count", -3),
        ("triangle", -np.eye(5)[np.triu_indices(5)]),
        ("weight", "many"),
        ("mean", np.array(["a"] * 5)),
    ],
    ids=str,
)
def test_stored_nonsense_is_refused(name: str, value: Any) -> None:
    with pytest.raises(FitError):
        Moments.from_arrays(_broken(name, value))


def test_stored_arrays_are_not_taken_over() -> None:
    arrays = of(Moments, [_data("plain")], 5).to_arrays()
    twin = Moments.from_arrays(arrays)
    before = twin.copy()
    arrays["mean"][:] = 0.0
    arrays["triangle"][:] = 0.0
    identical(twin, before)


def test_the_whole_scatter_that_earlier_builds_wrote_is_read() -> None:
    held = of(Moments, np.array_split(_data("skewed"), 7), 5)
    arrays = held.to_arrays()
    del arrays["triangle"]
    twin = Moments.from_arrays(arrays | {"scatter": held.scatter.copy()})
    identical(twin, held)
    assert twin.scatter.tobytes() == held.scatter.tobytes()
    arrays |= {"scatter": np.zeros((5, 4))}
    with pytest.raises(FitError):
        Moments.from_arrays(arrays)
