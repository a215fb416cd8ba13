"""The rules of the house hold for every file, and the checker sees what breaks them."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.architecture.house import MAX_LINES, Place, machine_paths, offences, place_of
from tests.support.repository import ROOT, listed_files, source_files


def test_the_rules_of_the_house() -> None:
    files = {file.relative_to(ROOT): file.read_text("utf-8") for file in source_files()}
    assert len(files) > 30
    assert [f"{name}:{told}" for name, text in files.items() for told in offences(text, place_of(name.parts))] == []


@pytest.mark.parametrize(
    ("text", "place", "word"),
    [
        ("try:\n    f()\nexcept:\n    pass", Place(), "bare except"),
        ("try:\n    f()\nexcept Exception:\n    pass", Place(), "swallows"),
        ("try:\n    f()\nexcept BaseException:\n    log()", Place(), "swallows"),
        ("try:\n    f()\nexcept BaseException as error:\n    log()", Place(), "swallows"),
        ("import pickle", Place(product=True), "pickle"),
        ("def f():\n    from pickle import loads", Place(), "pickle"),
        ("import joblib.externals", Place(), "pickle"),
        ("torch.load(path)", Place(), "weights_only"),
        ("torch.load(path, weights_only=False)", Place(), "weights_only"),
        ("torch.load(path, weights_only=flag)", Place(), "weights_only"),
        ("np.load(path, allow_pickle=True)", Place(), "allow_pickle"),
        ("time.sleep(0.1)", Place(test=True), "sleeps"),
        ("async def f():\n    await asyncio.sleep(1)", Place(test=True), "sleeps"),
        ("from time import sleep", Place(test=True), "sleeps"),
        ("def f():\n    print('x')", Place(product=True), "prints"),
        ("torch.save(x, path)", Place(product=True), "torch.save"),
        ("eval(text)", Place(product=True), "eval"),
        ("x = 1\n" * (MAX_LINES + 1), Place(), "lines"),
    ],
)
def test_the_checker_catches(text: str, place: Place, word: str) -> None:
    found = list(offences(text, place))
    assert any(word in one for one in found), found


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("try:\n    f()\nexcept BaseException as error:\n    caught.append(error)", Place(product=True)),
        ("try:\n    f()\nexcept BaseException:\n    close()\n    raise", Place(product=True)),
        ("torch.load(path, map_location='cpu', weights_only=True)", Place(product=True)),
        ("np.load(path, allow_pickle=False)", Place()),
        ("print('x')", Place(product=True, speaks=True)),
        ("print('x')", Place()),
        ("import pickle", Place(test=True)),
        ("time.sleep(1)", Place(product=True)),
        ("await_condition()\nasyncio.sleep(0)", Place(test=True)),
        ("torch.save(state, path)", Place(test=True)),
    ],
)
def test_the_checker_lets_pass(text: str, place: Place) -> None:
    assert list(offences(text, place)) == []


def test_places() -> None:
    assert place_of(("worker", "commands", "demo.py")) == Place(product=True, speaks=True)
    assert place_of(("producer", "command.py")) == Place(product=True, speaks=True)
    assert place_of(("worker", "engine", "commands.py")) == Place(product=True, speaks=True)
    assert place_of(("worker", "engine", "worker.py")) == Place(product=True)
    assert place_of(("tests", "engine", "test_worker.py")) == Place(test=True)


def this_machine() -> set[str]:
    """Paths and addresses that only this machine has: where the repository lies, the home, pip's sources."""
    folders = {ROOT.parent, Path.home(), Path(sys.base_prefix)}
    common = {Path(path) for path in ("/", "/usr", "/usr/local", "/opt", "/srv", "/home", tempfile.gettempdir())}
    found = {str(ROOT), *(f"{folder}/" for folder in folders - common)}
    for name, value in os.environ.items():
        if re.fullmatch(r"PIP_(FIND_LINKS|(EXTRA_)?INDEX_URL)", name):
            for source in value.split():
                host = urlsplit(source).hostname
                found.add(host if host else source)
    return found - {"pypi.org", ""}


def test_no_file_holds_a_path_of_this_machine() -> None:
    texts = {file.relative_to(ROOT): file.read_bytes().decode("utf-8", "replace") for file in listed_files()}
    found = {str(name): machine_paths(text, this_machine()) for name, text in texts.items()}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_the_search_for_paths_finds_them() -> None:
    here = f"see {ROOT}/README.md"
    assert machine_paths(f"a line\n{here}\n", {f"{ROOT.parent}/"}) == [here]
    assert machine_paths("see docs/decisions.md", {f"{ROOT.parent}/"}) == []
