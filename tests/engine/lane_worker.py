"""python -m tests.engine.lane_worker URL LINE NAME: a worker process of three lanes, for tests that kill it."""

from __future__ import annotations

import random
import signal
import sys
import threading
from collections.abc import Sequence

from gaussline.worker.broker.client import connect
from gaussline.worker.broker.heartbeat import Heartbeat
from tests.engine.judges import ScriptedJudge, make_worker


def main(url: str, line: str, name: str) -> None:
    """Serve until SIGTERM."""
    pause = random.Random(name)
    never = threading.Event()

    def before(batch: Sequence[int]) -> None:
        never.wait(pause.uniform(0.0, 0.01))

    worker = make_worker(url, line, ScriptedJudge(before), lanes=3, name=name)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    heartbeat = Heartbeat(connect(url), line, name, period_s=0.1)
    heartbeat.start()
    print("ready", flush=True)
    worker.run()
    heartbeat.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
