"""Whether a worker lives, and whether it can judge."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from gaussline.worker.engine.observer import Observer

STALE_S = 30.0
"""A stage that has not gone round its loop for so long is stuck: an idle one turns four times a second."""
STAGES = ("intake", "compute", "settle", "watch")
"""Whose loops are watched. Before they begin, a worker waits for a model or loads one: to start it again helps neither,
and whether it can judge is the other question."""
ANSWER_S = 0.5
"""Longest wait for a readiness check; who asks must have an answer within a second, whatever Redis does."""


class Health(Observer):
    """Remembers when each stage last went round its loop, or said why it cannot."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        stale_s: float = STALE_S,
        stages: Sequence[str] = STAGES,
    ) -> None:
        self._monotonic = monotonic
        self._stale_s = stale_s
        self._stages = stages
        self._turned: dict[str, float] = {}
        self._draining = False

    def turned(self, stage: str) -> None:
        if stage in self._stages:
            self._turned[stage] = self._monotonic()

    def trouble(self, stage: str, error: BaseException) -> None:
        """A stage that waits for Redis to come back is alive: a restart would not bring Redis back."""
        self.turned(stage)

    def drain(self) -> None:
        """From here on the stages end one after the other, within the drain time, and none is stuck for it."""
        self._draining = True

    def stuck(self) -> dict[str, float]:
        """Stages that have not turned lately, and for how many seconds."""
        if self._draining:
            return {}
        now = self._monotonic()
        ages = {name: now - at for name, at in self._turned.copy().items()}
        return {name: age for name, age in ages.items() if age > self._stale_s}


Answer = TypeVar("Answer")


class InTime(Generic[Answer]):
    """Asks a question that may hang, and waits no longer than a bound; never more than one question is under way.

    Who asks while one is under way gets its answer too.
    """

    def __init__(self, question: Callable[[], Answer], timeout_s: float = ANSWER_S) -> None:
        self._question = question
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._asked: _Asked[Answer] | None = None

    def __call__(self) -> Answer:
        """The answer. Raises TimeoutError where none came in time, and what the question raises."""
        with self._lock:
            if self._asked is None or self._asked.answered.is_set():
                self._asked = _Asked(self._question)
                self._asked.start()
            asked = self._asked
        if not asked.answered.wait(self._timeout_s):
            raise TimeoutError
        return asked.answer()


class _Asked(threading.Thread, Generic[Answer]):
    def __init__(self, question: Callable[[], Answer]) -> None:
        super().__init__(name="question", daemon=True)
        self._question = question
        self._answers: list[Answer] = []
        self._error: Exception | None = None
        self.answered = threading.Event()

    def run(self) -> None:
        try:
            self._answers.append(self._question())
        except Exception as error:  # who asks is told
            self._error = error
        finally:
            self.answered.set()

    def answer(self) -> Answer:
        if self._error is not None:
            raise self._error
        return self._answers[0]


class Promptly:
    """Asks a readiness check, and always has reasons to give.

    Args:
        check: reasons why not; empty where all is well.
        late: the reason that is given where `check` has not answered within `timeout_s`.
    """

    def __init__(self, check: Callable[[], Sequence[str]], late: str, timeout_s: float = ANSWER_S) -> None:
        self._check = InTime(check, timeout_s)
        self._late = late

    def __call__(self) -> tuple[str, ...]:
        """The reasons."""
        try:
            return tuple(self._check())
        except TimeoutError:
            return (self._late,)
        except Exception as error:  # a check that fails is a reason, and who asks must be told
            return (f"the check failed: {type(error).__name__}: {error}",)
