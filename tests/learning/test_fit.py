"""Features of normal frames in, a calibrated model out; too few are refused with the number that is needed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.model import Model
from gaussline.worker.errors import ArtefactError, FitError
from gaussline.worker.gaussian.calibration import Method, frames_needed
from gaussline.worker.gaussian.combination import Combination, Rule
from gaussline.worker.gaussian.covariance import Estimator
from gaussline.worker.gaussian.density import Projection
from gaussline.worker.learning import fit
from gaussline.worker.learning.fit import FEWEST_TRAINING, FitOptions, fit_model, fit_moments, report
from tests.learning.synthetic import CHANNELS, SPEC, normal

OPTIONS = FitOptions(rate=0.05)
KINDS = (
    OPTIONS,
    replace(OPTIONS, method=Method.EMPIRICAL),
    replace(OPTIONS, estimator=Estimator.OAS, rule=Rule.MAX),
    replace(OPTIONS, estimator=Estimator.EMPIRICAL, rule=Rule.STANDARDISED),
    replace(OPTIONS, projection=Projection.NPCA, variance=0.9, rule=Rule.MEAN),
    replace(OPTIONS, projection=Projection.PCA),
    replace(OPTIONS, projection=Projection.L2),
    replace(OPTIONS, projection=Projection.STANDARDISED),
)


def _drawn(frames: int, options: FitOptions) -> tuple[Any, Any]:
    """Rows that calibrate, and rows that train, as the fit's documentation says they are drawn."""
    order = np.random.default_rng(options.seed).permutation(frames)
    return order[: options.held(frames)], order[options.held(frames) :]


# --- what is seen by what --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", KINDS, ids=str)
def test_the_gaussians_see_the_training_frames_alone(options: FitOptions) -> None:
    features = normal(120)
    plain = fit_model(features, SPEC, options)
    held, _ = _drawn(120, options)
    changed = [level.copy() for level in features]
    for level in changed:
        level[held] += np.random.default_rng(1).standard_normal((len(held), level.shape[1])).astype(np.float32)
    other = fit_model(changed, SPEC, options)
    for mine, theirs in zip(plain.gaussians, other.gaussians, strict=True):
        assert mine.whitening.tobytes() == theirs.whitening.tobytes()
        assert mine.mean.tobytes() == theirs.mean.tobytes()
    assert plain.combination == other.combination
    assert plain.working_point.scores.tobytes() != other.working_point.scores.tobytes()


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_the_working_point_sees_the_calibration_frames_alone(options: FitOptions) -> None:
    features = normal(120)
    model = fit_model(features, SPEC, options)
    held, training = _drawn(120, options)
    np.testing.assert_array_equal(model.working_point.scores, np.sort(model.scores([x[held] for x in features])))
    assert (len(held), len(training)) == (36, 84)
    assert model.info["calibration_frames"] == 36
    assert model.info["training_frames"] == 84
    assert [moments.count for moments in model.moments] == [84] * 3


@pytest.mark.parametrize("rule", [Rule.SUM, Rule.STANDARDISED])
def test_the_realised_rate_is_the_stated_one(rule: Rule) -> None:
    fresh = normal(4000, seed=1)
    realised = []
    for seed in range(40):
        model = fit_model(normal(90, seed=seed + 2), SPEC, FitOptions(rate=0.1, rule=rule, calibration_share=29 / 90))
        realised.append(model.working_point.fails(model.scores(list(fresh))).mean())
    # 29 calibration frames at 10 %: Beta(3, 27) over fits.
    assert stats.kstest(realised, stats.beta(3, 27).cdf).pvalue > 1e-3


def test_standardised_levels_are_on_one_scale_for_frames_that_the_fit_has_not_seen() -> None:
    """Scales of the training frames themselves would not do: in 24 dimensions they lie half a scale nearer."""
    options = replace(OPTIONS, estimator=Estimator.EMPIRICAL, rule=Rule.STANDARDISED)
    _, training = _drawn(120, options)
    fresh, apart, seen = normal(2000, seed=1), [], []
    for seed in range(5):
        features = normal(120, seed=seed + 2)
        model = fit_model(features, SPEC, options)
        median = np.median(model.distances(list(fresh)), axis=0)
        apart.append((median - model.combination.offset) / model.combination.scale)
        trained = np.median(model.distances([level[training] for level in features]), axis=0)
        seen.append((median - trained) / model.combination.scale)
    assert np.abs(np.mean(apart, axis=0)).max() < 0.35
    assert np.mean(seen, axis=0)[-1] > 0.45


