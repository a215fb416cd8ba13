"""The isolation stage has its process ready before a dead worker's messages come, and lets it go when none do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from gaussline.worker.broker.intake import Message
from gaussline.worker.engine import isolation_stage
from gaussline.worker.engine.isolation_stage import IsolationStage
from gaussline.worker.engine.judgement import Judgement
from gaussline.worker.engine.observer import Observer
from gaussline.worker.engine.outlet import Outlet
from gaussline.worker.engine.prepare import Refusal
from gaussline.worker.errors import GausslineError
from tests.support.waiting import eventually


class Said:
    """An isolated process that only writes down what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails = False

    def judge(self, message: Message) -> tuple[list[Judgement | Refusal], bool]:
        """Nothing of it."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Written down."""
        self.calls.append("prepare")

    def load(self) -> None:
        """Written down."""
        self.calls.append("load")
        if self.fails:
            raise GausslineError("no model is promoted")

    def close(self) -> None:
        """Written down."""
        self.calls.append("close")


@pytest.fixture
def process() -> Said:
    return Said()


@pytest.fixture
def stage(process: Said, monkeypatch: pytest.MonkeyPatch) -> Iterator[IsolationStage]:
    """It runs."""
    monkeypatch.setattr(isolation_stage, "IDLE_S", 0.01)
    monkeypatch.setattr(isolation_stage, "KEEP_S", 0.05)
    stopping = threading.Event()
    nobody: Any = None
    stage = IsolationStage(
        process,
        nobody,
        Outlet(lambda: 0.0),
        observer=Observer(),
        stopping=stopping,
        abandon=threading.Event(),
        standby_after_s=0.02,
    )
    thread = threading.Thread(target=stage.run)
    thread.start()
    yield stage
    stopping.set()
    thread.join()


def test_it_stands_by_loads_when_messages_are_expected_and_stands_by_again(
    stage: IsolationStage, process: Said
) -> None:
    eventually(lambda: process.calls == ["prepare"], what="a process that stands by, without a backbone")
    stage.expect()
    eventually(lambda: process.calls == ["prepare", "load", "close", "prepare"], what="a backbone that is let go")


def test_what_cannot_be_loaded_ends_no_stage(stage: IsolationStage, process: Said) -> None:
    process.fails = True
    stage.expect()
    eventually(lambda: "load" in process.calls, what="an attempt")
    process.fails = False
    stage.expect()
    eventually(lambda: process.calls.count("load") == 2, what="the next one")
