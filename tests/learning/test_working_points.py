"""Every working point, from the fit through the artefact to what a worker decides and says."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from gaussline.worker.commands.fit import fit_table
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import FitError
from gaussline.worker.gaussian.calibration import Method, WorkingPoint
from gaussline.worker.gaussian.covariance import Estimator
from gaussline.worker.learning.fit import FitOptions, fit_model, report
from gaussline.worker.learning.normal_images import NormalImages
from gaussline.worker.learning.recalibrate import recalibrated
from tests.learning.synthetic import SPEC, normal

WIDTH = 6
ONE = replace(SPEC, levels=("only",), channels=(WIDTH,))
"""One level: what the laws of a single distance are about."""
OPTIONS: dict[Method, tuple[FitOptions, BackboneSpec]] = {
    Method.CONFORMAL: (FitOptions(0.05), SPEC),
    Method.EMPIRICAL: (FitOptions(0.05, method=Method.EMPIRICAL), SPEC),
    Method.CROSS_CONFORMAL: (FitOptions(0.05, method=Method.CROSS_CONFORMAL), SPEC),
    Method.PARETO: (FitOptions(0.001, method=Method.PARETO), SPEC),
    Method.ROBUST: (FitOptions(0.05, method=Method.ROBUST), SPEC),
    Method.CHI_SQUARED: (FitOptions(0.05, method=Method.CHI_SQUARED), ONE),
    Method.HOTELLING: (FitOptions(0.05, method=Method.HOTELLING, estimator=Estimator.EMPIRICAL), ONE),
}


def gaussian(frames: int, seed: int) -> list[Any]:
    """Features of one level that are exactly Gaussian."""
    return [np.random.default_rng(seed).standard_normal((frames, WIDTH)).astype(np.float32)]


def features(spec: BackboneSpec, frames: int, seed: int) -> list[Any]:
    return gaussian(frames, seed) if spec is ONE else normal(frames, seed)


@pytest.fixture(scope="module", params=OPTIONS, ids=str)
def fitted(request: pytest.FixtureRequest) -> tuple[Method, Model, BackboneSpec]:
    options, spec = OPTIONS[request.param]
    return request.param, fit_model(features(spec, 1200, 1), spec, options), spec


def test_every_method_is_tried_here() -> None:
    assert set(OPTIONS) == set(Method)


def test_a_model_comes_back_from_its_artefact_and_decides_the_same(fitted: tuple[Method, Model, BackboneSpec]) -> None:
    method, model, spec = fitted
    twin = Model.from_artefact(model.to_artefact())
    assert twin.working_point.method is method
    unseen = features(spec, 300, 2)
    one, two = model.judge(unseen), twin.judge(unseen)
    assert np.array_equal(one.failed, two.failed)
    assert np.array_equal(one.p_values, two.p_values)
    assert twin.to_artefact().digest == model.to_artefact().digest


def test_p_values_are_chances_and_fall_with_the_score(fitted: tuple[Method, Model, BackboneSpec]) -> None:
    _, model, spec = fitted
    judged = model.judge(features(spec, 2000, 3))
    assert ((judged.p_values >= 0.0) & (judged.p_values <= 1.0)).all()
    order = np.argsort(judged.scores)
    assert (np.diff(judged.p_values[order]) <= 1e-12).all() or model.folds, "one order of scores and of p-values"


def test_the_realised_rate_agrees_with_the_stated_one(fitted: tuple[Method, Model, BackboneSpec]) -> None:
    """Over one draw of calibration frames: within what that draw, and this many fresh frames, allow."""
    method, model, spec = fitted
    rate = model.working_point.rate
    fresh = 20_000
    failed = int(model.judge(features(spec, fresh, 4)).failed.sum())
    calibrating = max(360, len(model.working_point.scores))
    spread = np.sqrt(rate * (1 - rate) * (1 / calibrating + 1 / fresh))
    if method in (Method.CHI_SQUARED,):
        spread += 0.01  # the estimate of the covariance: 840 frames for 6 features
    if method is Method.PARETO:
        spread = 0.0015
    if method is Method.ROBUST:
        spread += 0.01
    assert abs(failed / fresh - rate) < 4 * spread, failed / fresh


def test_the_report_says_what_a_method_promises(fitted: tuple[Method, Model, BackboneSpec]) -> None:
    method, model, _ = fitted
    told = report(model)
    assert told["method"] == method.value
    assert told["promise"]
    if method is Method.PARETO:
        low, high = told["interval"]
        assert low <= told["threshold"] <= high
    text = io.StringIO()
    Console(file=text, width=200).print(fit_table(told))
    shown = text.getvalue()
    assert told["promise"] in shown
    wanted = {Method.PARETO: "interval of the threshold", Method.ROBUST: "interval of the realised rate"}
    assert (wanted.get(method, "no interval is here") in shown) == (method in wanted)
    assert ("95 % interval of the" in shown) == (method in wanted)


def test_the_exact_law_is_exact_and_the_published_one_warns() -> None:
    """200 frames of 24 features: chi-squared fails 7 to 8 % where 4.55 % is asked, F fails 4.55 %."""
    width, frames, rate = 24, 200, 0.0455
    spec = replace(SPEC, levels=("only",), channels=(width,))
    rates: dict[Method, list[float]] = {Method.CHI_SQUARED: [], Method.HOTELLING: []}
    warned = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        train = [rng.standard_normal((286, width)).astype(np.float32)]
        fresh = [rng.standard_normal((4000, width)).astype(np.float32)]
        for method, found in rates.items():
            options = FitOptions(rate, method=method, estimator=Estimator.EMPIRICAL, seed=seed)
            model = fit_model(train, spec, options)
            assert model.info["training_frames"] == frames
            found.append(float(model.judge(fresh).failed.mean()))
            if method is Method.CHI_SQUARED:
                warned.append(model.working_point.warning)
    assert all(warned)
    exact = rates[Method.HOTELLING]
    assert abs(np.mean(exact) - rate) < 3 * stats.sem(exact)
    assert np.mean(rates[Method.CHI_SQUARED]) > 1.3 * rate


@pytest.mark.parametrize("method", [Method.CHI_SQUARED, Method.HOTELLING])
def test_laws_of_one_level_are_refused_for_several(method: Method) -> None:
    with pytest.raises(FitError, match="one level"):
        fit_model(normal(300), SPEC, FitOptions(0.05, method=method, estimator=Estimator.EMPIRICAL))


def test_the_exact_law_is_refused_where_frames_are_chosen_or_counted_twice() -> None:
    exact = FitOptions(0.05, method=Method.HOTELLING, estimator=Estimator.EMPIRICAL)
    copies = [gaussian(200, 2)]
    with pytest.raises(FitError, match="copies are no new frames"):
        fit_model(gaussian(200, 1), ONE, exact, copies=copies)
    with pytest.raises(FitError, match="by their scores"):
        replace(exact, robust=True)
    plain = FitOptions(0.05, estimator=Estimator.EMPIRICAL)
    chosen = fit_model(gaussian(300, 1), ONE, replace(plain, robust=True))
    copied = fit_model(gaussian(200, 1), ONE, plain, {"augmentation": {"copies": 1}}, copies=copies)
    fresh = NormalImages((), gaussian(100, 3), np.arange(100, dtype=np.uint64), None, (), ())
    for model in (chosen, copied):
        with pytest.raises(FitError, match="F law"):
            recalibrated(model, fresh, rate=0.05, method=Method.HOTELLING)


def test_the_published_law_does_not_take_copies_for_frames() -> None:
    published = FitOptions(0.05, method=Method.CHI_SQUARED)
    copies = [gaussian(60, seed) for seed in range(2, 40)]
    told = {"augmentation": {"copies": len(copies)}}
    model = fit_model(gaussian(60, 1), ONE, published, told, copies=copies)
    assert "with 42 frames of 6 features (their 38 copies each are no new frames)" in model.working_point.warning
    fresh = NormalImages((), gaussian(100, 50), np.arange(100, dtype=np.uint64), None, (), ())
    again, _ = recalibrated(model, fresh, rate=0.05, method=Method.CHI_SQUARED)
    assert again.working_point.warning == model.working_point.warning


def test_too_few_frames_are_refused_with_the_number_needed() -> None:
    for method in (Method.CONFORMAL, Method.EMPIRICAL, Method.CROSS_CONFORMAL, Method.PARETO, Method.ROBUST):
        options = FitOptions(0.01, method=method)
        with pytest.raises(FitError, match=str(options.frames_needed)):
            fit_model(normal(options.frames_needed - 1), SPEC, options)
        assert fit_model(normal(options.frames_needed), SPEC, options).working_point.method is method


# --- calibrating again -----------------------------------------------------------------------------------------------
def images(frames: int, seed: int, digests: Any = None) -> NormalImages:
    names = np.arange(frames, dtype=np.uint64) + np.uint64(10_000 * seed) if digests is None else digests
    return NormalImages((), normal(frames, seed), names, None, (), ())


def test_a_new_working_point_keeps_the_gaussians() -> None:
    model = fit_model(normal(300), SPEC, FitOptions(0.05))
    new, left_out = recalibrated(model, images(400, 5), rate=0.01, method=Method.CONFORMAL)
    assert left_out == 0
    assert new.working_point.rate == 0.01
    assert len(new.working_point.scores) == 400
    for mine, theirs in zip(new.gaussians, model.gaussians, strict=True):
        assert mine.whitening.tobytes() == theirs.whitening.tobytes()
    assert new.to_artefact().digest != model.to_artefact().digest


def test_frames_that_are_held_out_do_not_calibrate() -> None:
    model = fit_model(normal(300), SPEC, FitOptions(0.05))
    fresh = images(400, 5)
    new, _ = recalibrated(model, fresh, rate=0.05, method=Method.CONFORMAL, holdout=0.25, seed=3)
    assert (new.info["calibration_frames"], new.info["held_out_frames"]) == (300, 100)
    scores = model.scores(list(fresh.features))
    calibrated = np.isclose(scores[:, None], new.working_point.scores, rtol=1e-9, atol=0.0).any(axis=1)
    apart = scores[~calibrated]
    assert apart.size == 100
    assert new.info["realised_rate"] == pytest.approx(new.working_point.fails(apart).mean())
    other, _ = recalibrated(model, fresh, rate=0.05, method=Method.CONFORMAL, holdout=0.25, seed=4)
    assert not np.array_equal(other.working_point.scores, new.working_point.scores)


def test_from_its_start_on_the_tail_gives_the_p_values_and_up_to_it_the_frames_do() -> None:
    options, spec = OPTIONS[Method.PARETO]
    point = fit_model(features(spec, 1200, 1), spec, options).working_point
    assert point.law is not None
    start = point.law.parameters["start"]
    inside, body = np.linspace(start, point.threshold, 9)[1:], np.linspace(point.scores[0], start, 9)
    np.testing.assert_allclose(point.p_value(inside), point.law.p_value(inside), rtol=1e-12)
    above = np.array([(point.scores >= score).sum() for score in body])
    np.testing.assert_allclose(point.p_value(body), (above + 1.0) / (point.scores.size + 1.0), rtol=1e-12)


def test_frames_that_the_fit_has_seen_do_not_calibrate() -> None:
    digests = np.arange(300, dtype=np.uint64)
    model = fit_model(normal(300), SPEC, FitOptions(0.05), digests=digests)
    assert model.trained_on.size == 210
    _, left_out = recalibrated(model, images(300, 0, digests), rate=0.05, method=Method.CONFORMAL)
    assert left_out == 210
    with pytest.raises(FitError, match="were fitted on"):
        recalibrated(model, images(300, 0, digests), rate=0.005, method=Method.CONFORMAL)


def test_a_point_by_folds_is_made_by_a_fit_alone() -> None:
    model = fit_model(normal(300), SPEC, FitOptions(0.05))
    with pytest.raises(FitError, match="fit"):
        recalibrated(model, images(300, 5), rate=0.05, method=Method.CROSS_CONFORMAL)


def test_a_stored_point_of_another_kind_is_refused() -> None:
    model = fit_model(normal(300), SPEC, FitOptions(0.05))
    fields = model.working_point.to_json() | {"method": "pareto"}
    with pytest.raises(FitError):
        WorkingPoint.restore(fields, model.working_point.scores)
