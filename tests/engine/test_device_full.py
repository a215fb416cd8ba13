"""A device that has no memory for a batch: the batch is halved, later ones are smaller, and no frame is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from gaussline.worker.broker.intake import Message
from gaussline.worker.contract.frame import Frame
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.engine.batcher import Batcher
from gaussline.worker.engine.compute_stage import ComputeStage
from gaussline.worker.engine.credit import Credit
from gaussline.worker.engine.handover import Handover
from gaussline.worker.engine.judge import BackboneJudge
from gaussline.worker.engine.judgement import Judgement
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.outlet import Outlet
from gaussline.worker.engine.prepare import MessageWork, PreparedFrame, Refusal
from gaussline.worker.errors import DeviceFull
from tests.engine.judges import ScriptedJudge


class Troubles(Observer):
    def __init__(self) -> None:
        self.told: list[tuple[str, BaseException]] = []

    def trouble(self, stage: str, error: BaseException) -> None:
        self.told.append((stage, error))


def frames(count: int) -> list[PreparedFrame[int]]:
    message = Message("cam1", "1-0", 1, 0, count, 1, 1, 0, b"x")
    work: MessageWork[int] = MessageWork(message, [None] * count, count)
    return [PreparedFrame(work, place, Frame(b"", "png", 1), place) for place in range(count)]


def stage(
    before: Callable[[Sequence[int]], None],
) -> tuple[ComputeStage[int], Handover[PreparedFrame[int]], Troubles]:
    handover: Handover[PreparedFrame[int]] = Handover(Batcher(8, 0.0))
    troubles = Troubles()
    compute: ComputeStage[int] = ComputeStage(
        ScriptedJudge(before),
        handover,
        Outlet(),
        Credit(100, 100),
        lanes=1,
        now_us=lambda: 0,
        observer=troubles,
        abandon=threading.Event(),
    )
    return compute, handover, troubles


def test_a_batch_that_is_too_large_is_halved_until_it_fits_and_so_are_the_next_ones() -> None:
    sizes: list[int] = []

    def before(batch: Sequence[int]) -> None:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise DeviceFull("CUDA out of memory")

    compute, handover, troubles = stage(before)
    outcomes = compute.judge(frames(8))
    assert [cast(Judgement, outcome).score for outcome in outcomes] == list(range(8))
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    assert {name for name, _ in troubles.told} == {"compute"}
    handover.put(frames(8))
    batch = handover.get(0.0)
    assert batch is not None
    assert len(batch.items) == 2, "the next batches fit at once"


def test_a_single_frame_that_does_not_fit_is_refused_and_the_worker_goes_on() -> None:
    def before(batch: Sequence[int]) -> None:
        if 3 in batch:
            raise DeviceFull("CUDA out of memory")

    compute, _, _ = stage(before)
    outcomes = compute.judge(frames(8))
    refused = [place for place, outcome in enumerate(outcomes) if isinstance(outcome, Refusal)]
    assert refused == [3]
    assert cast(Refusal, outcomes[3]).reason is Reason.INTERNAL


def test_the_backbone_says_so_and_its_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nmore")

    judge = BackboneJudge(cast(Any, SimpleNamespace()), cast(Any, SimpleNamespace()), cast(Any, None), cast(Any, full))
    with pytest.raises(DeviceFull, match="Tried to allocate 20 GiB") as caught:
        judge.judge([], [], [])
    assert "more" not in str(caught.value)
    assert emptied == [True]
