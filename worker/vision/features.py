"""Features of a batch: normalise, run the backbone, pool; chunked at the batch size that suits the device."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import ModelError
from gaussline.worker.vision.backbones import Backbone
from gaussline.worker.vision.numeric import check_runtime, numeric_mode
from gaussline.worker.vision.preprocess import Normaliser
from gaussline.worker.vision.runtime import RuntimeChoice, prepared
from gaussline.worker.vision.views import seen, turned_back

Features = list[NDArray[np.float32]]
"""One float32 (n, d) array a level, in the order of the spec's levels."""


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """Feature maps of a batch, one (n, d, h, w) tensor a level of `spec.cuts`, of its dtype (of views: float32)."""

    levels: tuple[torch.Tensor, ...]

    def of(self, row: int) -> list[NDArray[np.float32]]:
        """The maps of one frame: float32 (d, h, w) a level, as they lie; a copy, so that the batch's memory can go."""
        return [level[row].to(device="cpu", dtype=torch.float32, copy=True).numpy() for level in self.levels]


class FeatureExtractor:
    """Runs one backbone on one device. One thread at a time.

    A frame's features depend on its batch, and on the number of threads, only through the choice of kernel. Over
    batches of 1 to 64 of every backbone they moved by at most 2e-6 of a level's norm in float32, and not at all in
    bfloat16 (tested against 1e-5).

    Args:
        backbone: moved to the device and into the layout of `runtime`.
        runtime: how to run it. A batch over `runtime.batch_size` is cut; when a CUDA device runs out of memory the
            size is halved, for good, and the batch goes on.
    """

    def __init__(self, backbone: Backbone, runtime: RuntimeChoice) -> None:
        self.spec: BackboneSpec = backbone.spec
        self.runtime = runtime
        self.batch_size = runtime.batch_size
        self._device = torch.device(runtime.device)
        check_runtime(self.spec, runtime.device, runtime.memory_format)
        self._channels_last = runtime.memory_format == "channels_last"
        self._backbone, self._run = prepared(backbone, runtime)
        self._normalise = Normaliser(self.spec, self._device)

    def extract(self, batch: torch.Tensor) -> Features:
        """Features of a uint8 (n, 3, h, w) batch of the spec's input size."""
        return [level.cpu().numpy() for level in self.extract_tensors(batch)]

    def extract_tensors(self, batch: torch.Tensor) -> list[torch.Tensor]:
        """The same as float32 tensors (n, d) that stay on the device."""
        return _joined(self._chunks(batch, False))

    def extract_with_maps(self, batch: torch.Tensor) -> tuple[list[torch.Tensor], Maps]:
        """The same features, and the feature maps they are the means of (for heat maps)."""
        both = _joined(self._chunks(batch, True))
        number = len(self.spec.levels)
        return both[:number], Maps(tuple(both[number:]))

    def warm_up(self, seconds: float) -> None:
        """Run noise of every batch size once, the full one first, until the time is over.

        A thread looks for its kernels at the first pass of each size, which then takes several times as long; so every
        thread that is to answer in time runs this before.
        """
        full = self.batch_size
        sizes = [full] if self.runtime.compiled else [full, *range(1, full)]
        end = time.monotonic() + seconds
        for size in sizes:
            for level in self.extract_tensors(torch.zeros((size, 3, *self.spec.input_size), dtype=torch.uint8)):
                level.cpu()
            if time.monotonic() >= end:
                return

    def _chunks(self, batch: torch.Tensor, maps: bool) -> list[list[torch.Tensor]]:
        expected = (3, *self.spec.input_size)
        if batch.ndim != 4 or tuple(batch.shape[1:]) != expected or batch.dtype != torch.uint8 or not len(batch):
            raise ValueError(
                f"batch is {batch.dtype} {tuple(batch.shape)}, not uint8 (n, {', '.join(map(str, expected))})"
            )
        done: list[list[torch.Tensor]] = []
        start = 0
        while start < len(batch):
            left = len(batch) - start
            # Even parts: nine frames run as five and four, not as eight and one.
            chunk = batch[start : start + -(-left // -(-left // self.batch_size))]
            levels = self._try(chunk, maps)
            if levels is not None:
                done.append(levels)
                start += len(chunk)
            elif len(chunk) == 1:
                raise ModelError(f"{self.runtime.device} has no memory left for one frame of {self.spec.name}")
            else:
                self.batch_size = (len(chunk) + 1) // 2
                torch.cuda.empty_cache()
        return done

    def _try(self, chunk: torch.Tensor, maps: bool) -> list[torch.Tensor] | None:
        """One pass; None where memory ran out. The error, which holds on to what was allocated, ends here."""
        try:
            return self._pass(chunk, maps)
        except torch.OutOfMemoryError:
            return None

    def _pass(self, chunk: torch.Tensor, maps: bool) -> list[torch.Tensor]:
        """Features, and behind them the maps where they are wanted."""
        with torch.inference_mode(), numeric_mode(self.spec.numeric_mode, self._device):
            layout = torch.channels_last if self._channels_last else torch.contiguous_format
            chunk = chunk.to(self._device, non_blocking=True)
            if self.spec.views:
                mean = self._views(chunk, layout)
                pooled = self._backbone.pooled(mean)
                return pooled + mean if maps else pooled
            x = self._normalise(chunk).contiguous(memory_format=layout)
            if maps:
                features, levels = self._backbone.features_and_maps(x)
                return features + levels
            short = self.batch_size - len(x)
            if short and self.runtime.compiled:  # a compiled backbone knows one batch size; another compiles it anew
                x = functional.pad(x, (0, 0, 0, 0, 0, 0, 0, short)).contiguous(memory_format=layout)
                return [level[: len(chunk)] for level in self._run(x)]
            return self._run(x)

    def _views(self, chunk: torch.Tensor, layout: torch.memory_format) -> list[torch.Tensor]:
        """Feature maps averaged over the spec's views, in float32, each turned back before."""
        total: list[torch.Tensor] = []
        for view in self.spec.views:
            x = self._normalise(seen(chunk, view)).contiguous(memory_format=layout)
            maps = [turned_back(level.float(), view) for level in self._backbone.maps(x)]
            total = maps if not total else [sum_.add_(level) for sum_, level in zip(total, maps, strict=True)]
        return [level.div_(len(self.spec.views)) for level in total]


def _joined(chunks: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    return [torch.cat(level) if len(level) > 1 else level[0] for level in zip(*chunks, strict=True)]
