"""Heat maps beside the verdict path: made for failed frames, shed before anything is copied, never in anybody's way."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
import torch

from gaussline.worker.contract.heat_map import Explanation, reference
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.contract.verdict import ModelRef
from gaussline.worker.engine.book import Entry, Page
from gaussline.worker.engine.judge import BackboneJudge
from gaussline.worker.engine.judgement import Judgement
from gaussline.worker.engine.maps import MapDesk
from gaussline.worker.engine.observer import Observer
from gaussline.worker.errors import BrokerUnavailable
from gaussline.worker.vision.backbones import load_backbone
from gaussline.worker.vision.features import FeatureExtractor, Maps
from gaussline.worker.vision.runtime import RuntimeChoice, device_name
from gaussline.worker.vision.scorer import PreparedModel, Scorer
from gaussline.worker.vision.weights import WeightsSource
from tests.support.waiting import eventually
from tests.vision.models import fitted

REF = ModelRef("default", 1, "ab" * 32)
SIZE = 64


class Seen(Observer):
    """Counts what became of maps."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.faults: list[BaseException] = []

    def heat_map(self, outcome: str, seconds: float) -> None:
        self.outcomes[outcome] += 1

    def trouble(self, stage: str, error: BaseException) -> None:
        self.faults.append(error)

    def surprise(self, stage: str, error: BaseException) -> None:
        self.faults.append(error)


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    backbone = load_backbone(
        "resnet18", WeightsSource(random_seed=0), levels=["maxpool", "layer1"], input_size=(SIZE, SIZE)
    )
    return FeatureExtractor(backbone, RuntimeChoice(batch_size=16))


@pytest.fixture(scope="module")
def judge_of_plain_frames(extractor: FeatureExtractor) -> BackboneJudge:
    model = fitted(extractor.spec, extractor.extract(plain(120, 0)))
    scorer = Scorer(extractor.spec)
    page: Page[PreparedModel] = Page({"default": Entry(REF, model, scorer.prepare(model))}, {}, {})
    return BackboneJudge(extractor, scorer, ImageLimits(), lambda: page, allow_random=True)


