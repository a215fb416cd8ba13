"""Imports run downwards only, and the checker that says so is itself checked."""

from __future__ import annotations

import pytest

from tests.architecture.floors import FLOORS, cycles, offences, part
from tests.architecture.imports import Module, Unresolvable, imports
from tests.support.repository import ROOT, modules, source_files

HOUSE = [Module(name, file.read_text("utf-8"), file.name == "__init__.py") for name, file in modules()]
KNOWN = {module.name for module in HOUSE}


def test_imports_run_downwards_only() -> None:
    assert len(HOUSE) > 30
    assert [told for module in HOUSE for told in offences(module, KNOWN)] == []


def test_no_modules_import_each_other_in_a_ring() -> None:
    assert cycles(HOUSE) == []


def test_every_part_has_a_floor() -> None:
    parts = {part(module.name) for module in HOUSE} - {"facade", "worker", "producer"}
    assert parts == set(FLOORS)


def test_nothing_outside_imports_the_folders_by_their_own_names() -> None:
    for file in source_files():
        relative = file.relative_to(ROOT)
        found = imports(Module(".".join(relative.with_suffix("").parts), file.read_text("utf-8")), KNOWN)
        wrong = [one for one in found if one.target.split(".")[0] in {"worker", "producer", "facade"}]
        assert not wrong, f"{relative}: {wrong}"


W = "gaussline.worker"
BAD = [
    ("gaussian.moments", f"from {W}.contract import frame", "downwards"),
    ("gaussian.moments", f"from {W}.contract.frame import Frame", "downwards"),
    ("gaussian.moments", f"import {W}.contract.frame", "downwards"),
    ("gaussian.moments", f"import {W}.contract.frame as frame", "downwards"),
    ("gaussian.moments", f"from {W}.settings import Settings", "downwards"),
    ("gaussian.moments", f"from {W} import contract", "downwards"),
    ("gaussian.moments", "from gaussline import worker", "no floor"),
    ("gaussian.moments", "from .. import contract", "downwards"),
    ("gaussian.moments", "from ..contract import frame", "downwards"),
    ("gaussian.moments", "from ..contract.frame import Frame", "downwards"),
    ("gaussian.moments", "from ... import producer", "downwards"),
    ("gaussian.moments", f"def f():\n    from {W}.engine import worker", "downwards"),
    ("gaussian.moments", f"class A:\n    def f(self):\n        import {W}.engine.worker", "downwards"),
    ("gaussian.moments", f"if TYPE_CHECKING:\n    from {W}.broker.settle import Settler", "downwards"),
    ("gaussian.moments", f"try:\n    import x\nexcept ImportError:\n    import {W}.vision.decode", "downwards"),
    ("gaussian.moments", f"import importlib\nimportlib.import_module('{W}.broker')", "downwards"),
    ("gaussian.moments", f"__import__('{W}.broker')", "downwards"),
    ("contract.frame", "from importlib import import_module\nimport_module(name)", "not in the text"),
    ("engine.worker", f"TABLE = {{'a': '{W}.telemetry'}}\nimportlib.import_module(TABLE[x])", "downwards"),
    ("gaussian.moments", "import time", "pure"),
    ("gaussian.moments", "from datetime import datetime", "pure"),
    ("gaussian.moments", "from pathlib import Path", "pure"),
    ("gaussian.moments", "import random", "pure"),
    ("gaussian.moments", "import torch", "no torch"),
    ("gaussian.moments", "def f():\n    import sklearn.covariance", "no sklearn"),
    ("contract.frame", "import torch", "no torch"),
    ("contract.frame", "from redis import Redis", "no redis"),
    ("contract.frame", f"from {W}.settings import Settings", "downwards"),
    ("contract.frame", f"from {W}.contract.model import Model", "light install"),
    ("broker.verdicts", f"from {W}.contract import model", "light install"),
    ("vision.decode", f"from {W}.broker import settle", "downwards"),
    ("broker.settle", f"from {W}.vision import decode", "downwards"),
    ("broker.settle", "import torch", "belongs to"),
    ("vision.decode", "import redis", "belongs to"),
    ("engine.worker", "import redis.exceptions", "belongs to"),
    ("engine.worker", f"from {W}.learning import fit", "downwards"),
    ("engine.worker", f"from {W}.telemetry import metrics", "downwards"),
    ("engine.worker", "import prometheus_client", "belongs to"),
    ("engine.worker", "from gaussline.producer.producer import Producer", "downwards"),
    ("engine.worker", "from gaussline import Producer", "no floor"),
    ("engine.worker", "import gaussline", "no floor"),
    ("engine.worker", f"import {W}", "no floor"),
    ("engine.worker", f"from {W}.contract.frame import *", "everything"),
    ("engine.worker", f"from {W}.facade import Producer", "no floor"),
    ("engine.worker", "from worker.contract import frame", "the package is"),
    ("engine.worker", "import producer", "the package is"),
    ("errors", f"from {W}.contract.frame import Frame", "downwards"),
    ("errors", "import pydantic", "no pydantic"),
]


@pytest.mark.parametrize(("name", "text", "word"), BAD)
def test_the_checker_catches(name: str, text: str, word: str) -> None:
    found = list(offences(Module(f"{W}.{name}", text), KNOWN))
    assert any(word in one for one in found), found


@pytest.mark.parametrize(
    "text",
    [
        "import torch",
        "from torchvision.io import read_image",
        "import redis",
        f"from {W}.vision.decode import decode",
        f"from {W}.engine import worker",
        f"def f():\n    import {W}.gaussian.moments",
        f"from {W}.contract.model import Model",
        "from ..worker.vision import decode",
    ],
)
def test_the_checker_keeps_the_producer_light(text: str) -> None:
    assert list(offences(Module("gaussline.producer.producer", text), KNOWN))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gaussian.moments", f"import math\nimport numpy as np\nfrom {W}.errors import FitError"),
        ("contract.frame", f"import time\nimport msgpack\nfrom {W}.contract.keys import Keys\nfrom . import limits"),
        ("settings", f"import os\nfrom {W}.contract.keys import check_name\nfrom pydantic import Field"),
        ("engine.worker", f"from {W}.broker import settle\nfrom {W}.vision.decode import x\nimport torch"),
        ("commands.demo", "from gaussline.producer.producer import Producer\nimport typer"),
        ("commands.main", f"TABLE = {{'a': '{W}.commands.fit'}}\nimportlib.import_module(TABLE[x])"),
        ("telemetry.metrics", f"from {W}.engine.observer import Observer\nimport prometheus_client"),
    ],
)
def test_the_checker_lets_pass(name: str, text: str) -> None:
    assert list(offences(Module(f"{W}.{name}", text), KNOWN)) == []


def test_relative_imports_start_from_the_package_itself_in_an_init() -> None:
    text = "from . import frame\nfrom .keys import Keys"
    found = imports(Module(f"{W}.contract", text, is_package=True), {f"{W}.contract.frame"})
    assert [one.target for one in found] == [f"{W}.contract.frame", f"{W}.contract.keys"]


def test_a_climb_out_of_the_package_is_told() -> None:
    with pytest.raises(Unresolvable, match="climbs out"):
        list(imports(Module(f"{W}.errors", "from .... import x"), KNOWN))


def test_the_ring_finder_finds_rings() -> None:
    ring = [
        Module("a.x", "from a.y import Y"),
        Module("a.y", "def f():\n    from a import z"),
        Module("a.z", "from a import x"),
        Module("a.alone", "from a import x"),
    ]
    assert cycles(ring) == [["a.x", "a.y", "a.z"]]
    assert cycles(ring[1:]) == []
