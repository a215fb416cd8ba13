"""What a worker makes of channels: who decides, who only speaks, and what it loads for that."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from gaussline.worker.broker.client import time_us
from gaussline.worker.contract.limits import ImageLimits
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.trial import CANARY, SHADOW, STABLE, Selection, Trial
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.engine.book import ModelBook
from gaussline.worker.engine.judge import BackboneJudge
from gaussline.worker.engine.judgement import Judgement
from gaussline.worker.engine.observer import Observer
from gaussline.worker.errors import ModelError
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.runtime import RuntimeChoice
from gaussline.worker.vision.scorer import PreparedModel, Scorer
from tests.learning.synthetic import SPEC, normal
from tests.rollout.conftest import Line

TRIAL = Trial(3600.0)
FRAMES = 60


class Features:
    """Stands for the backbone: an image is a row number, and its features are looked up. Counts its passes."""

    spec = SPEC
    runtime = RuntimeChoice(device="cpu")

    def __init__(self) -> None:
        self.levels = [torch.as_tensor(level) for level in normal(FRAMES, seed=7)]
        self.passes = 0

    def extract_tensors(self, batch: torch.Tensor) -> list[torch.Tensor]:
        self.passes += 1
        rows = batch[:, 0, 0, 0].long()
        return [level[rows] for level in self.levels]


class Seen(Observer):
    """Writes down what happens to models."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def model_loaded(self, name: str, version: int, digest: str, seconds: float, channel: str = STABLE) -> None:
        self.said.append(("loaded", version, channel))

    def model_dropped(self, name: str, channel: str) -> None:
        self.said.append(("dropped", channel))

    def model_refused(self, name: str, version: int, error: BaseException) -> None:
        self.said.append(("refused", version))


class Bench:
    """A book and a judge over a line whose three versions differ in what they were fitted on."""

    def __init__(self, line: Line) -> None:
        self.line = line
        line.registry.remove("default", STABLE, by="ada")  # its artefacts hold no model
        for seed, rate in ((1, 0.02), (2, 0.3), (3, 0.3)):
            model = fit_model(normal(200, seed=seed), SPEC, FitOptions(rate=rate))
            line.registry.publish("real", model.to_artefact().data, by="ada")
        self.features, self.seen = Features(), Seen()
        self.prepared: list[Model] = []
        self.refuse = False
        self.slow: Callable[[Model], PreparedModel] | None = None
        self.judge = BackboneJudge(
            cast(FeatureExtractor, self.features),
            Scorer(SPEC),
            ImageLimits(),
            lambda: self.book.page,
            allow_random=True,
            distrust=lambda ref, why: self.book.distrust(ref, why),
        )
        self.book: ModelBook[PreparedModel] = ModelBook(line.client, line.name, self.prepare, self.seen)
        line.client.hset(line.keys.cameras, "cam1", '{"model": "real"}')
        self.point(STABLE, 1)

    def prepare(self, model: Model) -> PreparedModel:
        self.prepared.append(model)
        if self.refuse:
            raise ModelError("no room")
        return self.judge.prepare(model) if self.slow is None else self.slow(model)

    def point(self, channel: str, version: int, share: float = 0.5) -> None:
        chosen = Selection(share) if channel == CANARY else None
        trial = None if channel == STABLE else TRIAL
        self.line.registry.promote("real", version, by="ada", channel=channel, selection=chosen, trial=trial)
        self.book.refresh()

    def judged(self) -> Sequence[Judgement]:
        images = [torch.full((3, 8, 8), row, dtype=torch.uint8) for row in range(FRAMES)]
        outcomes, _ = self.judge.judge(images, ["cam1"] * FRAMES, [f"cam1:1:{row}" for row in range(FRAMES)])
        assert all(isinstance(outcome, Judgement) for outcome in outcomes)
        return outcomes  # type: ignore[return-value]


@pytest.fixture
def bench(line: Line) -> Bench:
    return Bench(line)


def test_without_a_trial_nobody_else_speaks(bench: Bench) -> None:
    judged = bench.judged()
    assert {each.model.version for each in judged} == {1}
    assert all(each.opinions == () for each in judged)


