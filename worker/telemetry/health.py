"""Whether a worker lives, and whether it can judge."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

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


class Promptly:
    """Asks a check that may hang, and answers in time all the same; never more than one question is under way.

    Args:
        check: reasons why not; empty where all is well.
        late: the reason that is given where `check` has not answered within `timeout_s`.
    """

    def __init__(self, check: Callable[[], Sequence[str]], late: str, timeout_s: float = ANSWER_S) -> None:
        self._check = check
        self._late = late
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._asked: _Question | None = None

    def __call__(self) -> tuple[str, ...]:
        """The reasons."""
        with self._lock:
            if self._asked is None or self._asked.answered.is_set():
                self._asked = _Question(self._check)
                self._asked.start()
            asked = self._asked
        if not asked.answered.wait(self._timeout_s):
            return (self._late,)
        return asked.reasons


class _Question(threading.Thread):
    def __init__(self, check: Callable[[], Sequence[str]]) -> None:
        super().__init__(name="readiness", daemon=True)
        self._check = check
        self.reasons: tuple[str, ...] = ()
        self.answered = threading.Event()

    def run(self) -> None:
        try:
            self.reasons = tuple(self._check())
        except Exception as error:  # a check that fails is a reason, and who asks must be told
            self.reasons = (f"the check failed: {type(error).__name__}: {error}",)
        finally:
            self.answered.set()
