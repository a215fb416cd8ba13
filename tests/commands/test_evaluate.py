from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.support.cli import Cli


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from torchvision.models import squeezenet1_1  # the light install has no torch

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(squeezenet1_1(weights=None).state_dict(), path)
    return path


def _base(folder: Path, weights: Path, cache: Path) -> list[str]:
    options = ["--backbone", "squeezenet1_1", "--weights", str(weights), "--levels", "features.1", "--draws", "20"]
    return ["evaluate", str(folder), *options, "--cache", str(cache)]


FAST = {"GAUSSLINE_MEMORY_FORMAT": "channels_last"}


def test_evaluate_writes_all_forms_and_a_second_run_computes_nothing(
    cli: Cli, parts: Path, weights: Path, tmp_path: Path
) -> None:
    base = _base(parts, weights, tmp_path / "cache")
    report, table = tmp_path / "report.html", tmp_path / "all.csv"
    first = cli(*base, "--json", "--html", str(report), "--csv", str(table), "--seeds", "2", env=FAST)
    told = json.loads(first.stdout)
    levels = told["categories"][0]["tables"]["levels"]["rows"]
    assert [row["level"] for row in levels][:2] == ["features.1", "sum"]
    assert told["categories"][0]["tables"]["pixels"]["rows"]
    assert "0 from the cache" in first.stderr
    assert report.read_text("utf-8").startswith("<!doctype html>")
    with table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    (area,) = (
        line for line in lines if (line["table"], line["row"], line["column"]) == ("levels", "features.1", "AUROC")
    )
    assert float(area["value"]) == levels[0]["AUROC"]
    again = cli(*base, "--seeds", "2", "--html", str(report), "--json", env=FAST)
    assert "0 computed" in again.stderr
    assert "runs as" not in again.stderr  # neither features nor heat maps ask for the backbone
    tables = [one["categories"][0]["tables"] for one in (told, json.loads(again.stdout))]
    assert tables[0] == tables[1]
    assert "Every level, and levels combined" in cli(*base, "--no-pixels", env=FAST).stdout


def test_evaluate_refuses_in_one_line_and_writes_no_half_report(
    cli: Cli, parts: Path, weights: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    base = _base(parts, weights, tmp_path / "cache")
    assert "is no folder" in cli(*base, "--html", str(tmp_path / "none" / "r.html"), code=2).stderr
    wrong = cli(*base, "--extra", "combinations,horoscope", "--html", str(report), code=2)
    assert "'horoscope' is none of" in wrong.stderr
    assert "training share 1.5" in cli(*base, "--train-share", "1.5", code=1).stderr
    assert "variance fraction 2" in cli(*base, "--projection", "pca", "--variance", "2", code=1).stderr
    assert "'--seed'" in cli(*base, "--seed", "-1", code=2).stderr
    assert not (tmp_path / "cache").exists()  # nothing was computed for it
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "a.png").write_bytes(b"no image")
    one_class = cli(*_base(tmp_path, weights, tmp_path / "cache"), "--html", str(report), code=2)
    assert "no defective images" in one_class.stderr
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "b.png").write_bytes(b"no image")
    unreadable = cli(*_base(tmp_path, weights, tmp_path / "cache"), "--html", str(report), code=2)
    assert "2 images cannot be read (--skip-bad" in unreadable.stderr
    assert not report.exists()
    assert [path.name for path in tmp_path.glob(".*")] == []