def test_a_canary_decides_its_share_and_stable_speaks_of_the_same_frames(bench: Bench) -> None:
    alone = bench.judged()
    bench.point(CANARY, 2)
    before = bench.features.passes
    judged = bench.judged()
    assert bench.features.passes == before + 1, "a trial costs no second pass of the backbone"
    by_canary = [row for row, each in enumerate(judged) if each.model.channel == CANARY]
    assert by_canary == [row for row in range(FRAMES) if Selection(0.5).takes("cam1", f"cam1:1:{row}")]
    assert 15 < len(by_canary) < 45
    for row, each in enumerate(judged):
        if row in by_canary:
            (opinion,) = each.opinions
            assert (each.model.version, opinion.channel, opinion.version) == (2, STABLE, 1)
            assert (opinion.score, opinion.p_value) == (alone[row].score, alone[row].p_value)
            assert opinion.decision is (Decision.FAIL if alone[row].failed else Decision.PASS)
        else:
            assert (each.score, each.failed, each.opinions) == (alone[row].score, alone[row].failed, ())
    assert any(judged[row].failed != alone[row].failed for row in by_canary), "the two versions differ at all"


def test_a_shadow_speaks_of_every_frame_and_decides_none(bench: Bench) -> None:
    alone = bench.judged()
    bench.point(SHADOW, 2)
    bench.point(CANARY, 3, share=1.0)
    for row, each in enumerate(bench.judged()):
        stable, shadow = each.opinions
        assert (each.model.version, stable.version, shadow.version) == (3, 1, 2)
        assert stable.score == alone[row].score
    bench.line.registry.remove("real", CANARY, by="ada")
    bench.book.refresh()
    for row, each in enumerate(bench.judged()):
        (shadow,) = each.opinions
        assert (each.model.version, each.failed, shadow.channel) == (1, alone[row].failed, SHADOW)


def test_a_canary_that_is_promoted_is_on_the_device_already(bench: Bench) -> None:
    bench.point(CANARY, 2)
    loaded = len(bench.prepared)
    bench.point(STABLE, 2)
    bench.line.registry.remove("real", CANARY, by="ada")
    bench.book.refresh()
    assert len(bench.prepared) == loaded
    assert bench.seen.said == [
        ("loaded", 1, STABLE),
        ("loaded", 2, CANARY),
        ("loaded", 2, STABLE),
        ("dropped", CANARY),
    ]
    assert {each.model.version for each in bench.judged()} == {2}


def test_a_canary_that_cannot_be_loaded_decides_nothing_and_is_told(bench: Bench) -> None:
    bench.refuse = True
    bench.point(CANARY, 2)
    assert {each.model.version for each in bench.judged()} == {1}
    assert bench.book.page.refused == {"real/canary": "version 2: no room"}
    tried = len(bench.prepared)
    bench.book.refresh()
    assert len(bench.prepared) == tried, "it is not tried again and again"
    bench.refuse = False
    bench.point(CANARY, 3)
    assert bench.book.page.refused == {}
    assert {each.model.version for each in bench.judged()} == {1, 3}


def test_a_refused_promotion_leaves_the_version_before_in_its_place(bench: Bench) -> None:
    bench.refuse = True
    bench.point(STABLE, 2)
    assert {each.model.version for each in bench.judged()} == {1}
    assert "no room" in bench.book.page.refused["real"]
    bench.point(STABLE, 1)
    assert bench.book.page.refused == {}, "the pointer came back"


@pytest.mark.parametrize("channel", [STABLE, CANARY, SHADOW])
def test_a_version_that_the_device_or_a_library_fails_on_holds_up_no_other(bench: Bench, channel: str) -> None:
    """No room on a GPU is no error of ours; it must not keep what judges from being replaced."""
    plain = bench.judge.prepare

    def full(model: Model) -> PreparedModel:
        raise torch.OutOfMemoryError("CUDA out of memory")

    bench.slow = full
    bench.point(channel, 2)
    key = "real" if channel == STABLE else f"real/{channel}"
    assert "out of memory" in bench.book.page.refused[key]
    assert bench.seen.said[-1] == ("refused", 2)
    assert {each.model.version for each in bench.judged()} == {1}
    bench.slow = plain
    bench.point(STABLE, 3)
    assert {each.model.version for each in bench.judged()} == {3}


def test_a_promotion_does_not_wait_for_the_load_of_a_trial(bench: Bench) -> None:
    plain, seen = bench.judge.prepare, []

    def slow(model: Model) -> PreparedModel:
        seen.append({each.model.version for each in bench.judged()})
        return plain(model)

    bench.slow = slow
    bench.line.registry.promote("real", 3, by="ada", channel=CANARY, selection=Selection(0.5), trial=TRIAL)
    bench.point(STABLE, 2)
    assert seen == [{1}, {2}], "while the canary loads, what was promoted judges already"
    assert {each.model.version for each in bench.judged()} == {2, 3}


