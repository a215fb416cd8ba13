"""`gaussline produce`, as a user runs it: in a process of its own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from gaussline.producer.command import StoppableClock, produce
from gaussline.producer.sources.synthetic import SyntheticParts, write_folder
from gaussline.worker.commands.main import main
from tests.producer.line import Line
from tests.support.proxy import Proxy

PROGRAM = "from gaussline.worker.commands.main import main; main()"


def start(line: Line | None, *words: str | Path) -> subprocess.Popen[str]:
    """The command, its Redis named by the environment."""
    url = "redis://127.0.0.1:1/0" if line is None else line.server.url
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "produce", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GAUSSLINE_REDIS_URL": url, "COLUMNS": "200", "NO_COLOR": "1"},
    )


def run(line: Line | None, *words: str | Path) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    process = start(line, *words)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def summary(line: Line, *words: str | Path) -> dict[str, Any]:
    """The JSON summary of a run that must succeed in silence."""
    status, out, err = run(line, *words, "--json")
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert isinstance(result, dict)
    return result


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve pictures: four good, two with each defect."""
    folder = tmp_path_factory.mktemp("pictures")
    write_folder(SyntheticParts(1, size=32), folder, good=4, defects=2)
    return folder


def test_a_folder_is_sent_with_part_ids(line: Line, pictures: Path) -> None:
    told = summary(line, "--camera", "cam1", pictures, "--part-id", "{label}:{stem}", "--batch", "5")
    assert {name: told[name] for name in ("camera", "line", "epoch", "total", "admitted", "dropped", "signal")} == {
        "camera": "cam1",
        "line": "line1",
        "epoch": 1,
        "total": 12,
        "admitted": 12,
        "dropped": 0,
        "signal": None,
    }
    frames = line.admitted()
    assert len(frames) == 12
    assert {frame.encoding for frame in frames.values()} == {"png"}
    labels = [frame.part.split(":")[0] for frame in frames.values() if frame.part]
    assert {label: labels.count(label) for label in labels} == {
        "good": 4,
        "scratch": 2,
        "spot": 2,
        "missing_hole": 2,
        "blur": 2,
    }


def test_rendered_parts_are_sent_to_a_limit_and_repeat(line: Line) -> None:
    words = ["-c", "cam1", "synthetic", "--limit", "6", "--size", "32", "--seed", "9", "--encode", "png"]
    for _ in range(2):
        assert summary(line, *words, "--deadline-ms", "500")["admitted"] == 6
    frames = list(line.admitted().values())
    assert [frame.data for frame in frames[:6]] == [frame.data for frame in frames[6:]]
    assert all(frame.deadline_us == frame.captured_us + 500_000 for frame in frames)


def test_a_rate_is_kept(line: Line, pictures: Path) -> None:
    told = summary(line, "-c", "cam1", pictures, "--rate", "40", "--loop", "--limit", "21")
    assert told["admitted"] == 21
    assert 0.5 <= told["seconds"] < 5
    times = [frame.captured_us for frame in line.admitted().values()]
    assert times == sorted(times)
    assert times[-1] - times[0] >= 490_000


def test_the_summary_is_a_sentence_for_a_person(line: Line, pictures: Path) -> None:
    status, out, err = run(line, "-c", "cam1", pictures)
    assert (status, err) == (0, "")
    assert out.startswith("cam1 (line line1, epoch 1): 12 frames admitted in ")


@pytest.mark.parametrize(
    ("words", "status", "signal_"),
    [
        (["synthetic"], 0, signal.SIGINT),
        (["synthetic"], 0, signal.SIGTERM),
        (["synthetic", "--limit", "100000"], 130, signal.SIGINT),
        (["synthetic", "--limit", "100000"], 143, signal.SIGTERM),
    ],
)
def test_a_signal_ends_it_cleanly(line: Line, words: list[str], status: int, signal_: signal.Signals) -> None:
    process = start(line, "-c", "cam1", *words, "--size", "32", "--rate", "50", "--json")
    _until_admitted(line, 3)
    process.send_signal(signal_)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (status, "")
    told = json.loads(out)
    assert told["signal"] == signal_.name
    assert told["offered"] == told["admitted"] == len(line.admitted())


def test_a_signal_ends_a_wait_on_a_full_backlog(line: Line) -> None:
    environment = {"GAUSSLINE_CAMERA_BUDGET_BYTES": "20000", "GAUSSLINE_MESSAGE_MAX_BYTES": "20000"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "produce", "-c", "cam1", "synthetic", "--size", "64", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment, "GAUSSLINE_REDIS_URL": line.server.url},
    )
    while int(line.client.hget(line.keys.camera("cam1"), "busy") or 0) < 3:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    told = json.loads(out)
    assert (told["admitted"], told["refused"], told["offered"]) == (1, 1, 2)


