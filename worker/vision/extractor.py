"""Frames to level features: one backbone pass, the spatial mean of every level's map, pooled in float32."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gaussline.worker.contract.frame import Frame
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.contract.spec import BackboneSpec, NumericMode
from gaussline.worker.errors import BackboneMismatch, ModelError
from gaussline.worker.vision import backbones, weights
from gaussline.worker.vision.decode import decode
from gaussline.worker.vision.preprocess import normalise, resize

Features = list[torch.Tensor]


class Extractor:
    """One backbone on one device, ready to run.

    Args:
        network: the whole network with its weights, as it was built.
        spec: what it is; the network is held against it.
        channels_last: memory format of weights and inputs.
        compile: use torch.compile.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: BackboneSpec,
        *,
        device: str = "cpu",
        channels_last: bool = True,
        compile: bool = False,
    ) -> None:
        self.spec = spec
        self.device = torch.device(device)
        self._dtype = torch.bfloat16 if spec.numeric_mode is NumericMode.BFLOAT16 else torch.float32
        network = network.eval().requires_grad_(False)
        _fold_batch_norm(network)
        cut = backbones.LevelNetwork(network, spec.levels).to(self.device, self._dtype)
        if channels_last:
            cut = cut.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._run: Any = torch.compile(cut) if compile else cut
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = spec.numeric_mode is NumericMode.TF32
            torch.backends.cudnn.allow_tf32 = spec.numeric_mode is NumericMode.TF32
        elif spec.numeric_mode is NumericMode.TF32:
            raise ModelError("the numeric mode tf32 needs a CUDA device; this model was fitted on one")
        widths = tuple(
            int(level.shape[1]) for level in self.maps([torch.zeros(1, *self.input_size, dtype=torch.uint8)])
        )
        if widths != spec.channels:
            raise BackboneMismatch(f"the levels of {spec.name} have {widths} channels, the spec says {spec.channels}")

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.spec.input_height, self.spec.input_width

    def to_image(self, frame: Frame, limits: ImageLimits) -> torch.Tensor:
        """Decode and resize one frame to (c, h, w) uint8. Raises ImageError. Any thread may call it."""
        return resize(decode(frame, limits), self.spec)

    def extract(self, images: Sequence[torch.Tensor]) -> Features:
        """Resized images to one float32 (n, d) tensor a level, on the device."""
        return [level.mean(dim=(2, 3), dtype=torch.float32) for level in self.maps(images)]

    def extract_numpy(self, images: Sequence[torch.Tensor]) -> list[NDArray[np.float32]]:
        """`extract`, as arrays in main memory."""
        return [level.cpu().numpy() for level in self.extract(images)]

    def maps(self, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Resized images to their feature maps, (n, d, h, w) a level, in the network's own dtype."""
        with torch.inference_mode():
            batch = normalise(list(images), self.spec, self.device, self._dtype)
            maps: list[torch.Tensor] = self._run(batch.contiguous(memory_format=self._memory_format))
            return maps


def make_spec(
    info: backbones.BackboneInfo,
    state: dict[str, torch.Tensor],
    source: str,
    *,
    random: bool = False,
    levels: Sequence[str] | None = None,
    mode: NumericMode = NumericMode.FLOAT32,
    size: int | None = None,
) -> BackboneSpec:
    """The spec of a backbone with these weights. Raises ModelError for a level that it has not."""
    chosen = info.levels if levels is None else tuple(levels)
    unknown = [level for level in chosen if level not in info.levels]
    if unknown or not chosen:
        raise ModelError(
            f"{info.name} has no level {unknown[0] if unknown else ''!r}; there are {', '.join(info.levels)}"
        )
    edge = size or info.size
    return BackboneSpec(
        name=info.name,
        weights_digest=weights.digest(state),
        weights_source=source,
        random_weights=random,
        levels=tuple(level for level in info.levels if level in chosen),
        channels=tuple(width for level, width in zip(info.levels, info.channels, strict=True) if level in chosen),
        input_height=edge,
        input_width=edge,
        numeric_mode=mode,
    )


def load_network(
    name: str, weights_file: Path | None, *, random_seed: int | None = None
) -> tuple[backbones.BackboneInfo, nn.Module, str, dict[str, torch.Tensor]]:
    """A backbone with its weights: (description, network, source, state dict).

    From a file; else random where a seed asks for it; else torchvision's own. Raises WeightsUnavailable, ModelError.
    """
    info = backbones.find(name)
    if weights_file is not None:
        network, source = weights.from_file(info, weights_file), f"file {weights_file.name}"
    elif random_seed is not None:
        network, source = weights.random(info, random_seed), f"random, seed {random_seed}"
    else:
        network, source = weights.from_torchvision(info), f"torchvision {info.weights}"
    return info, network, source, network.state_dict()


def open_extractor(
    spec: BackboneSpec,
    weights_file: Path | None,
    *,
    allow_random: bool = False,
    device: str = "cpu",
    channels_last: bool = True,
    compile: bool = False,
) -> Extractor:
    """The backbone that a model's spec names, checked against it.

    Raises BackboneMismatch for other weights, WeightsUnavailable, ModelError for random weights that nobody allowed.
    """
    seed = None
    if spec.random_weights:
        if not allow_random:
            raise ModelError(
                "the model was fitted with random weights: its verdicts mean nothing. Only the demo and the tests may "
                "use it (GAUSSLINE_ALLOW_RANDOM_WEIGHTS=true)"
            )
        seed = int(spec.weights_source.rsplit(" ", 1)[-1])
    info, network, source, state = load_network(
        spec.name, None if spec.random_weights else weights_file, random_seed=seed
    )
    found = weights.digest(state)
    if found != spec.weights_digest:
        raise BackboneMismatch(
            f"the weights of {info.name} ({source}) have the digest {found[:16]}…, the model was fitted with "
            f"{spec.weights_digest[:16]}… ({spec.weights_source}): give that file with GAUSSLINE_WEIGHTS"
        )
    return Extractor(network, spec, device=device, channels_last=channels_last, compile=compile)


def _fold_batch_norm(module: nn.Module) -> None:
    """Fold every BatchNorm into the convolution right before it in a Sequential; the same numbers in fewer passes."""
    for child in module.children():
        _fold_batch_norm(child)
    if isinstance(module, nn.Sequential):
        names = list(module._modules)
        for before, after in pairwise(names):
            convolution, norm = module._modules[before], module._modules[after]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module._modules[before] = fuse_conv_bn_eval(convolution, norm)
                module._modules[after] = nn.Identity()