def test_another_canary_does_not_lend_its_share_to_the_one_before(bench: Bench) -> None:
    bench.point(CANARY, 2, share=0.1)
    plain, seen = bench.judge.prepare, []

    def slow(model: Model) -> PreparedModel:
        seen.append(sum(each.model.channel == CANARY for each in bench.judged()))
        return plain(model)

    bench.slow = slow
    bench.line.registry.promote("real", 3, by="ada", channel=CANARY, selection=Selection(1.0), trial=TRIAL)
    bench.book.refresh()
    assert max(seen) < FRAMES / 2


@pytest.mark.parametrize("channel", [CANARY, SHADOW])
def test_a_version_on_trial_that_cannot_score_costs_no_verdict_and_is_refused(bench: Bench, channel: str) -> None:
    alone = bench.judged()
    model = fit_model(normal(200, seed=4), SPEC, FitOptions(rate=0.1))
    huge = tuple(replace(level, whitening=level.whitening * 1e30) for level in model.gaussians)
    broken = replace(model, gaussians=huge)
    bench.line.registry.publish("real", broken.to_artefact().data, by="ada")
    bench.point(channel, 4, share=1.0)
    assert [(each.model.version, each.score) for each in bench.judged()] == [(1, each.score) for each in alone]
    bench.book.refresh()
    assert "not finite" in bench.book.page.refused[f"real/{channel}"], "so that the roll-out judge ends the trial"
    assert all(each.opinions == () for each in bench.judged())
    bench.point(channel, 2, share=1.0)
    assert bench.book.page.refused == {}


def test_a_load_that_takes_long_holds_up_no_frame_and_is_told(bench: Bench) -> None:
    """While a version loads, the one before judges; after two seconds the worker says that it is behind."""
    moved_us = time_us(bench.line.client)
    gate, loading = threading.Event(), threading.Event()
    plain = bench.judge.prepare

    def slow(model: Model) -> PreparedModel:
        loading.set()
        assert gate.wait(20.0)
        return plain(model)

    bench.slow = slow
    turning = threading.Thread(target=bench.point, args=(STABLE, 2))
    turning.start()
    assert loading.wait(20.0)
    assert {each.model.version for each in bench.judged()} == {1}
    assert bench.book.behind(moved_us) == []
    (said,) = bench.book.behind(moved_us + 5_000_000)
    assert "version 2: promoted" in said
    assert "version 1 judges" in said
    assert "version 2" in bench.book.behind(moved_us - 3_600_000_000)[0], "the clock went back since"
    gate.set()
    turning.join()
    assert {each.model.version for each in bench.judged()} == {2}
    assert bench.book.behind(moved_us + 5_000_000) == []


@pytest.mark.parametrize(
    "harm", ["tampered chunk", "torn chunk", "missing chunk", "missing manifest", "another digest"]
)
def test_a_version_that_is_not_whole_is_never_half_loaded(bench: Bench, harm: str) -> None:
    before = bench.judged()
    keys, client = bench.line.keys, bench.line.client
    digest = bench.line.registry.version("real", 2).digest
    chunk = keys.blob(json.loads(client.get(keys.artefact(digest)))["chunks"][-1])
    data = client.get(chunk)
    bench.line.registry.promote("real", 2, by="ada")
    if harm == "tampered chunk":
        client.set(chunk, data[:-1] + bytes([data[-1] ^ 1]))
    elif harm == "torn chunk":
        client.set(chunk, data[:-100])
    elif harm == "missing chunk":
        client.delete(chunk)
    elif harm == "missing manifest":
        client.delete(keys.artefact(digest))
    else:
        client.set(keys.artefact(digest), client.get(keys.artefact(bench.line.registry.version("real", 3).digest)))
    bench.book.refresh()
    after = bench.judged()
    assert [(each.model.version, each.score) for each in after] == [(1, each.score) for each in before]
    assert bench.seen.said[-1] == ("refused", 2)
    (said,) = bench.book.behind(0)
    assert said.startswith("model real version 2: ")
    bench.point(STABLE, 3)
    assert {each.model.version for each in bench.judged()} == {3}
    assert bench.book.behind(2**53) == []


def test_scores_are_the_models_own(bench: Bench) -> None:
    """What a canary's verdict says is what its version says of the frame alone."""
    bench.point(CANARY, 2, share=1.0)
    judged = bench.judged()
    model = bench.book.page.canaries["real"][0].model
    reference = model.scores([level.numpy() for level in bench.features.levels])
    assert np.allclose([each.score for each in judged], reference, rtol=1e-4)
