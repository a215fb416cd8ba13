"""What a test needs from the machine, and what happens where it is missing.

At home such a test skips and says how to get what is missing. In CI (environment variable CI set) nobody reads skips:
there every skip is a failure, but for hardware that no installation brings and for the development data, which is not
part of the repository, where its whole folder is absent.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

DATA_VARIABLE = "GAUSSLINE_TEST_DATA"
HARDWARE = "needs hardware: "
"""A skip whose reason begins so stays a skip in CI."""
NO_DATA = "needs development data: "
"""The same, where the whole data folder is absent: it is not part of the repository."""


def in_ci() -> bool:
    """Whether skips are failures here."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false", "no"}


def program_text(name: str, apt_package: str) -> str:
    """What a person reads where a program is missing."""
    return f"needs the program {name}: sudo apt-get install {apt_package}"


def needs_program(name: str, apt_package: str) -> pytest.MarkDecorator:
    """Mark a test, class or module (`pytestmark`): skipped where `name` is not on PATH, failed in CI."""
    return pytest.mark.needs_program(name, apt_package)


def needs_data(*parts: str) -> pytest.MarkDecorator:
    """Mark a test that reads parts of the development data, such as `needs_data("elpv_mono/good")`."""
    return pytest.mark.needs_data(*parts)


def needs_cuda() -> pytest.MarkDecorator:
    """Mark a test that needs a CUDA device. It stays a skip in CI."""
    return pytest.mark.needs_cuda()


def program(name: str, apt_package: str) -> str:
    """The path of a program, for fixtures; skips (fails in CI) where there is none."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(program_text(name, apt_package))
    return path


def data_root() -> Path | None:
    """The development data: $GAUSSLINE_TEST_DATA, else `../shared/data` beside the repository, else None."""
    named = os.environ.get(DATA_VARIABLE)
    root = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"
    return root if root.is_dir() else None


def data(part: str) -> Path:
    """A file or folder of the development data, for fixtures; skips where it is absent (see `needs_data`)."""
    root = data_root()
    if root is None:
        pytest.skip(f"{NO_DATA}{part} (set {DATA_VARIABLE} to its folder)")
    path = root / part
    if not path.exists():
        pytest.skip(f"the development data has no {part}")
    return path


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers."""
    for line in (
        "needs_program(name, apt_package): skipped where the program is not on PATH",
        "needs_data(*parts): skipped where these parts of the development data are absent",
        "needs_cuda: skipped without a CUDA device",
    ):
        config.addinivalue_line("markers", line)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look for what the marks name."""
    for mark in item.iter_markers("needs_program"):
        program(*mark.args)
    for mark in item.iter_markers("needs_data"):
        for part in mark.args:
            data(part)
    if any(item.iter_markers("needs_cuda")):
        import torch

        if not torch.cuda.is_available():
            pytest.skip(f"{HARDWARE}a CUDA device")


def _harden(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure, where it is one that CI must not have."""
    if not in_ci() or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith((HARDWARE, NO_DATA)):
        report.outcome = "failed"
        report.longrepr = f"In CI no test may skip: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Harden the skips of tests and fixtures."""
    report = yield
    _harden(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Harden the skips of whole modules."""
    report = yield
    _harden(report)
    return report
