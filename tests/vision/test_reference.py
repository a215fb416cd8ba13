"""Real images and real weights: the AUROC that an independent implementation measured, in both numeric modes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.runtime import RuntimeChoice
from gaussline.worker.vision.scorer import Scorer
from tests.support.skips import HARDWARE, data, needs_data
from tests.vision.models import fitted

pytestmark = needs_data("elpv_mono", "weights/mobilenet_v2_features.pth", "weights/squeezenet1_1.pth")
TRAINING = 411
SINGLE_LEVELS = (0.676, 0.881, 0.886, 0.910, 0.915, 0.920, 0.930, 0.926)
"""Of the data's own README: one seed of an independent implementation."""


def bfloat16_is_quick() -> bool:
    """Whether this processor computes in bfloat16 by itself."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text("utf-8") if info.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


@pytest.mark.parametrize("mode", ["float32", "bfloat16"])
def test_elpv_reaches_its_reference(mode: str, mobilenet_weights: Path, cells: dict[str, torch.Tensor]) -> None:
    if mode == "bfloat16" and not bfloat16_is_quick():
        pytest.skip(f"{HARDWARE}bfloat16 arithmetic (AVX512-BF16, AMX): emulated, 900 images take ten minutes")
    backbone = load_backbone("mobilenet_v2", mobilenet_weights, numeric_mode=mode)
    extract = FeatureExtractor(backbone, RuntimeChoice(batch_size=8))
    good, bad = extract.extract(cells["good"]), extract.extract(cells["bad"])
    order = np.random.default_rng(0).permutation(len(good[0]))
    training = [level[order[:TRAINING]] for level in good]
    test = [np.concatenate([level[order[TRAINING:]], defects]) for level, defects in zip(good, bad, strict=True)]
    labels = np.arange(len(test[0])) >= len(good[0]) - TRAINING
    model = fitted(extract.spec, training)
    scorer = Scorer(extract.spec)
    distances = scorer.distances([torch.from_numpy(level) for level in test], scorer.prepare(model))
    assert roc_auc_score(labels, distances.sum(axis=1)) == pytest.approx(0.925, abs=0.006)
    for level, expected in enumerate(SINGLE_LEVELS):
        assert roc_auc_score(labels, distances[:, level]) == pytest.approx(expected, abs=0.03)
    # The same numbers by scikit-learn's batch estimator, level by level.
    for level, (x, y) in enumerate(zip(training, test, strict=True)):
        covariance, _ = ledoit_wolf(x.astype(np.float64))
        residual = y - x.astype(np.float64).mean(axis=0)
        reference = np.sqrt(np.einsum("ij,ij->i", residual, np.linalg.solve(covariance, residual.T).T))
        np.testing.assert_allclose(distances[:, level], reference, rtol=1e-4)


def test_another_numeric_mode_moves_real_scores(mobilenet_weights: Path, cells: dict[str, torch.Tensor]) -> None:
    """Why the mode belongs to the model: scored in another one, normal frames drift by tens of per cent."""
    features = {}
    for mode, frames in (("float32", cells["good"][:240]), ("bfloat16", cells["good"][200:240])):
        backbone = load_backbone("mobilenet_v2", mobilenet_weights, numeric_mode=mode)
        features[mode] = FeatureExtractor(backbone, RuntimeChoice(batch_size=8)).extract(frames)
    spec = load_backbone("mobilenet_v2", mobilenet_weights).spec
    model = fitted(spec, [level[:200] for level in features["float32"]])
    same = model.scores([level[200:] for level in features["float32"]])
    other = model.scores(list(features["bfloat16"]))
    assert np.median(other) / np.median(same) > 1.03


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1"])
def test_float32_whitening_and_company_on_real_features(name: str, cells: dict[str, torch.Tensor]) -> None:
    """Regions and all: the worker's float32 product against float64, and frames alone against frames in company."""
    backbone = load_backbone(name, data("weights"), grid=3)
    extract = FeatureExtractor(backbone, RuntimeChoice(batch_size=64))
    model = fit_model(extract.extract(cells["good"][:160]), extract.spec, FitOptions(rate=0.05))
    new = torch.cat([cells["good"][160:192], cells["bad"][:32]])
    together = extract.extract_tensors(new)
    scorer = Scorer(extract.spec)
    reference = model.distances([level.numpy() for level in together])
    np.testing.assert_allclose(scorer.distances(together, scorer.prepare(model)), reference, rtol=1e-4)
    for size in (1, 3, 16):
        extract.batch_size = size
        apart = model.scores([level.numpy() for level in extract.extract_tensors(new[:24])])
        np.testing.assert_allclose(apart, model.combination.combine(reference[:24]), rtol=1e-4)
