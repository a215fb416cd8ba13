"""Public methods on the same images under the same weights; runs in an environment of its own, knows nothing of ours.

Called by bench.accuracy with one JSON file: {"train", "normal", "defective": lists of image files, "weights",
"features": an .npz of this package's features by the same three names and a level's number, "output"}.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.models.image.dfm.torch_model import DFMModel
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from PIL import Image
from sklearn.covariance import EllipticEnvelope, LedoitWolf
from sklearn.metrics import roc_auc_score
from torch import nn
from torchvision.models import mobilenet_v2

SIDE, BATCH, THREADS = 224, 8, 2
CORESET = 0.01
"""Share of the patches that PatchCore keeps; the least, and quickest, of those its authors publish (1, 10, 25 %)."""
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def read(files: list[str]) -> torch.Tensor:
    """(n, 3, 224, 224) normalised images, squashed."""
    images = []
    for file in files:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        images.append((torch.from_numpy(pixels.copy()).float() / 255 - MEAN) / STD)
    return torch.stack(images).permute(0, 3, 1, 2).contiguous()


def backbone(weights: str) -> nn.Module:
    """MobileNetV2 with the weights of a file."""
    network: nn.Module = mobilenet_v2(weights=None)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()


def measured(
    name: str, model: Any, finish: Callable[[], object], images: dict[str, torch.Tensor], held: Callable[[], int]
) -> dict[str, Any]:
    """Fit an anomalib model, score both kinds of test images, time both."""
    print(f"{name} …", flush=True)
    began = time.perf_counter()
    model.train()
    model.feature_extractor.eval()
    with torch.inference_mode():
        for batch in torch.split(images["train"], BATCH):
            model(batch)
        finish()
    fit_s = time.perf_counter() - began
    model.eval()
    scores = {}
    began = time.perf_counter()
    with torch.inference_mode():
        for kind in ("normal", "defective"):
            found = [model(batch).pred_score.reshape(-1) for batch in torch.split(images[kind], BATCH)]
            scores[kind] = torch.cat(found).double().numpy()
    frames = len(images["normal"]) + len(images["defective"])
    return row(name, scores, fit_s, 1000 * (time.perf_counter() - began) / frames, held())


def row(name: str, scores: dict[str, Any], fit_s: float, frame_ms: float | None, held: int) -> dict[str, Any]:
    """One line of the table."""
    labels = [0] * len(scores["normal"]) + [1] * len(scores["defective"])
    area = float(roc_auc_score(labels, np.concatenate([scores["normal"], scores["defective"]])))
    return {"method": name, "auroc": area, "fit_s": fit_s, "frame_ms": frame_ms, "model_mb": held / 1e6}


def tensors(module: nn.Module, *names: str) -> int:
    """Bytes of what was learnt: attributes of a model, by dotted name."""
    total = 0
    for name in names:
        value: Any = module
        for part in name.split("."):
            value = getattr(value, part)
        total += value.nbytes
    return total


def sklearn_rows(file: str) -> list[dict[str, Any]]:
    """scikit-learn's estimators on this package's own features; the time of the features is not theirs."""
    features = np.load(file, allow_pickle=False)
    levels = sorted({int(name.split("_")[1]) for name in features.files})
    frames = len(features["train_0"])
    widths = {level: features[f"train_{level}"].shape[1] for level in levels}
    # Its determinant needs more frames than features in every subset: the deepest level that leaves it two a feature.
    robust = max(level for level in levels if 2 * widths[level] <= frames)

    def kind(name: str, chosen: list[int]) -> Any:
        return np.concatenate([features[f"{name}_{level}"] for level in chosen], axis=1).astype(np.float64)

    rows = []
    wanted: list[tuple[str, Any, list[int]]] = [
        ("scikit-learn LedoitWolf, all levels in one vector", LedoitWolf(), levels),
        (
            f"scikit-learn EllipticEnvelope, the level of {widths[robust]} channels",
            EllipticEnvelope(random_state=0, contamination=0.01),
            [robust],
        ),
    ]
    for name, estimator, chosen in wanted:
        print(f"{name} …", flush=True)
        train = kind("train", chosen)
        began = time.perf_counter()
        estimator.fit(train)
        fit_s = time.perf_counter() - began
        scores = {one: estimator.mahalanobis(kind(one, chosen)) for one in ("normal", "defective")}
        held = estimator.location_.nbytes + estimator.precision_.nbytes
        rows.append(row(name, scores, fit_s, None, held))
    return rows


def main() -> None:
    """Run all peers."""
    ask = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    images = {kind: read(ask[kind]) for kind in ("train", "normal", "defective")}
    rows = sklearn_rows(ask["features"])
    dfm = DFMModel(backbone(ask["weights"]), "features.18", pooling_kernel_size=7, n_comps=0.97)
    pca = ("pca_model.singular_vectors", "pca_model.mean")
    rows.append(measured("anomalib DFM (FRE), features.18", dfm, dfm.fit, images, lambda: tensors(dfm, *pca)))
    layers = ["features.3", "features.6", "features.13"]
    padim = PadimModel(backbone(ask["weights"]), layers, n_features=100)
    gaussian = ("gaussian.mean", "gaussian.inv_covariance")
    rows.append(
        measured(
            "anomalib PaDiM, features.3 6 13, 100 of 152", padim, padim.fit, images, lambda: tensors(padim, *gaussian)
        )
    )
    core = PatchcoreModel(["features.6", "features.13"], backbone(ask["weights"]))
    rows.append(
        measured(
            f"anomalib PatchCore, features.6 13, coreset {CORESET:.0%}",
            core,
            lambda: core.subsample_embedding(CORESET),
            images,
            lambda: tensors(core, "memory_bank"),
        )
    )
    Path(ask["output"]).write_text(json.dumps(rows), "utf-8")


if __name__ == "__main__":
    main()