def test_a_signal_ends_a_long_wait_at_once_and_every_later_one() -> None:
    clock = StoppableClock()
    clock.wait(0.0)
    before = signal.signal(signal.SIGALRM, lambda number, frame: clock.stop())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        began_s = clock.monotonic_s()
        with pytest.raises(KeyboardInterrupt):
            clock.wait(60.0, threading.Event())
        with pytest.raises(KeyboardInterrupt):
            clock.wait(60.0)
        assert clock.monotonic_s() - began_s < 20.0
    finally:
        signal.signal(signal.SIGALRM, before)
    clock.stop()  # outside a wait it interrupts nothing


def test_a_full_backlog_drops_by_policy(line: Line, pictures: Path) -> None:
    line.client.hset(line.keys.totals, "verdicts_full", "1")
    told = summary(line, "-c", "cam1", pictures, "--policy", "drop")
    assert (told["admitted"], told["dropped"]) == (0, 12)
    assert line.ledger().dropped == 12


def test_who_lost_the_camera_is_told_in_one_line(line: Line) -> None:
    process = start(line, "-c", "cam1", "synthetic", "--size", "32", "--rate", "50")
    _until_admitted(line, 3)
    summary(line, "-c", "cam1", "synthetic", "--size", "32", "--limit", "1")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "frames admitted" in out
    assert err.startswith("gaussline: camera cam1 was taken by another producer")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["-c", "cam1", "synthetic", "--limit", "1"], 3, "cannot be reached"),
        (["-c", "cam1", "/no/such/folder"], 2, "nothing of this name"),
        (["-c", "a b", "synthetic"], 2, "--camera: camera name 'a b' is not allowed"),
        (["-c", "cam1", "synthetic", "--policy", "wait"], 2, "GAUSSLINE_FULL_POLICY"),
        (["-c", "cam1", "synthetic", "--part-id", "{x}"], 2, "there are {n}"),
        (["-c", "cam1", "synthetic", "--rate", "0"], 2, "a rate of 0.0"),
        (["-c", "cam1", "synthetic", "--encode", "gif"], 2, "raw, png and jpeg"),
        (["-c", "cam1", "synthetic", "--redis-url", "http://x"], 2, "is no Redis URL"),
        (["-c", "cam1", "synthetic", "--size", "8"], 2, "not between 32 and 2048"),
        (["-c", "cam1", "/dev/video99"], 2, "there is no camera /dev/video99"),
        (["-c", "cam1", "synthetic", "--video-option", "x"], 2, "name=value"),
        (["-c", "cam1", "synthetic", "--batch", "1000"], 2, "message_max_frames"),
    ],
)
def test_an_expected_mistake_is_one_line(
    words: list[str],
    status: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GAUSSLINE_REDIS_URL", "redis://127.0.0.1:1/0")
    with pytest.raises(SystemExit) as told:
        main(["produce", *words])
    out, err = capsys.readouterr()
    assert (told.value.code, out) == (status, "")
    assert err.startswith("gaussline: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_mistake_is_one_line_for_a_user_too() -> None:
    status, out, err = run(None, "-c", "cam1", "synthetic")
    assert (status, out) == (3, "")
    assert err.startswith("gaussline: open_camera: Redis cannot be reached")
    assert "start Redis, or name another" in err
    assert err.count("\n") == 1


def test_the_help_teaches_by_examples() -> None:
    status, out, _ = run(None, "--help")
    assert status == 0
    assert "(default: block)" in out
    examples = [one.strip() for one in (produce.__doc__ or "").splitlines() if one.strip().startswith("gaussline ")]
    assert len(examples) == 4
    for example in examples:
        assert example in out
        assert main_accepts(example), example


def main_accepts(example: str) -> bool:
    """Whether every option of an example is one that the command knows."""
    known = {word for row in run(None, "--help")[1].splitlines() for word in row.split() if word.startswith("--")}
    return {word for word in shlex.split(example) if word.startswith("--")} <= known


def test_an_outage_is_sat_out_and_told(line: Line, proxy: Proxy) -> None:
    process = start(line, "-c", "cam1", "synthetic", "--size", "32", "--rate", "50", "--json", "--redis-url", proxy.url)
    _until_admitted(line, 3)
    proxy.go_away()
    assert process.stderr is not None
    assert "Redis is away, its frames wait" in process.stderr.readline()
    proxy.come_back()
    assert "Redis is back after" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    told = json.loads(out)
    assert told["reconnects"] == 1
    assert told["offered"] == told["admitted"] == len(line.admitted())


def _until_admitted(line: Line, frames: int) -> None:
    waiting = line.client.pubsub()
    try:
        for _ in range(3_000):
            if int(line.client.hget(line.keys.camera("cam1"), "admitted") or 0) >= frames:
                return
            waiting.get_message(timeout=0.01)
    finally:
        waiting.close()
    raise AssertionError("no frames were admitted within 30 s")
