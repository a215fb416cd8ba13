"""Choosing how to run, with a clock and a backbone that the test controls."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from gaussline.worker.errors import SettingsError
from gaussline.worker.vision import runtime
from gaussline.worker.vision.backbones import Backbone, load_backbone
from gaussline.worker.vision.features import FeatureExtractor
from gaussline.worker.vision.runtime import RuntimeChoice, choose_runtime, resolve_device
from gaussline.worker.vision.weights import WeightsSource


def small(mode: str = "float32") -> Backbone:
    return load_backbone(
        "squeezenet1_1", WeightsSource(random_seed=0), levels=["features.1"], input_size=(32, 32), numeric_mode=mode
    )


class Bench:
    """Lets every pass take as long as a table says: seconds by layout and batch size."""

    def __init__(self, seconds: Callable[[str, int, bool], float], memory: int = 10**6) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.memory = memory

    def clock(self) -> float:
        return self.now

    def prepared(self, backbone: Backbone, choice: RuntimeChoice) -> tuple[Backbone, runtime.Forward]:
        def run(x: torch.Tensor) -> list[torch.Tensor]:
            if len(x) > self.memory:
                raise torch.OutOfMemoryError("CUDA out of memory")
            self.now += self.seconds(choice.memory_format, len(x), choice.compiled)
            return [torch.ones(len(x), 4)]

        return backbone, run


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    def make(seconds: Callable[[str, int, bool], float], memory: int = 10**6) -> Bench:
        made = Bench(seconds, memory)
        monkeypatch.setattr(runtime, "prepared", made.prepared)
        return made

    return make


def test_the_knee_is_the_smallest_batch_that_is_as_good(bench: Callable[..., Bench]) -> None:
    # Rates of channels_last: 100, 160, 230, 240, 200, 160; of contiguous half of it.
    rates = {1: 100, 2: 160, 4: 230, 8: 240, 16: 200, 32: 160}
    made = bench(lambda layout, size, compiled: size / rates[size] * (1 if layout == "channels_last" else 2))
    choice = choose_runtime(small(), device="cpu", clock=made.clock)
    assert (choice.memory_format, choice.batch_size, choice.compiled) == ("channels_last", 4, False)
    assert choice.images_per_second == pytest.approx(230)
    assert {found.batch_size for found in choice.measured} == {1, 2, 4, 8, 16, 32}
    assert json.loads(json.dumps(choice.to_dict()))["batch_size"] == 4
    assert str(choice) == "cpu, channels_last, batch 4, 230 images/s"


def test_the_other_layout_is_taken_where_it_is_faster(bench: Callable[..., Bench]) -> None:
    made = bench(lambda layout, size, compiled: 0.01 * size * (1 if layout == "contiguous" else 3))
    choice = choose_runtime(small(), device="cpu", clock=made.clock)
    assert (choice.memory_format, choice.batch_size) == ("contiguous", 1)
    assert max(found.batch_size for found in choice.measured) == 4  # nothing gained twice: no need to go on


def test_what_is_set_is_not_measured(bench: Callable[..., Bench]) -> None:
    made = bench(lambda layout, size, compiled: 0.01 * size)
    choice = choose_runtime(small(), device="cpu", memory_format="contiguous", batch_size=6, clock=made.clock)
    assert [(found.memory_format, found.batch_size) for found in choice.measured] == [("contiguous", 6)]


def test_bfloat16_keeps_its_layout(bench: Callable[..., Bench]) -> None:
    made = bench(lambda layout, size, compiled: 0.01 * size * (1 if layout == "contiguous" else 3))
    choice = choose_runtime(small("bfloat16"), device="cpu", clock=made.clock)
    assert {found.memory_format for found in choice.measured} == {"channels_last"}
    with pytest.raises(SettingsError, match="would move the features"):
        choose_runtime(small("bfloat16"), device="cpu", memory_format="contiguous", clock=made.clock)


def test_memory_ends_the_climb(bench: Callable[..., Bench]) -> None:
    made = bench(lambda layout, size, compiled: 0.01, memory=8)
    assert choose_runtime(small(), device="cpu", clock=made.clock).batch_size == 8


@pytest.mark.parametrize(("factor", "taken"), [(0.5, True), (0.95, False)])
def test_compiling_is_taken_where_it_gains(bench: Callable[..., Bench], factor: float, taken: bool) -> None:
    made = bench(lambda layout, size, compiled: 0.01 * size * (factor if compiled else 1))
    choice = choose_runtime(small(), device="cpu", compile="auto", clock=made.clock)
    assert choice.compiled is taken
    assert ("not taken" in choice.note) is not taken
    assert choose_runtime(small(), device="cpu", compile="on", clock=made.clock).compiled


def test_compiling_that_moves_features_is_never_taken(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(lambda layout, size, compiled: 0.01 * size * (0.1 if compiled else 1))

    def moved(backbone: Backbone, choice: RuntimeChoice) -> tuple[Backbone, runtime.Forward]:
        _, run = made.prepared(backbone, choice)
        return backbone, lambda x: [level * (1.0 + 1e-4 * choice.compiled) for level in run(x)]

    monkeypatch.setattr(runtime, "prepared", moved)
    choice = choose_runtime(small(), device="cpu", compile="on", clock=made.clock)
    assert not choice.compiled
    assert "moves features by 1.0e-04" in choice.note


def test_a_compiler_that_fails_is_said_and_done_without(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(lambda layout, size, compiled: 0.01 * size)

    def fails(backbone: Backbone, choice: RuntimeChoice) -> tuple[Backbone, runtime.Forward]:
        if choice.compiled:
            raise RuntimeError("no C++ compiler\nand a long story")
        return made.prepared(backbone, choice)

    monkeypatch.setattr(runtime, "prepared", fails)
    choice = choose_runtime(small(), device="cpu", compile="auto", clock=made.clock)
    assert choice.note == "torch.compile failed: RuntimeError: no C++ compiler"
    assert not choice.compiled


def test_settings_that_make_no_sense_are_refused() -> None:
    for name, value in (("memory_format", "rows"), ("compile", "yes"), ("device", "gpu"), ("device", "mps")):
        with pytest.raises(SettingsError, match=f"{name} = '{value}'"):
            choose_runtime(small(), **{"device": "cpu", name: value})  # type: ignore[arg-type]
    if not torch.cuda.is_available():
        assert resolve_device("auto") == "cpu"
        with pytest.raises(SettingsError, match="torch sees 0 CUDA devices"):
            resolve_device("cuda:0")


def test_a_real_probe_gives_a_choice_that_runs() -> None:
    backbone = small()
    choice = choose_runtime(backbone, device="cpu", budget_s=0.05)
    assert choice.images_per_second is not None
    assert choice.images_per_second > 0
    features = FeatureExtractor(backbone, choice).extract(torch.zeros(3, 3, 32, 32, dtype=torch.uint8))
    assert features[0].shape == (3, 64)
    assert np.isfinite(features[0]).all()


# --- lanes -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def threads() -> Iterator[None]:
    """Give torch its number of threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def table(monkeypatch: pytest.MonkeyPatch, rate: Callable[[str, int, int], float]) -> list[tuple[int, int, int]]:
    """Let the probe read images a second by layout, batch size and lanes off a table; (size, lanes, threads) tried."""
    tried = []

    def read(self: object, layout: str, size: int, compiled: bool, lanes: int = 1) -> float:
        tried.append((size, lanes, torch.get_num_threads()))
        return rate(layout, size, lanes)

    monkeypatch.setattr(runtime._Probe, "_rate", read)
    return tried


