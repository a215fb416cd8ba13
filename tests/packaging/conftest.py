"""What these tests stand on: the sources, a wheel, an editable install, and a machine with nothing on its PATH."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.packaging.stand_ins import TOOLS
from tests.support.interpreters import install, interpreter, run
from tests.support.repository import ROOT, package_dirs, pyproject


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all that a build reads, so that nothing is written into the repository."""
    copy = tmp_path_factory.mktemp("sources") / "gaussline"
    copy.mkdir()
    for name in ("pyproject.toml", pyproject()["project"]["readme"]):
        shutil.copy(ROOT / name, copy / name)
    for folder in {path.relative_to(ROOT).parts[0] for path in package_dirs().values()}:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="session")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution as an index would have it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, sources, cwd=out)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the wheel installed."""
    python = interpreter(tmp_path_factory.mktemp("installed"))
    install(python, wheel)
    return python


@pytest.fixture(scope="session")
def editable(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the copy of the sources installed editable."""
    python = interpreter(tmp_path_factory.mktemp("editable"))
    install(python, "--editable", sources)
    return python


@pytest.fixture(scope="session", params=["installed", "editable"])
def python(request: pytest.FixtureRequest) -> Path:
    """The interpreters of both ways to install, one after the other."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Path)
    return found


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that make reads, in a folder of their own."""
    copy = tmp_path / "a clone"
    (copy / "scripts").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "scripts/environment"):
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A PATH with the small programs of every Linux, and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return folder
