"""Where defects are: heat maps of chosen images for a report, and pixel metrics of all of them where masks exist."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.heat_map import Explanation
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import FitError, ImageError, SourceError
from gaussline.worker.gaussian.calibration import Method, WorkingPoint
from gaussline.worker.gaussian.pixels import PRO_LIMIT, PixelScores
from gaussline.worker.learning.category import Category, Extraction
from gaussline.worker.learning.content_store import ContentStore
from gaussline.worker.learning.dataset import ENCODINGS, Sample
from gaussline.worker.learning.evaluation import Run
from gaussline.worker.learning.features import image_batches
from gaussline.worker.learning.fit import Fitted
from gaussline.worker.learning.map_cache import MapCache
from gaussline.worker.learning.result_table import ResultTable
from gaussline.worker.learning.survey import SHOWN
from gaussline.worker.vision.decode import decode
from gaussline.worker.vision.heatmap import HeatMap, combined, explain
from gaussline.worker.vision.preprocess import stack

Mask = NDArray[np.bool_]
CHUNK = 32
"""Images that are looked up, and where they must be computed, at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """One image, as the network saw it, and where its score comes from.

    Attributes:
        image: uint8 (H, W, 3) at the input size.
    """

    sample: Sample
    image: NDArray[np.uint8]
    map: HeatMap


def explained(
    category: Category,
    rows: NDArray[np.intp],
    extraction: Extraction,
    run: Run,
    *,
    store: ContentStore | None = None,
    threads: int = 2,
) -> Iterator[Explained]:
    """Heat maps of a category's rows, in their order, under a run's own fit; with the images as the network saw them.

    Args:
        store: where maps are kept; what is there needs no pass of the backbone.
    """
    samples = [category.data.samples[row] for row in rows]
    read = image_batches(samples, extraction.spec.input_size, CHUNK, threads=threads)
    images = (image for _, some in read for image in some)
    found = heat_maps(category, rows, extraction, run, store=store, threads=threads)
    for sample, image, one in zip(samples, images, found, strict=True):
        yield Explained(sample, image.permute(1, 2, 0).contiguous().numpy(), one)


def heat_maps(
    category: Category,
    rows: NDArray[np.intp],
    extraction: Extraction,
    run: Run,
    *,
    store: ContentStore | None = None,
    threads: int = 2,
) -> Iterator[HeatMap]:
    """The same without the images: where all maps are kept, none is read."""
    model = _model(extraction.spec, run)
    kept = None if store is None else MapCache(store, extraction.spec, extraction.mode, _fitted(run))
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK].tolist()
        known = {row: None if kept is None else kept.get(category.digests[row]) for row in some}
        fresh = [row for row, one in known.items() if one is None]
        for row, explanation in zip(fresh, _computed(category, fresh, extraction, model, threads), strict=True):
            # Rounded as a file would: a second run is to find the very same numbers.
            known[row] = Explanation.from_bytes(explanation.to_bytes())
            if kept is not None:
                kept.put(category.digests[row], explanation)
        yield from (combined(one) for row in some if (one := known[row]) is not None)


def _computed(
    category: Category, rows: Sequence[int], extraction: Extraction, model: Model, threads: int
) -> Iterator[Explanation]:
    if not rows:
        return
    extractor = extraction.extractor
    samples = [category.data.samples[row] for row in rows]
    for _, images in image_batches(samples, extractor.spec.input_size, extractor.batch_size, threads=threads):
        features, maps = extractor.extract_with_maps(stack(images))
        pooled = [level.cpu().numpy() for level in features]
        for index in range(len(images)):
            yield explain(model, [level[index] for level in pooled], maps.of(index))


