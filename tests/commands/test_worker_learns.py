"""`gaussline worker --learn`: a small site judges and learns with one command."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from gaussline.worker.broker.client import connect
from gaussline.worker.contract.keys import Keys
from tests.commands.workers import start_worker
from tests.support.cli import Cli
from tests.support.waiting import eventually

SETTINGS = {
    "GAUSSLINE_LEARN_BLOCK": "8",
    "GAUSSLINE_LEARN_QUARANTINE_S": "0",
    "GAUSSLINE_LEARN_CHECKPOINT_S": "0.1",
}


def test_a_worker_that_learns_writes_events_and_folds_them(cli: Cli, model_file: Path, parts: Path) -> None:
    cli("models", "import", str(model_file), "--by", "ada")
    cli("models", "promote", "default", "1", "--by", "ada", "--note", "first")
    worker = start_worker(cli, "--learn", fresh=True, env=SETTINGS)
    learner = int(worker.says("learner begun")["learner_pid"])
    cli("produce", str(parts / "good"), "--camera", "cam1", "--json")
    client = connect(cli.url)
    key = Keys(cli.line).learner("default")

    def position() -> int:
        text = client.hget(key, "checkpoint")
        return 0 if text is None else int(json.loads(text)["about"]["position"])

    eventually(lambda: position() >= 1, within_s=60, what="a checkpoint")
    threads = [int(task.name) for task in Path(f"/proc/{learner}/task").iterdir()]
    assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {10}, "it gives way to the worker"
    assert worker.end(signal.SIGTERM) == 0
    assert not Path(f"/proc/{learner}").exists(), "the learner outlived its worker"
    assert client.hget(key, "owner") in (None, b""), "the lease was not given back"
    client.close()