def test_calibrating_on_training_frames_would_not_hold_the_rate() -> None:
    """The test before can fail: the same fit, calibrated on the frames that it was fitted on."""
    fresh, realised = normal(2000, seed=1), []
    for seed in range(40):
        features = normal(90, seed=seed + 2)
        model = fit_model(features, SPEC, FitOptions(rate=0.1, calibration_share=29 / 90))
        _, training = _drawn(90, FitOptions(calibration_share=29 / 90))
        threshold = np.sort(model.scores([level[training[:29]] for level in features]))[-3]
        realised.append((model.scores(list(fresh)) > threshold).mean())
    assert np.mean(realised) > 0.15
    assert stats.kstest(realised, stats.beta(3, 27).cdf).pvalue < 1e-4


# --- the same again --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", KINDS, ids=str)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_model(options: FitOptions) -> None:
    first, again = (fit_model(normal(120), SPEC, options).to_artefact().digest for _ in range(2))
    assert first == again
    assert fit_model(normal(120), SPEC, replace(options, seed=1)).to_artefact().digest != first


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_model_scores_the_same_after_the_artefact(options: FitOptions) -> None:
    model = fit_model(normal(120), SPEC, options, {"folder": "parts"})
    artefact = model.to_artefact()
    twin = Model.from_artefact(Artefact.unpack(artefact.data, artefact.digest))
    probes = normal(50, seed=5)
    assert twin.scores(list(probes)).tobytes() == model.scores(list(probes)).tobytes()
    scores = model.scores(list(probes))
    assert (twin.working_point.fails(scores) == model.working_point.fails(scores)).all()
    assert twin.working_point.p_value(scores).tobytes() == model.working_point.p_value(scores).tobytes()
    assert twin.info == model.info
    assert twin.spec == model.spec
    assert twin.to_artefact().digest == artefact.digest


def test_a_stored_model_can_be_taught_on() -> None:
    data = fit_model(normal(120), SPEC, OPTIONS).to_artefact().data
    model = Model.from_artefact(Artefact.unpack(data))
    more = normal(40, seed=3)
    _, training = _drawn(120, OPTIONS)
    taught = [moments.copy().update(level) for moments, level in zip(model.moments, more, strict=True)]
    joined = [np.concatenate([old[training], new]) for old, new in zip(normal(120), more, strict=True)]
    for have, want in zip(taught, fit_moments(joined), strict=True):
        np.testing.assert_allclose(have.scatter, want.scatter, atol=1e-10 * np.trace(want.scatter))


def test_moments_are_folded_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit_moments(normal(100))
    monkeypatch.setattr(fit, "UPDATE_FRAMES", 7)
    for have, want in zip(fit_moments(normal(100)), whole, strict=True):
        assert have.count == want.count == 100
        np.testing.assert_allclose(have.scatter, want.scatter, atol=1e-12 * np.trace(want.scatter))


# --- too few ---------------------------------------------------------------------------------------------------------
def _told(text: str) -> tuple[int, float | None]:
    frames = re.search(r"at least (\d+) normal frames", text)
    rate = re.search(r"a rate of at least ([\d.e-]+)$", text)
    assert frames, text
    return int(frames[1]), float(rate[1]) if rate else None


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 4, 10, 25, 50, 64])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
@pytest.mark.parametrize("rate", [0.02, 0.05])
def test_too_few_frames_are_refused_with_what_would_do(frames: int, share: float, rate: float) -> None:
    options = FitOptions(rate=rate, calibration_share=share)
    if frames >= options.frames_needed:
        return
    with pytest.raises(FitError) as refused:
        fit_model(normal(frames), SPEC, options)
    enough, attainable = _told(str(refused.value))
    fit_model(normal(enough), SPEC, options)
    with pytest.raises(FitError):
        fit_model(normal(enough - 1), SPEC, options)
    if attainable is not None:
        fit_model(normal(frames), SPEC, replace(options, rate=attainable))


