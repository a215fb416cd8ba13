"""What heat maps cost the verdict path: one worker, maps off and on by turns, one frame in twenty failing.

    python -m bench.heat_maps [--backbone NAME] [--weights FILE] [--grid N] [--rounds N] [--frames N] [--share 0.05]

Every round pushes the same frames into a real Redis and lets the same worker drain them at full load; the order of off
and on changes with each round, so that a machine that warms up or slows down favours neither. The working point is set
between the scores, so that exactly the wanted share fails. CPU times are told too: where others use the machine, they
say more than the clock. Ends with 1 where maps cost more than 3 % by the clock.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import torch

from bench.line import LINE, push
from gaussline.producer.sources.synthetic import SyntheticParts
from gaussline.worker.broker.client import connect, time_us
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.heat_maps import HeatMaps
from gaussline.worker.broker.intake import Intake
from gaussline.worker.broker.settle import Settler
from gaussline.worker.commands.fit import DEFAULT_GRID
from gaussline.worker.contract.frame import Frame
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.limits import ImageLimits, MessageLimits
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.verdict import ModelRef
from gaussline.worker.engine.book import Entry, Page
from gaussline.worker.engine.clock import RedisClock
from gaussline.worker.engine.judge import BackboneJudge
from gaussline.worker.engine.maps import MapDesk
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.worker import Worker, WorkerConfig
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.preprocess import preprocess_one, stack
from gaussline.worker.vision.runtime import choose_runtime
from gaussline.worker.vision.scorer import PreparedModel, Scorer
from gaussline.worker.vision.weights import WeightsSource

SEED = 3
MOST = 0.03
"""Largest share of the verdicts' time that maps may cost."""
WAITING = 16


class Count(Observer):
    """What became of the maps."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()

    def heat_map(self, outcome: str, seconds: float) -> None:
        self.outcomes[outcome] += 1


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights")
    parser.add_argument("--grid", type=int, default=DEFAULT_GRID, help="regions a side, as of 'gaussline fit'")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--frames", type=int, default=400, help="frames of one side of a round")
    parser.add_argument("--share", type=float, default=0.05, help="share of frames that fail")
    asked = parser.parse_args()
    source = WeightsSource.parse(asked.weights) if asked.weights else WeightsSource(random_seed=SEED)
    backbone = load_backbone(asked.backbone, source, grid=asked.grid)
    runtime = choose_runtime(backbone, lanes=None)
    extractor = FeatureExtractor(backbone, runtime)
    print(f"{asked.backbone}: {runtime}; Redis in memory, fsync off; {asked.share:.0%} of frames fail")

    parts = SyntheticParts(SEED, size=256, defect_share=0.0)
    images = [parts.render(index).image for index in range(160)]
    size = extractor.spec.input_size
    features = extractor.extract(stack([preprocess_one(image, size) for image in images]))
    model = fit_model(features, extractor.spec, FitOptions(rate=0.1))
    model = at_share(model, features, asked.share)
    frames = [
        Frame(image.tobytes(), "raw", 1_700_000_000_000_000, shape=image.shape, dtype="uint8") for image in images
    ]
    with EmbeddedRedis() as server:
        return measure(server.url, extractor, model, frames, asked)


def at_share(model: Model, features: list[np.ndarray], share: float) -> Model:
    """The model with its working point between the scores, so that this share of the frames fails."""
    ordered = np.sort(model.scores(list(features)))
    place = len(ordered) - round(share * len(ordered))
    return replace(
        model, working_point=replace(model.working_point, threshold=float(ordered[place - 1 : place + 1].mean()))
    )


def measure(url: str, extractor: FeatureExtractor, model: Model, frames: list[Frame], asked: argparse.Namespace) -> int:
    """The rounds, and what comes of them."""
    scorer = Scorer(extractor.spec)
    page: Page[PreparedModel] = Page(
        {"default": Entry(ModelRef("default", 1, "0" * 64), model, scorer.prepare(model))}, {}, {}
    )
    judge = BackboneJudge(extractor, scorer, ImageLimits(), lambda: page, allow_random=True)
    count = Count()
    desk = MapDesk(
        HeatMaps(connect(url), LINE).put,
        waiting=WAITING,
        observer=count,
        begin_thread=lambda: judge.begin_thread(computes=False),
    )
    client = connect(url)
    runtime = extractor.runtime
    worker: Worker[torch.Tensor] = Worker(
        Intake(connect(url), LINE, "bench"),
        Settler(connect(url), LINE),
        judge,
        WorkerConfig(
            LINE,
            "bench",
            runtime.batch_size,
            0.01,
            64 * 2**20,
            2,
            1.0,
            10.0,
            0.01,
            MessageLimits(),
            lanes=runtime.lanes,
        ),
        now_us=RedisClock(lambda: time_us(client)),
    )
    desk.start()
    worker.start()
    verdicts = Keys(LINE).verdicts
    seconds: dict[bool, list[float]] = {False: [], True: []}
    cpu_ms: dict[bool, list[float]] = {False: [], True: []}
    ratios = []
    for number in range(asked.rounds + 1):
        took = {}
        for on in (False, True) if number % 2 else (True, False):
            judge.maps = desk if on else None
            before = int(client.xlen(verdicts))
            begin, worked = time.perf_counter(), time.process_time()
            push(url, f"cam{number}", frames, total=asked.frames)
            while int(client.xlen(verdicts)) < before + asked.frames:
                time.sleep(0.002)
            took[on] = time.perf_counter() - begin
            if number:
                cpu_ms[on].append(1000.0 * (time.process_time() - worked) / asked.frames)
        if number:  # the first round warms up
            for on, value in took.items():
                seconds[on].append(value)
            ratios.append(took[True] / took[False])
            print(f"round {number}: off {asked.frames / took[False]:.1f}, on {asked.frames / took[True]:.1f} frames/s")
    worker.stop()
    worker.join()
    desk.stop(10.0)
    failed = sum(fields[b"decision"] == b"fail" for _, fields in client.xrange(verdicts))
    cost = statistics.median(seconds[True]) / statistics.median(seconds[False]) - 1.0
    error = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan")
    print(f"failed {failed / int(client.xlen(verdicts)):.1%}; maps {dict(count.outcomes)}")
    print(
        f"maps cost {cost:+.1%} (medians); mean of the paired rounds {statistics.mean(ratios) - 1:+.1%} ± {error:.1%}"
    )
    off, along = statistics.median(cpu_ms[False]), statistics.median(cpu_ms[True])
    print(f"CPU of worker and producer: off {off:.2f}, on {along:.2f} ms a frame, {along / off - 1.0:+.1%} (medians)")
    return int(statistics.mean(ratios) - 1.0 > MOST)


if __name__ == "__main__":
    sys.exit(main())
