"""At home a missing program skips with its install command; in CI it fails."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.skips import DATA_VARIABLE, data_root

NEEDY = """
import pytest
from tests.support.skips import data, needs_data, needs_program, program

@needs_program("no-such-program", "its-package")
def test_marked():
    raise AssertionError("ran")

@needs_program("sh", "dash")
def test_there():
    pass

@pytest.fixture
def tool():
    return program("no-such-program", "its-package")

def test_by_fixture(tool):
    raise AssertionError("ran")
"""


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\naddopts = -p tests.support.skips --strict-markers -p no:cacheprovider\n")
    return pytester


def test_a_missing_program_skips_and_says_how_to_get_it(inner: pytest.Pytester) -> None:
    inner.makepyfile(NEEDY)
    result = inner.runpytest("-rs")
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["*needs the program no-such-program: sudo apt-get install its-package*"])


def test_a_missing_program_fails_in_ci(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    inner.makepyfile(NEEDY)
    result = inner.runpytest()
    # The skip happens in the set-up, so pytest counts it among the errors; the run fails all the same.
    result.assert_outcomes(passed=1, errors=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*In CI no test may skip: needs the program no-such-program: sudo apt-get*"])


@pytest.mark.parametrize(
    "text",
    [
        "import pytest\ndef test_a():\n    pytest.skip('not today')",
        "import pytest\n@pytest.mark.skip(reason='not today')\ndef test_a(): ...",
        "import pytest\n@pytest.mark.skipif(True, reason='not today')\ndef test_a(): ...",
        "import pytest\npytest.skip('not today', allow_module_level=True)",
        "import pytest\npytest.importorskip('no_such_module')\ndef test_a(): ...",
    ],
)
def test_no_other_way_to_skip_passes_in_ci(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    inner.makepyfile(text)
    assert inner.runpytest().ret in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
    monkeypatch.setenv("CI", "true")
    result = inner.runpytest()
    assert result.ret in {pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED}
    result.stdout.fnmatch_lines(["*In CI no test may skip: *"])


def test_an_expected_failure_is_no_skip(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    inner.makepyfile("import pytest\n@pytest.mark.xfail\ndef test_a():\n    raise ValueError")
    inner.runpytest().assert_outcomes(xfailed=1)


def test_a_missing_device_stays_a_skip_in_ci(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    nothing = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))
    monkeypatch.setitem(sys.modules, "torch", nothing)
    inner.makepyfile("from tests.support.skips import needs_cuda\n@needs_cuda()\ndef test_a():\n    raise ValueError")
    inner.runpytest().assert_outcomes(skipped=1)


DATA = """
from tests.support.skips import data, needs_data

@needs_data("good", "weights/a.pth")
def test_marked():
    assert data("good").is_dir()

def test_by_call():
    assert data("weights/a.pth").is_file()
"""


def test_the_data_lies_beside_the_repository_or_where_the_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "nowhere"))
    assert data_root() is None
    monkeypatch.setattr("tests.support.skips.__file__", str(tmp_path / "clone" / "tests" / "support" / "skips.py"))
    monkeypatch.delenv(DATA_VARIABLE)
    assert data_root() is None
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert data_root() == tmp_path / "shared" / "data"


@pytest.mark.parametrize("ci", ["", "true"])
def test_without_any_data_its_tests_skip(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv(DATA_VARIABLE, str(inner.path / "nowhere"))
    inner.makepyfile(DATA)
    inner.runpytest().assert_outcomes(skipped=2)


@pytest.mark.parametrize(("ci", "outcomes"), [("", {"skipped": 2}), ("true", {"errors": 1, "failed": 1})])
def test_a_missing_part_of_the_data_skips_at_home_and_fails_in_ci(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, outcomes: dict[str, int]
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv(DATA_VARIABLE, str(inner.path))
    (inner.path / "good").mkdir()
    inner.makepyfile(DATA)
    inner.runpytest().assert_outcomes(**outcomes)


def test_whole_data_lets_its_tests_run(inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv(DATA_VARIABLE, str(inner.path))
    (inner.path / "good").mkdir()
    (inner.path / "weights").mkdir()
    (inner.path / "weights" / "a.pth").touch()
    inner.makepyfile(DATA)
    inner.runpytest().assert_outcomes(passed=2)