def read_masks(category: Category) -> dict[Path, Mask]:
    """Image file -> its mask as stored: True where it is defective, over half of the mask's largest value.

    Raises SourceError, naming all of them, where a mask cannot be read, is empty, or has another size than its image.
    """
    masks: dict[Path, Mask] = {}
    wrong = []
    for sample, size in zip(category.data.samples, category.sizes, strict=True):
        if sample.mask is None or sample.normal:
            continue
        try:
            data = sample.mask.read_bytes()
            pixels = decode(data, ENCODINGS.get(sample.mask.suffix.lower(), "png"), ImageLimits()).max(axis=2)
        except ImageError as error:
            wrong.append(f"mask {sample.mask}: {error.detail}")
            continue
        except OSError as error:
            wrong.append(f"mask {sample.mask}: {error.strerror or error}")
            continue
        if pixels.shape != size:
            told = f"{pixels.shape[1]}x{pixels.shape[0]} pixels, its image {sample.path.name} {size[1]}x{size[0]}"
            wrong.append(f"mask {sample.mask} has {told}")
        elif not pixels.any():
            wrong.append(f"mask {sample.mask} marks nothing")
        else:
            masks[sample.path] = pixels > pixels.max() / 2
    if wrong:
        more = [f"… and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
        raise SourceError("\n".join(["masks do not fit (--no-pixels leaves them aside):", *wrong[:SHOWN], *more]))
    return masks


def shrunk(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask at another size: a pixel is defective where at least half of it is, and the most covered one always is.

    So a defect that is smaller than a pixel of the network's input does not vanish from the count.
    """
    rows, columns = _cover(mask.shape[0], size[0]), _cover(mask.shape[1], size[1])
    covered = rows @ mask.astype(np.float64) @ columns.T
    fits: Mask = (covered >= 0.5) | (covered >= covered.max() - 1e-12)
    return fits


def pixel_table(
    category: Category,
    run: Run,
    extraction: Extraction,
    masks: dict[Path, Mask],
    *,
    seed: int,
    store: ContentStore | None = None,
    threads: int = 2,
    progress: Callable[[int], None] = lambda done: None,
) -> ResultTable:
    """Pixel AUROC and PRO of the exact heat map, over the run's test images that are normal or have a mask."""
    samples = category.data.samples
    rows = np.concatenate([run.plan.normal, run.plan.defective])
    rows = np.array([row for row in rows if samples[row].normal or samples[row].path in masks], np.intp)
    scores = PixelScores(np.random.default_rng(seed))
    for row, one in zip(rows, heat_maps(category, rows, extraction, run, store=store, threads=threads), strict=True):
        mask = masks.get(samples[row].path)
        scores.add(one.combined, None if mask is None else shrunk(mask, extraction.spec.input_size))
        progress(1)
    found = scores.result()
    return ResultTable(
        "pixels",
        "Where the defects are",
        ("map", "pixel AUROC", f"PRO up to {PRO_LIMIT:g} FPR", "images with a mask", "regions"),
        [["exact heat map", found.auroc, found.pro, found.frames, found.regions]],
        f"At the network's input size, over the first run's test images. PRO: overlap a connected region, up to a "
        f"false-positive rate of {PRO_LIMIT:g}.",
    )


def masked(run: Run, category: Category, masks: dict[Path, Mask]) -> int:
    """How many images `pixel_table` will go through."""
    return run.plan.normal.size + sum(category.data.samples[row].path in masks for row in run.plan.defective)


def _model(spec: BackboneSpec, run: Run) -> Model:
    """The run's fit as a model. A map needs no working point; this one is the median of the run's normal scores."""
    fitted = _fitted(run)
    scores = np.sort(run.combined_normal)
    point = WorkingPoint(Method.EMPIRICAL, 0.5, float(np.median(scores)), scores)
    return Model(spec, fitted.gaussians, fitted.combination, point)


def _fitted(run: Run) -> Fitted:
    if run.fitted is None:
        raise FitError("only the first run of a category keeps its fit")
    return run.fitted


def _cover(cells: int, pixels: int) -> NDArray[np.float64]:
    """(pixels, cells): the share of each pixel that each cell covers; rows add up to one."""
    edges = np.linspace(0.0, cells, pixels + 1)
    low, high = edges[:-1, None], edges[1:, None]
    cell = np.arange(cells)[None]
    overlap: NDArray[np.float64] = np.clip(np.minimum(high, cell + 1.0) - np.maximum(low, cell), 0.0, None)
    return overlap / (high - low)
