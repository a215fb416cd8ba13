"""From a promoted model to a judge: the same for a worker and for the isolated process beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.seal import open_seal
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.contract.model import Model
from gaussline.worker.engine.book import ModelBook
from gaussline.worker.engine.judge import BackboneJudge
from gaussline.worker.engine.maps import MapDesk
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.recheck import weights_for
from gaussline.worker.settings import Settings
from gaussline.worker.vision.backbones import load_for
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.runtime import RuntimeChoice, choose_runtime
from gaussline.worker.vision.scorer import PreparedModel, Scorer


@dataclass(frozen=True, slots=True)
class Loaded:
    """A judge and what it hangs on."""

    judge: BackboneJudge
    book: ModelBook[PreparedModel]
    runtime: RuntimeChoice


def load_judge(
    settings: Settings,
    model: Model,
    client: Redis,
    observer: Observer,
    *,
    runtime: RuntimeChoice | None = None,
    map_desk: Callable[[RuntimeChoice], MapDesk | None] = lambda runtime: None,
) -> Loaded:
    """Load the model's backbone and every promoted model.

    Args:
        runtime: how to run it; None measures.
        map_desk: makes what takes failed frames for their heat maps.

    Raises GausslineError: a wrong weights file, a device that is not there, Redis away.
    """
    backbone = load_for(model.spec, weights_for(model.spec, settings))
    chosen = runtime or choose_runtime(
        backbone,
        device=settings.device,
        memory_format=settings.memory_format,
        compile=settings.compile,
        batch_size=settings.batch_max_frames,
        threads=settings.torch_threads,
        lanes=settings.compute_lanes,
    )
    judge = BackboneJudge(
        FeatureExtractor(backbone, chosen),
        Scorer(model.spec, chosen.device),
        image_limits(settings),
        lambda: book.page,
        write_features=settings.features != "off",
        allow_random=settings.allow_random_weights,
        maps=map_desk(chosen),
        distrust=lambda ref, why: book.distrust(ref, why),
    )
    book = ModelBook(
        client, settings.line, judge.prepare, observer, worker_set=settings.worker_set, seal=open_seal(settings)
    )
    book.refresh()
    return Loaded(judge, book, chosen)


def image_limits(settings: Settings) -> ImageLimits:
    """Bounds of one image, from the settings."""
    return ImageLimits(settings.image_max_bytes, settings.image_max_pixels, settings.image_max_side)
