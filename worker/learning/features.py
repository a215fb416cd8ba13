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
Unreadable = Callable[[Sample, str], None]


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
    if not samples:
        return [np.empty((0, width), np.float32) for width in extractor.spec.channels]
    parts = []
    for read, features in feature_batches(extractor, samples, batch=batch, threads=threads, limits=limits):
        parts.append(features)
        progress(len(read))
    return [np.concatenate([part[level] for part in parts]) for level in range(len(extractor.spec.levels))]


def feature_batches(
    extractor: FeatureExtractor,
    samples: Sequence[Sample],
    *,
    batch: int | None = None,
    threads: int = 2,
    limits: ImageLimits | None = None,
    unreadable: Unreadable | None = None,
) -> Iterator[tuple[list[Sample], Features]]:
    """Batch after batch: its samples, and their (n, d) float32 features a level.

    `unreadable` is told of an image that cannot be decoded, which is then left out; without it SourceError is raised.
    """
    for read, images in image_batches(
        samples,
        extractor.spec.input_size,
        batch or extractor.batch_size,
        threads=threads,
        limits=limits,
        unreadable=unreadable,
    ):
        yield read, extractor.extract(stack(images))


def image_batches(
    samples: Sequence[Sample],
    input_size: tuple[int, int],
    batch: int,
    *,
    threads: int = 2,
    limits: ImageLimits | None = None,
    unreadable: Unreadable | None = None,
) -> Iterator[tuple[list[Sample], list[torch.Tensor]]]:
    """Batch after batch: its samples, and their uint8 (3, h, w) images at the network's input size."""
    limits = limits or ImageLimits()

    def load(sample: Sample) -> torch.Tensor | str:
        try:
            frame = sample.frame()
            return preprocess_one(decode(frame.data, frame.encoding, limits), input_size)
        except ImageError as error:
            return error.detail
        except SourceError as error:
            return str(error)

    with ThreadPoolExecutor(threads, "decode") as pool:
        ahead: deque[tuple[Sample, Future[torch.Tensor | str]]] = deque()
        waiting = iter(samples)
        read: list[Sample] = []
        images: list[torch.Tensor] = []
        try:
            while True:
                while len(ahead) < 2 * batch and (sample := next(waiting, None)) is not None:
                    ahead.append((sample, pool.submit(load, sample)))
                if not ahead:
                    break
                sample, future = ahead.popleft()
                image = future.result()
                if isinstance(image, str):
                    if unreadable is None:
                        raise SourceError(f"image {sample.path}: {image}")
                    unreadable(sample, image)
                    continue
                read.append(sample)
                images.append(image)
                if len(images) == batch:
                    yield read, images
                    read, images = [], []
            if images:
                yield read, images
        finally:
            for _, future in ahead:
                future.cancel()
