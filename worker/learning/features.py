"""Features of many images: decoded side by side, extracted in batches, with somebody told how far it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.errors import ImageError, SourceError
from gaussline.worker.learning.dataset import Sample
from gaussline.worker.vision.decode import decode
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.preprocess import preprocess_one, stack

Features = list[NDArray[np.float32]]
Progress = Callable[[int], None]


def extract_features(
    extractor: FeatureExtractor,
    samples: Sequence[Sample],
    *,
    batch: int | None = None,
    threads: int = 2,
    limits: ImageLimits | None = None,
    progress: Progress = lambda done: None,
) -> Features:
    """(n, d) float32 features a level, in the order of the samples. Raises SourceError naming an unreadable image.

    `progress` is told of every batch: how many images it had.
    """
    limits = limits or ImageLimits()
    if not samples:
        return [np.empty((0, width), np.float32) for width in extractor.spec.channels]
    parts: list[list[NDArray[np.float32]]] = []
    for images in _batches(extractor, samples, batch or extractor.batch_size, threads, limits):
        parts.append(extractor.extract(stack(images)))
        progress(len(images))
    return [np.concatenate([part[level] for part in parts]) for level in range(len(extractor.spec.levels))]


def _batches(
    extractor: FeatureExtractor, samples: Sequence[Sample], batch: int, threads: int, limits: ImageLimits
) -> Iterator[list[torch.Tensor]]:
    def load(sample: Sample) -> torch.Tensor:
        try:
            frame = sample.frame()
            return preprocess_one(decode(frame.data, frame.encoding, limits), extractor.spec.input_size)
        except ImageError as error:
            raise SourceError(f"image {sample.path}: {error.detail}") from None

    with ThreadPoolExecutor(threads, "decode") as pool:
        ahead: deque[Future[torch.Tensor]] = deque()
        waiting = iter(samples)
        images: list[torch.Tensor] = []
        try:
            while True:
                while len(ahead) < 2 * batch and (sample := next(waiting, None)) is not None:
                    ahead.append(pool.submit(load, sample))
                if not ahead:
                    break
                images.append(ahead.popleft().result())
                if len(images) == batch:
                    yield images
                    images = []
            if images:
                yield images
        finally:
            for future in ahead:
                future.cancel()