@pytest.mark.parametrize(
    ("cores", "plans"), [(1, (1,)), (2, (1, 2)), (3, (1, 3)), (4, (1, 2, 4)), (8, (1, 2, 8)), (16, (1, 4, 16))]
)
def test_few_plans_span_the_cores(cores: int, plans: tuple[int, ...]) -> None:
    assert runtime.lane_plans(cores) == plans


def test_lanes_are_taken_where_they_are_faster_and_share_the_threads(
    monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    tried = table(monkeypatch, lambda layout, size, lanes: (100 + size * (size <= 4)) * (1.5 if lanes == 4 else 1.0))
    choice = choose_runtime(small(), device="cpu", memory_format="channels_last", threads=4, lanes=None)
    assert (choice.lanes, choice.threads) == (4, 1)
    assert str(choice) == "cpu, channels_last, batch 1, 4 lanes of 1 thread(s), 152 images/s"
    assert {(lanes, each) for _, lanes, each in tried} == {(1, 4), (2, 2), (4, 1)}
    assert torch.get_num_threads() == 1


def test_of_plans_that_are_as_good_the_quickest_batch_is_taken(monkeypatch: pytest.MonkeyPatch, threads: None) -> None:
    """Four lanes give 2 % more, and let every frame wait four times as long."""
    table(monkeypatch, lambda layout, size, lanes: 102.0 if lanes == 4 else 100.0)
    choice = choose_runtime(small(), device="cpu", threads=4, lanes=None)
    assert (choice.lanes, choice.threads, choice.batch_size) == (1, 4, 1)


def test_lanes_that_are_set_are_not_measured_and_a_caller_with_one_thread_has_one(
    monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    tried = table(monkeypatch, lambda layout, size, lanes: 100.0)
    assert choose_runtime(small(), device="cpu", threads=4, lanes=3).lanes == 3
    assert {lanes for _, lanes, _ in tried} == {3}
    assert choose_runtime(small(), device="cpu", threads=4).lanes == 1


def test_a_pass_that_fails_in_a_lane_ends_the_probe(monkeypatch: pytest.MonkeyPatch, threads: None) -> None:
    def fails(backbone: Backbone, choice: RuntimeChoice) -> tuple[Backbone, runtime.Forward]:
        def run(x: torch.Tensor) -> list[torch.Tensor]:
            raise RuntimeError("no such kernel")

        return backbone, run

    monkeypatch.setattr(runtime, "prepared", fails)
    with pytest.raises(RuntimeError, match="no such kernel"):
        choose_runtime(small(), device="cpu", threads=2, lanes=2, budget_s=0.05)


def test_features_are_the_same_whatever_runs_in_the_lane_beside(threads: None) -> None:
    backbone = small()
    choice = choose_runtime(backbone, device="cpu", threads=2, lanes=2, budget_s=0.05)
    assert choice.lanes == 2
    extract = FeatureExtractor(backbone, choice)
    noise = torch.Generator().manual_seed(1)
    batches = [torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=noise) for _ in range(40)]
    alone = [extract.extract(batch)[0] for batch in batches]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda batch: extract.extract(batch)[0], batches))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
