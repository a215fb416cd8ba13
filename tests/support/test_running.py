"""A clock that stands still while its process does."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

from tests.support.repository import ROOT
from tests.support.running import running_s
from tests.support.waiting import eventually

STOPPED_S = 2.5
ANSWERS = """
import sys, time
from tests.support.running import running_s
for line in sys.stdin:
    print(time.monotonic(), running_s(), flush=True)
"""


def test_it_counts_the_time_of_a_process_that_runs() -> None:
    begin = running_s()
    eventually(lambda: running_s() > begin + 0.3, what="the clock")


def test_a_process_that_was_stopped_has_not_run() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ANSWERS], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def ask() -> tuple[float, float]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        wall, running = process.stdout.readline().split()
        return float(wall), float(running)

    with process:
        before = ask()
        process.send_signal(signal.SIGSTOP)
        threading.Event().wait(STOPPED_S)
        process.send_signal(signal.SIGCONT)
        after = ask()
        process.stdin.close()
    assert after[0] - before[0] >= STOPPED_S
    assert after[1] - before[1] < STOPPED_S - 1.0
