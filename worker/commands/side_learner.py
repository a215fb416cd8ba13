"""A learner beside a worker: for a small site, where one command is to do both. A process of its own, begun again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from gaussline.worker.commands.child import Child
from gaussline.worker.settings import Settings

PAUSE_S = 5.0
"""Before a learner that has ended is begun again; another one may hold the lease, and this one then stands by."""


class SideLearner:
    """`gaussline learn MODEL` while the `with` lasts. It never disturbs the worker: what goes wrong is said, no more.

    Args:
        say: is told what began and what ended.
    """

    def __init__(self, model: str, settings: Settings, say: Callable[..., None]) -> None:
        self._model = model
        self._say = say
        # What came by options is nobody else's environment.
        self._environment = dict(os.environ) | {
            "GAUSSLINE_REDIS_URL": settings.redis_url.get_secret_value(),
            "GAUSSLINE_LINE": settings.line,
            "GAUSSLINE_LOG_LEVEL": settings.log_level,
            "GAUSSLINE_LOG_FORMAT": settings.log_format,
            "OMP_NUM_THREADS": "1",  # the backbone has the cores
        }
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="side-learner", daemon=True)

    def _run(self) -> None:
        while not self._ending.is_set():
            # Linux ends a child with the *thread* that began it: this one lasts as long as it.
            with Child("learner", ["learn", self._model, "--with-parent"], self._environment) as child:
                self._say("learner begun", model=self._model, learner_pid=child.pid)
                while child.running and not self._ending.wait(0.25):
                    pass
            if not self._ending.is_set():
                self._say("learner ended, and is begun again", model=self._model, pause_s=PAUSE_S)
                self._ending.wait(PAUSE_S)

    def __enter__(self) -> SideLearner:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()


def learning(settings: Settings) -> dict[str, Any]:
    """What a worker's settings must say so that there is something to learn from."""
    return {"features": "all"} if settings.features == "off" else {}