def plain(number: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = 128 + 10 * torch.randn(number, 3, SIZE, SIZE, generator=generator)
    return noise.clamp(0, 255).to(torch.uint8)


def offer(desk: MapDesk, judge: BackboneJudge, frames: int) -> None:
    features, maps = judge.extractor.extract_with_maps(plain(frames, 1))
    model = judge.page().entries["default"].model
    for row in range(frames):
        desk.offer(f"cam1:1:{row}", REF, model, features, maps, row)


def test_failed_frames_alone_get_a_map_that_adds_up_to_the_verdicts_score(
    judge_of_plain_frames: BackboneJudge,
) -> None:
    stored: dict[str, bytes] = {}
    seen = Seen()
    desk = MapDesk(stored.__setitem__, waiting=4, observer=seen)
    judge = judge_of_plain_frames
    images = list(plain(3, 2))
    images[1][:, 40:52, 8:20] = 255
    judge.maps = desk
    try:
        outcomes, _ = judge.judge(images, ["cam1"] * 3, [f"cam1:1:{n}" for n in range(3)])
    finally:
        judge.maps = None
    judged = [outcome for outcome in outcomes if isinstance(outcome, Judgement)]
    failed = {f"cam1:1:{row}": one for row, one in enumerate(judged) if one.failed}
    assert "cam1:1:1" in failed
    assert len(failed) < 3
    assert {one.device for one in judged} == {device_name("cpu")}
    for name, one in zip(["cam1:1:0", "cam1:1:1", "cam1:1:2"], judged, strict=True):
        assert one.heat_map == (reference(name, REF.digest) if one.failed else None)
    for _ in failed:
        assert desk.step(0.0)
    assert seen.outcomes == {"stored": len(failed)}
    assert set(stored) == {one.heat_map for one in failed.values()}
    told = Explanation.from_bytes(stored[reference("cam1:1:1", REF.digest)])
    assert (told.frame, told.model) == ("cam1:1:1", REF)
    assert told.score == pytest.approx(failed["cam1:1:1"].score, rel=1e-4)
    assert told.distances == pytest.approx(failed["cam1:1:1"].level_scores, rel=1e-4)


def test_judging_with_maps_gives_the_same_verdicts(judge_of_plain_frames: BackboneJudge) -> None:
    judge = judge_of_plain_frames
    images, names = list(plain(5, 3)), [f"cam1:1:{n}" for n in range(5)]
    without, _ = judge.judge(images, ["cam1"] * 5, names)
    judge.maps = MapDesk(lambda name, data: None, waiting=1)
    try:
        along, _ = judge.judge(images, ["cam1"] * 5, names)
    finally:
        judge.maps = None
    scores = [[one.score for one in outcomes if isinstance(one, Judgement)] for outcomes in (without, along)]
    assert scores[0] == scores[1]


def test_in_a_burst_maps_are_shed_before_anything_is_copied(
    judge_of_plain_frames: BackboneJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: dict[str, bytes] = {}
    seen = Seen()
    desk = MapDesk(stored.__setitem__, waiting=3, observer=seen)
    copies: Counter[str] = Counter()
    clone = torch.Tensor.clone

    def counted(tensor: torch.Tensor, **options: object) -> torch.Tensor:
        copies["clone"] += 1
        return clone(tensor, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.Tensor, "clone", counted)
    offer(desk, judge_of_plain_frames, 10)
    assert seen.outcomes == {"shed": 7}
    assert copies["clone"] == 3 * 2, "two levels of the three frames that found a place"
    for _ in range(3):
        assert desk.step(0.0)
    assert seen.outcomes == {"shed": 7, "stored": 3}
    assert len(stored) == 3
    offer(desk, judge_of_plain_frames, 1)
    assert seen.outcomes["shed"] == 7, "a place is free again when its map is done"


def test_a_store_that_cannot_take_a_map_costs_that_map_alone(judge_of_plain_frames: BackboneJudge) -> None:
    seen = Seen()
    answers: list[Exception | None] = [BrokerUnavailable("away"), RuntimeError("odd"), None]

    def store(name: str, data: bytes) -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    desk = MapDesk(store, waiting=3, observer=seen)
    offer(desk, judge_of_plain_frames, 3)
    for _ in range(3):
        assert desk.step(0.0)
    assert seen.outcomes == {"refused": 1, "failed": 1, "stored": 1}
    assert [type(fault) for fault in seen.faults] == [BrokerUnavailable, RuntimeError]
    assert desk.step(0.0), "an empty desk waits for more"


def test_a_store_that_hangs_holds_up_neither_offers_nor_the_end(judge_of_plain_frames: BackboneJudge) -> None:
    release, entered = threading.Event(), threading.Event()

    def store(name: str, data: bytes) -> None:
        entered.set()
        release.wait(30.0)

    seen = Seen()
    desk = MapDesk(store, waiting=2, observer=seen)
    desk.start()
    offer(desk, judge_of_plain_frames, 5)
    assert entered.wait(10.0)
    assert seen.outcomes["shed"] == 3
    desk.stop(timeout_s=0.05)
    release.set()
    eventually(lambda: seen.outcomes["stored"] == 2, what="both maps")


def test_a_copy_outlives_its_batch(judge_of_plain_frames: BackboneJudge) -> None:
    stored: dict[str, bytes] = {}
    desk = MapDesk(stored.__setitem__, waiting=1)
    features, maps = judge_of_plain_frames.extractor.extract_with_maps(plain(2, 4))
    model = judge_of_plain_frames.page().entries["default"].model
    desk.offer("cam1:1:0", REF, model, features, Maps(maps.levels), 1)
    kept = [level[1].numpy().copy() for level in maps.levels]
    with torch.inference_mode():
        for level in maps.levels:
            level.zero_()
    desk.step(0.0)
    told = Explanation.from_bytes(stored[reference("cam1:1:0", REF.digest)])
    assert np.ptp(told.levels["layer1"]) > 0
    assert told.levels["layer1"].shape == kept[1].shape[1:]
