"""An ensemble of two backbones on a line: fitted, judging, explained and verified like any other model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gaussline.worker.broker.heat_maps import HeatMaps
from tests.broker.way import Way
from tests.commands.inside import Inside
from tests.commands.workers import start_worker
from tests.support.cli import Cli
from tests.support.waiting import eventually

PAIR = "squeezenet1_1+mobilenet_v3_small"
LEVELS = "squeezenet1_1:features.1,mobilenet_v3_small:features.1"


@pytest.fixture
def inside(cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    return Inside(cli, monkeypatch, capsys)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file for each backbone."""
    import torch
    from torchvision.models import get_model  # the light install has no torch

    folder = tmp_path_factory.mktemp("weights")
    for name in PAIR.split("+"):
        torch.manual_seed(0)
        torch.save(get_model(name, weights=None).state_dict(), folder / f"{name}.pth")
    return folder


def test_an_ensemble_from_the_fit_to_the_heat_map(
    cli: Cli, inside: Inside, way: Way, weights: Path, parts: Path, tmp_path: Path
) -> None:
    env = {"GAUSSLINE_WEIGHTS": str(weights), "GAUSSLINE_MEMORY_FORMAT": "channels_last"}
    asked = ["--backbone", PAIR, "--weights", str(weights), "--levels", LEVELS, "--input-size", "64", "--grid", "2"]
    copies = ["--augment", "hflip,brightness:0.95..1.05", "--copies", "2"]
    fitted = inside("fit", str(parts), *asked, *copies, "--rate", "0.1", "--promote", "--json", env=env)
    report = json.loads(fitted.stdout)["report"]
    assert report["augmentation"] == {"turns": ["hflip"], "brightness": [0.95, 1.05], "copies": 2, "seed": 0}
    assert report["training_frames"] == 28
    assert report["levels"][0]["count"] == pytest.approx(84)
    start_worker(cli, env={"GAUSSLINE_KEEP_PASS_SHARE": "1"} | env)
    cli("produce", str(parts / "bad"), "--camera", "cam1", "--quiet")
    read = cli("verdicts", "--follow", "--json", "--group", "mes", "--limit", "12")
    verdicts = [json.loads(line) for line in read.stdout.splitlines()]
    assert {verdict["backbone"] for verdict in verdicts} == {PAIR}
    assert {tuple(verdict["level_scores"]) for verdict in verdicts} == {tuple(LEVELS.split(","))}
    failed = [verdict for verdict in verdicts if verdict["decision"] == "fail"]
    assert failed
    ring = HeatMaps(way.client, way.line)
    eventually(lambda: ring.count().maps == len(failed), what="a map for every failed frame")
    picture = tmp_path / "map.png"
    told = json.loads(inside("heatmap", failed[0]["id"], "-o", str(picture), "--json", env=env).stdout)
    assert set(told["levels"]) == set(LEVELS.split(","))
    assert told["sum"] == pytest.approx(failed[0]["score"], rel=1e-4)
    sure = json.loads(inside("verify", "--all-kept", "--json", env=env).stdout)
    assert (sure["confirmed"], sure["differs"], sure["failed"]) == (12, 0, 0)
