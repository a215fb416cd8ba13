"""Distances are those of the definitions, in double precision and without a direction lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import mahalanobis, seuclidean
from scipy.stats import ortho_group

from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.covariance import Covariance, Estimator, estimate
from gaussline.worker.gaussian.density import Gaussian, Projection, fit_gaussian, from_covariance
from gaussline.worker.gaussian.metrics import auroc
from gaussline.worker.gaussian.moments import Moments
from tests.gaussian.laws import of

Array = NDArray[np.float64]


def _samples(n: int, d: int, seed: int, lowest: float = 1e-2) -> Array:
    """(n, d) samples whose d standard deviations go from 1 to `lowest`, turned at random."""
    rng = np.random.default_rng(seed)
    turn = ortho_group.rvs(d, random_state=seed) if d > 1 else np.eye(1)
    x: Array = (rng.standard_normal((n, d)) * np.geomspace(1.0, lowest, d)) @ turn.T
    return x + rng.standard_normal(d)


def _with_spectrum(variances: Array, n: int, seed: int = 0) -> tuple[Array, Array]:
    """(n, d) samples whose unbiased covariance has exactly these eigenvalues, and its (d, d) eigenvectors."""
    rng = np.random.default_rng(seed)
    d = variances.size
    raw = rng.standard_normal((n, d))
    white = np.linalg.qr(raw - raw.mean(axis=0))[0] * np.sqrt(n - 1.0)
    turn = ortho_group.rvs(d, random_state=seed + 1)
    return (white * np.sqrt(variances)) @ turn.T + 3.0, turn


# --- the distance ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("estimator", [Estimator.LEDOIT_WOLF, Estimator.OAS, Estimator.EMPIRICAL])
@pytest.mark.parametrize("d", [1, 2, 17])
def test_distances_are_those_of_scipy(estimator: Estimator, d: int) -> None:
    x, probes = _samples(300, d, d), _samples(20, d, d + 1) * 2.0
    moments = of(Moments, [x], d)
    inverse = np.linalg.inv(estimate(moments, estimator).matrix)
    want = [mahalanobis(probe, moments.mean, inverse) for probe in probes]
    gaussian = fit_gaussian(moments, estimator)
    np.testing.assert_allclose(gaussian.mahalanobis(probes), want, rtol=1e-9)
    np.testing.assert_allclose(gaussian.mahalanobis_sq(probes), np.square(want), rtol=1e-9)
    assert (gaussian.dimension, gaussian.rank, gaussian.count) == (d, d, 300.0)


@settings(max_examples=40)
@given(n=st.integers(3, 60), d=st.integers(1, 25), seed=st.integers(0, 2**31 - 1))
def test_whitening_turns_the_covariance_into_the_identity(n: int, d: int, seed: int) -> None:
    moments = of(Moments, [np.random.default_rng(seed).standard_normal((n, d))], d)
    covariance = estimate(moments)
    gaussian = from_covariance(moments.mean, covariance)
    assert (np.triu(gaussian.whitening, 1) == 0.0).all()
    np.testing.assert_allclose(gaussian.whitening @ covariance.matrix @ gaussian.whitening.T, np.eye(d), atol=1e-8)
    assert gaussian.mahalanobis(moments.mean) == 0.0
    assert gaussian.condition == pytest.approx(np.linalg.cond(covariance.matrix), rel=1e-6)


def test_distances_do_not_change_under_a_linear_map_of_the_features() -> None:
    rng = np.random.default_rng(3)
    x, probes, a = rng.standard_normal((200, 6)), rng.standard_normal((9, 6)), rng.standard_normal((6, 6))
    plain = fit_gaussian(of(Moments, [x], 6), Estimator.EMPIRICAL)
    mapped = fit_gaussian(of(Moments, [x @ a.T + 7.0], 6), Estimator.EMPIRICAL)
    np.testing.assert_allclose(mapped.mahalanobis(probes @ a.T + 7.0), plain.mahalanobis(probes), rtol=1e-8)


def test_squared_distances_of_the_training_frames_have_the_mean_that_algebra_says() -> None:
    x = _samples(150, 12, 8)
    gaussian = fit_gaussian(of(Moments, [x], 12), Estimator.EMPIRICAL)
    assert gaussian.mahalanobis_sq(x).sum() == pytest.approx(12 * 149, rel=1e-9)


def test_single_precision_features_are_scored_in_double() -> None:
    x = _samples(100, 5, 1)
    gaussian = fit_gaussian(of(Moments, [x], 5))
    single = x.astype(np.float32)
    assert gaussian.mahalanobis(single).dtype == np.float64
    np.testing.assert_array_equal(gaussian.mahalanobis(single), gaussian.mahalanobis(single.astype(np.float64)))


def test_one_frame_scores_as_it_does_in_a_batch() -> None:
    x = _samples(100, 5, 1)
    gaussian = fit_gaussian(of(Moments, [x], 5))
    alone = np.array([gaussian.mahalanobis(row) for row in x])
    np.testing.assert_allclose(alone, gaussian.mahalanobis(x), rtol=1e-12)
    assert gaussian.mahalanobis(x[:0]).shape == (0,)


@pytest.mark.parametrize("shape", [(3, 4), (6,), (2, 6), ()])
def test_features_of_another_width_are_refused(shape: tuple[int, ...]) -> None:
    gaussian = fit_gaussian(of(Moments, [_samples(20, 5, 0)], 5))
    with pytest.raises(FitError, match="the Gaussian has 5"):
        gaussian.mahalanobis(np.zeros(shape))


@pytest.mark.parametrize(
    "matrix",
    [np.zeros((3, 3)), np.diag([1.0, 1.0, -1e-3]), np.full((3, 3), np.nan), np.ones((3, 3))],
    ids=["zero", "indefinite", "nan", "rank one"],
)
def test_a_covariance_that_cannot_be_factored_is_refused(matrix: Array) -> None:
    with pytest.raises(FitError, match="3 features from 9 frames is singular"):
        from_covariance(np.zeros(3), Covariance(matrix, 0.0, 9.0, Estimator.EMPIRICAL))


@pytest.mark.parametrize("d", [2, 3, 8, 40])
def test_two_different_frames_give_no_shrinkage_and_are_refused_for_what_they_are(d: int) -> None:
    x = np.random.default_rng(d).standard_normal((2, d))
    for repeats in (1, 50):
        with pytest.raises(FitError, match=r"is singular .* give more frames that differ$"):
            fit_gaussian(of(Moments, [np.tile(x, (repeats, 1))], d))


# --- the directions of low variance ----------------------------------------------------------------------------------
def _pseudo_inverse_distance(x: Array, probes: Array, covariance: Array) -> Array:
    """What a float32 pipeline does: a pseudo-inverse whose cutoff is float32's."""
    inverse = np.linalg.pinv(covariance, rcond=float(np.finfo(np.float32).eps) * covariance.shape[0], hermitian=True)
    y = probes - x.mean(axis=0)
    return np.asarray(np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", y, inverse, y), 0.0)))


def test_a_factor_keeps_the_directions_that_a_pseudo_inverse_loses() -> None:
    d = 40
    variances = np.geomspace(1.0, 1e-9, d)
    x, turn = _with_spectrum(variances, 400)
    fresh = x[0] - x[0] + 3.0 + (np.random.default_rng(1).standard_normal((200, d)) * np.sqrt(variances)) @ turn.T
    # A defect of six standard deviations along the direction of least variance.
    defective = fresh + 6.0 * np.sqrt(variances[-1]) * turn[:, -1]
    covariance = np.cov(x, rowvar=False)
    gaussian = fit_gaussian(of(Moments, [x], d), Estimator.EMPIRICAL)
    lost = auroc(_pseudo_inverse_distance(x, fresh, covariance), _pseudo_inverse_distance(x, defective, covariance))
    kept = auroc(gaussian.mahalanobis(fresh), gaussian.mahalanobis(defective))
    assert lost == pytest.approx(0.5, abs=0.01)
    assert kept > 0.95
    exact = np.sqrt((((defective - x.mean(axis=0)) @ turn) ** 2 / variances).sum(axis=1))
    np.testing.assert_allclose(gaussian.mahalanobis(defective), exact, rtol=1e-5)


def test_features_are_not_rounded_to_single_precision() -> None:
    variances = np.array([1.0, 1e-10])
    x, turn = _with_spectrum(variances, 100)
    gaussian = fit_gaussian(of(Moments, [x], 2), Estimator.EMPIRICAL)
    probe = np.full(2, 3.0) + 4e-5 * turn[:, 1]
    assert gaussian.mahalanobis(probe) == pytest.approx(4.0, rel=1e-3)
    assert gaussian.mahalanobis(probe.astype(np.float32)) != pytest.approx(4.0, rel=1e-3)


# --- principal components --------------------------------------------------------------------------------------------
SPECTRUM = np.array([60.0, 30.0, 6.0, 3.0, 1.0])  # cumulative shares: .60 .90 .96 .99 1


@pytest.mark.parametrize(
    ("variance", "pca", "npca"),
    [
        (0.30, [0], [0, 1, 2, 3, 4]),
        (0.70, [0, 1], [0, 1, 2, 3, 4]),
        (0.95, [0, 1, 2], [1, 2, 3, 4]),
        (0.98, [0, 1, 2, 3], [2, 3, 4]),
        (0.995, [0, 1, 2, 3, 4], [3, 4]),
    ],
)
def test_pca_and_npca_overlap_around_the_component_that_crosses(
    variance: float, pca: list[int], npca: list[int]
) -> None:
    x, turn = _with_spectrum(SPECTRUM, 200)
    moments = of(Moments, [x], 5)
    probes = np.random.default_rng(9).standard_normal((30, 5)) + 3.0
    squares = ((probes - 3.0) @ turn) ** 2 / SPECTRUM
    for projection, kept in ((Projection.PCA, pca), (Projection.NPCA, npca)):
        gaussian = fit_gaussian(moments, projection=projection, variance=variance)
        assert gaussian.rank == len(kept)
        np.testing.assert_allclose(gaussian.mahalanobis_sq(probes), squares[:, kept].sum(axis=1), rtol=1e-9)
        assert gaussian.condition == pytest.approx(SPECTRUM[kept[0]] / SPECTRUM[kept[-1]])
        np.testing.assert_allclose(gaussian.whiten(x).T @ gaussian.whiten(x) / 199.0, np.eye(len(kept)), atol=1e-9)


@pytest.mark.parametrize("variance", [0.9, 0.99, 0.999, 0.9999])
def test_with_fewer_frames_than_features_the_null_direction_is_left_out(variance: float) -> None:
    x = _samples(12, 30, 4, lowest=0.5)
    moments = of(Moments, np.array_split(x, 3), 30)
    gaussian = fit_gaussian(moments, projection=Projection.NPCA, variance=variance)
    eigenvalues = np.linalg.eigvalsh(np.cov(x, rowvar=False))[::-1][:11]
    share = np.cumsum(eigenvalues) / eigenvalues.sum()
    first = max(int(np.argmax(share > variance)) - 1, 0)
    assert gaussian.rank == 11 - first
    # Every training frame lies in the span of 11 directions: one that is null would give distances of 1e7 and more.
    assert gaussian.mahalanobis(x).max() < np.sqrt(11)
    assert gaussian.condition < 1e4


def test_all_but_the_null_direction_of_few_frames_is_kept() -> None:
    x = _samples(12, 30, 4, lowest=0.5)
    gaussian = fit_gaussian(of(Moments, [x], 30), projection=Projection.PCA, variance=1.0 - 1e-12)
    assert gaussian.rank == 11
    np.testing.assert_allclose(gaussian.mahalanobis_sq(x), 11.0**2 / 12.0, rtol=1e-9)


@pytest.mark.parametrize("variance", [0.0, 1.0, -0.5, 1.5, float("nan")])
@pytest.mark.parametrize("projection", [Projection.PCA, Projection.NPCA])
def test_a_share_of_variance_out_of_range_is_refused(projection: Projection, variance: float) -> None:
    with pytest.raises(FitError, match="not between 0 and 1"):
        fit_gaussian(of(Moments, [_samples(20, 5, 0)], 5), projection=projection, variance=variance)


@pytest.mark.parametrize("projection", [Projection.PCA, Projection.NPCA, Projection.STANDARDISED])
def test_components_of_too_few_or_constant_frames_are_refused(projection: Projection) -> None:
    for x in (np.zeros((0, 3)), np.ones((1, 3)), np.full((9, 3), 0.1)):
        with pytest.raises(FitError):
            fit_gaussian(of(Moments, list(x), 3), projection=projection)


# --- the controls ----------------------------------------------------------------------------------------------------
def test_l2_is_the_euclidean_distance_from_the_mean() -> None:
    x = _samples(30, 6, 2)
    gaussian = fit_gaussian(of(Moments, [x], 6), projection=Projection.L2)
    np.testing.assert_allclose(gaussian.mahalanobis(x), np.linalg.norm(x - x.mean(axis=0), axis=1), rtol=1e-12)


def test_l2_of_no_frames_is_refused() -> None:
    with pytest.raises(FitError):
        fit_gaussian(Moments(3), projection=Projection.L2)


def test_standardised_is_the_distance_with_unbiased_deviations() -> None:
    x = _samples(30, 6, 2)
    gaussian = fit_gaussian(of(Moments, [x], 6), projection=Projection.STANDARDISED)
    want = [seuclidean(row, x.mean(axis=0), x.var(axis=0, ddof=1)) for row in x]
    np.testing.assert_allclose(gaussian.mahalanobis(x), want, rtol=1e-12)


def test_constant_channels_cannot_be_standardised() -> None:
    x = np.concatenate([_samples(30, 3, 2), np.full((30, 2), 0.1)], axis=1)
    with pytest.raises(FitError, match="2 of 5 channels are constant"):
        fit_gaussian(of(Moments, [x], 5), projection=Projection.STANDARDISED)


# --- storing ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("projection", Projection)
def test_storing_is_exact(projection: Projection) -> None:
    x = _samples(40, 7, 6)
    gaussian = fit_gaussian(of(Moments, [x], 7), projection=projection)
    twin = Gaussian.restore(gaussian.to_arrays(), gaussian.describe())
    assert twin.mahalanobis(x).tobytes() == gaussian.mahalanobis(x).tobytes()
    assert twin.describe() == gaussian.describe()


def _stored() -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    gaussian = fit_gaussian(of(Moments, [_samples(40, 3, 6)], 3))
    return gaussian.to_arrays(), gaussian.describe()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean", np.zeros(4)),
        ("mean", np.zeros((3, 1))),
        ("mean", np.zeros(0)),
        ("mean", np.array([0.0, np.nan, 0.0])),
        ("mean", None),
        ("mean", np.array(["a", "b", "c"])),
        ("whitening", np.eye(4)),
        ("whitening", np.zeros((0, 3))),
        ("whitening", np.zeros((4, 3))),
        ("whitening", np.full((3, 3), np.inf)),
        ("whitening", None),
        ("count", -1.0),
        ("count", float("nan")),
        ("count", "many"),
        ("count", None),
        ("shrinkage", 1.5),
        ("shrinkage", -0.1),
        ("condition", 0.5),
        ("condition", float("inf")),
        ("estimator", "magic"),
        ("projection", "sideways"),
        ("projection", None),
    ],
    ids=str,
)
def test_stored_nonsense_is_refused(name: str, value: Any) -> None:
    arrays, described = _stored()
    part: dict[str, Any] = arrays if name in arrays else described
    if value is None:
        del part[name]
    else:
        part[name] = value
    with pytest.raises(FitError):
        Gaussian.restore(arrays, described)


def test_what_an_older_build_did_not_write_of_a_tomorrow_is_ignored() -> None:
    arrays, described = _stored()
    twin = Gaussian.restore(arrays, described | {"of_tomorrow": 1})
    assert twin.describe() == described
    assert replace(twin, count=3.0).count == 3.0
