"""Looking at a frame again: the version that judged it, on the bytes that were kept, with or without its heat map.

Models and backbones are loaded once each and used again, so that many frames may be looked at in a row.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.registry import Registry
from gaussline.worker.broker.seal import open_seal
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.frame import BadFrame, Frame
from gaussline.worker.contract.heat_map import Explanation
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.contract.verdict import ModelRef
from gaussline.worker.engine.picture import pixels_of
from gaussline.worker.errors import ModelError
from gaussline.worker.settings import Settings
from gaussline.worker.vision.backbones import load_for
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.heatmap import explain
from gaussline.worker.vision.numeric import check_runtime, layouts
from gaussline.worker.vision.preprocess import preprocess_one, stack
from gaussline.worker.vision.runtime import RuntimeChoice, device_name, resolve_device
from gaussline.worker.vision.scorer import PreparedModel, Scorer
from gaussline.worker.vision.weights import WeightsSource

MODELS = 8
BACKBONES = 2
"""How many of each are held; the longest unused goes."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one version says of one frame now.

    Attributes:
        level_scores: Mahalanobis distance a level, not squared.
        device: what it was computed on.
        numeric_mode: of the version.
        image: uint8 (H, W, 3), the frame at input size.
        explanation: where the score comes from; None where it was not asked for.
    """

    score: float
    p_value: float
    failed: bool
    level_scores: dict[str, float]
    device: str
    numeric_mode: str
    image: NDArray[np.uint8]
    explanation: Explanation | None


class Recheck:
    """Looks at frames again.

    Args:
        settings: weights, device, threads, limits of images, and whether random weights are allowed.
    """

    def __init__(self, settings: Settings, client: Redis) -> None:
        self._settings = settings
        self._registry = Registry(client, settings.line, seal=open_seal(settings))
        self._models: OrderedDict[str, tuple[Model, PreparedModel]] = OrderedDict()
        self._backbones: OrderedDict[str, tuple[FeatureExtractor, Scorer]] = OrderedDict()
        self._device = resolve_device(settings.device)
        if settings.torch_threads is not None:
            torch.set_num_threads(settings.torch_threads)

    def look(self, frame: Frame | BadFrame, ref: ModelRef, *, name: str = "", maps: bool = False) -> Look:
        """Score a frame under a version, and explain it where asked.

        Args:
            name: the frame's id, for its explanation; empty for an image of no line.

        Raises:
            NotFound: the version's artefact is gone. ModelError: it does not fit the weights, or this device cannot
            compute in its numeric mode. ImageError, ContractError: the frame.
        """
        model, prepared = self._model(ref.digest)
        extractor, scorer = self._backbone(model.spec)
        image = preprocess_one(pixels_of(self._settings, frame), model.spec.input_size)
        found = None
        if maps:
            features, all_maps = extractor.extract_with_maps(stack([image]))
            pooled = [level[0].cpu().numpy() for level in features]
            found = explain(model, pooled, all_maps.of(0), frame=name, ref=ref if name else None)
        else:
            features = extractor.extract_tensors(stack([image]))
        distances, decided = scorer.decide(features, model, prepared)
        levels = [cut.level for cut in model.spec.cuts]
        return Look(
            score=float(decided.scores[0]),
            p_value=float(decided.p_values[0]),
            failed=bool(decided.failed[0]),
            level_scores=dict(zip(levels, model.combination.by_level(distances)[0].tolist(), strict=True)),
            device=device_name(self._device),
            numeric_mode=model.spec.numeric_mode,
            image=image.permute(1, 2, 0).contiguous().numpy(),
            explanation=found,
        )

    def _model(self, digest: str) -> tuple[Model, PreparedModel]:
        if digest not in self._models:
            model = Model.from_artefact(Artefact.unpack(self._registry.fetch(digest), digest))
            _, scorer = self._backbone(model.spec)
            _put(self._models, digest, (model, scorer.prepare(model)), MODELS)
        self._models.move_to_end(digest)
        return self._models[digest]

    def _backbone(self, spec: BackboneSpec) -> tuple[FeatureExtractor, Scorer]:
        if spec.digest not in self._backbones:
            layout = layouts(spec.numeric_mode)[0]
            check_runtime(spec, self._device, layout)  # before the weights are read
            backbone = load_for(spec, weights_for(spec, self._settings))
            runtime = RuntimeChoice(device=self._device, memory_format=layout, batch_size=1)
            held = FeatureExtractor(backbone, runtime), Scorer(spec, self._device)
            _put(self._backbones, spec.digest, held, BACKBONES)
        self._backbones.move_to_end(spec.digest)
        return self._backbones[spec.digest]


def weights_for(spec: BackboneSpec, settings: Settings) -> Any:
    """The weights that a spec's backbone takes here. Raises ModelError for random ones where they are not allowed."""
    if not spec.random_weights:
        return settings.weights
    if not settings.allow_random_weights:
        raise ModelError(
            "the model was fitted with random weights: its verdicts mean nothing, and only the demo and the tests may "
            "use it (GAUSSLINE_ALLOW_RANDOM_WEIGHTS)"
        )
    return WeightsSource(random_seed=int(spec.weights_source.rsplit(":", 1)[-1]))


def _put(held: OrderedDict[str, Any], name: str, value: Any, most: int) -> None:
    held[name] = value
    while len(held) > most:
        held.popitem(last=False)
