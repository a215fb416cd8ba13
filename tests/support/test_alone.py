"""A test that measures time has the machine to itself, and does not wait for ever to get it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from tests.support.alone import floor

DEADLINE_S = 20.0


def test_the_floor_is_shared_or_one_has_it_alone(tmp_path: Path) -> None:
    holds, leave = threading.Event(), threading.Event()
    got = threading.Event()

    def hold() -> None:
        with floor(tmp_path, alone=False):
            holds.set()
            assert leave.wait(DEADLINE_S)

    def want_it_alone() -> None:
        with floor(tmp_path, alone=True):
            assert leave.is_set()
            got.set()

    first = threading.Thread(target=hold)
    first.start()
    assert holds.wait(DEADLINE_S)
    with floor(tmp_path, alone=False):
        pass  # another shares it
    second = threading.Thread(target=want_it_alone)
    second.start()
    leave.set()
    first.join(DEADLINE_S)
    second.join(DEADLINE_S)
    assert got.is_set()


SPANS = """
import json, os, time
from pathlib import Path
import pytest

def spend(name):
    began = time.monotonic()
    until = began + 0.15
    while time.monotonic() < until:
        pass
    Path({folder!r}, f"{{name}}.json").write_text(json.dumps([began, time.monotonic()]))
"""


def test_with_workers_nothing_runs_beside_a_test_that_is_alone(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CI", raising=False)
    pytester.makeini("[pytest]\naddopts = -p tests.support.alone --strict-markers -p no:cacheprovider\n")
    body = SPANS.format(folder=str(tmp_path))
    pytester.makepyfile(
        test_a=body + "\n".join(f"def test_{i}(): spend('a{i}')" for i in range(5)),
        test_b=body
        + "\n".join(
            f"{'@pytest.mark.alone' if i == 2 else ''}\ndef test_{i}(): spend('{'alone' if i == 2 else f'b{i}'}')"
            for i in range(5)
        ),
    )
    repository = Path(__file__).resolve().parents[2]
    monkeypatch.setenv("PYTHONPATH", str(repository))
    result = pytester.runpytest_subprocess("-n", "2", "--dist", "loadfile")
    result.assert_outcomes(passed=10)
    spans = {file.stem: json.loads(file.read_text("utf-8")) for file in tmp_path.glob("*.json")}
    assert len(spans) == 10
    began, ended = spans.pop("alone")
    assert not [name for name, (start, stop) in spans.items() if start < ended and stop > began]