@given(rate=st.floats(1e-6, 0.9), share=st.floats(0.01, 0.99))
def test_the_number_needed_is_the_fewest(rate: float, share: float) -> None:
    options = FitOptions(rate=rate, calibration_share=share)

    def enough(count: int) -> bool:
        held = options.held(count)
        return held >= frames_needed(rate) and count - held >= FEWEST_TRAINING

    assert enough(options.frames_needed)
    assert not enough(options.frames_needed - 1)


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0, 30.0, float("nan")])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(FitError, match="not between 0 and 1"):
        FitOptions(rate=rate)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.3, 30.0, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(FitError, match="calibration share"):
        FitOptions(calibration_share=share)
    with pytest.raises(FitError, match="variance fraction"):  # before minutes are spent on features
        FitOptions(variance=share)


# --- what does not fit -----------------------------------------------------------------------------------------------
def test_features_that_do_not_fit_the_spec_are_refused() -> None:
    features = normal(120)
    uneven = [features[0][:100], *features[1:]]
    wide = [features[1], *features[1:]]
    for wrong in (features[:2], uneven, wide, [], [level[0] for level in features], [*features, features[0]]):
        with pytest.raises(FitError, match=r"\[6, 10, 24\] channels"):
            fit_model(wrong, SPEC, OPTIONS)


@pytest.mark.parametrize("row", range(0, 120, 17))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_refused_wherever_they_are(row: int, value: float) -> None:
    features = normal(120)
    features[1][row, 3] = value
    with pytest.raises(FitError, match="level middle: features hold NaN"):
        fit_model(features, SPEC, OPTIONS)


def test_a_level_that_cannot_be_fitted_is_named() -> None:
    features = normal(120)
    features[2][:] = 0.1
    with pytest.raises(FitError, match="level deep: all 84 frames have the same features"):
        fit_model(features, SPEC, OPTIONS)


def test_a_model_is_of_one_piece() -> None:
    model = fit_model(normal(120), SPEC, OPTIONS)
    changes: tuple[dict[str, Any], ...] = (
        {"gaussians": model.gaussians[:2]},
        {"gaussians": model.gaussians[::-1]},
        {"moments": model.moments[:2]},
        {"combination": Combination(Rule.STANDARDISED, (0.0,), (1.0,))},
    )
    for change in changes:
        with pytest.raises(ArtefactError):
            replace(model, **change)


def test_a_tampered_manifest_is_refused() -> None:
    artefact = fit_model(normal(120), SPEC, OPTIONS).to_artefact()
    changes: tuple[dict[str, Any], ...] = (
        {"kind": "recipe"},
        {"moments": 4},
        {"moments": "all"},
        {"gaussians": []},
        {"combination": {"rule": "magic", "offset": [], "scale": []}},
        {"working_point": {"method": "conformal", "rate": 7.0, "threshold": 0.0}},
        {"spec": {}},
    )
    for change in changes:
        manifest = {key: value for key, value in artefact.manifest.items() if key != "v"} | change
        with pytest.raises(ArtefactError):
            Model.from_artefact(Artefact.pack(manifest, artefact.arrays))


def test_an_artefact_that_lacks_an_array_is_refused() -> None:
    artefact = fit_model(normal(120), SPEC, OPTIONS).to_artefact()
    manifest = {key: value for key, value in artefact.manifest.items() if key != "v"}
    for name in artefact.arrays:
        arrays = {key: value for key, value in artefact.arrays.items() if key != name}
        with pytest.raises(ArtefactError):
            Model.from_artefact(Artefact.pack(manifest, arrays))


# --- the report ------------------------------------------------------------------------------------------------------
def test_the_report_states_and_realises() -> None:
    model = fit_model(normal(200), SPEC, OPTIONS, {"folder": "parts"})
    text = report(model, normal(400, seed=9))
    json.dumps(text, allow_nan=False)
    assert text["stated_rate"] == 0.05
    assert text["held_out_frames"] == 400
    low, high = text["realised_interval"]
    assert low <= text["realised_rate"] <= high
    assert [level["level"] for level in text["levels"]] == ["shallow", "middle", "deep"]
    assert all(level["condition"] > 1 and level["count"] == 140 for level in text["levels"])
    assert text["folder"] == "parts"
    assert "realised_rate" not in report(model)
    assert "realised_rate" not in report(model, [np.empty((0, width)) for width in CHANNELS])
