from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gaussline.worker.commands import rendered as rendered_parts
from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.engine.draw import Draw
from gaussline.worker.learning.dataset import read_dataset
from gaussline.worker.learning.watch import STATISTICS
from tests.broker.way import Way
from tests.commands.workers import start_worker
from tests.support.cli import Cli
from tests.support.waiting import eventually


def test_fit_makes_a_version_and_refuses_what_cannot_hold(cli: Cli, parts: Path, tmp_path: Path) -> None:
    import torch
    from torchvision.models import squeezenet1_1  # the light install has no torch

    torch.manual_seed(0)
    weights = tmp_path / "weights.pth"
    torch.save(squeezenet1_1(weights=None).state_dict(), weights)
    base = ["fit", str(parts), "--backbone", "squeezenet1_1", "--weights", str(weights), "--levels", "features.1"]
    settings: Any = {"GAUSSLINE_MEMORY_FORMAT": "channels_last"}
    few = cli(*base, "--rate", "0.01", code=1, **settings)
    assert "needs 99 of them" in few.stderr
    assert "runs as" not in few.stderr  # before a backbone is tuned, and features are computed
    named = [word for word in base if word not in ("--weights", str(weights))]
    settings["GAUSSLINE_WEIGHTS"] = str(weights)  # as a worker is told; --weights goes before it
    made = json.loads(cli(*named, "--rate", "0.1", "--json", "--promote", **settings).stdout)
    assert (made["model"], made["version"], made["promoted"]) == ("default", 1, True)
    assert made["report"]["calibration_frames"] == 12
    wrong = cli(*base[:-1], "features.77", "--rate", "0.1", code=1, **settings)
    assert "features.77" in wrong.stderr
    assert "no folder" in cli("fit", str(tmp_path / "nowhere"), code=2).stderr
    assert "model name 'a/b'" in cli(*base, "--name", "a/b", code=1).stderr
    assert "--seed" in cli(*base, "--seed", "-1", code=2).stderr
    nowhere = str(tmp_path / "no" / "folder")
    assert "is no folder" in cli(*base, "--output", nowhere, code=2).stderr


def test_a_fit_from_recorded_events_and_frames_kept_in_a_folder(
    cli: Cli, way: Way, model_file: Path, parts: Path, tmp_path: Path
) -> None:
    cli("models", "import", str(model_file))
    cli("models", "promote", "default", "1")
    nothing = cli("fit", "--events", "default", "--rate", "0.1", code=1)
    assert "GAUSSLINE_FEATURES=all" in nothing.stderr
    kept = f"file://{tmp_path / 'kept'}"
    start_worker(
        cli,
        GAUSSLINE_FEATURES="all",
        GAUSSLINE_RESERVOIR_SHARE="0.4",
        GAUSSLINE_KEEP_PASS_SHARE="1",
        GAUSSLINE_KEPT_STORE=kept,
    )
    cli("produce", str(parts / "good"), "--camera", "cam1", "--quiet")
    read = cli("verdicts", "--follow", "--json", "--group", "mes", "--limit", "40")
    verdicts = [json.loads(line) for line in read.stdout.splitlines()]
    assert all(verdict["kept"] for verdict in verdicts)
    copy = tmp_path / "copy.png"
    cli("kept", "get", "cam1:1:7", "--output", str(copy), code=0, GAUSSLINE_KEPT_STORE=kept)
    names = sorted(path.name for path in (parts / "good").glob("*.png"))
    assert copy.read_bytes() == (parts / "good" / names[7]).read_bytes()
    events = [FeatureEvent.decode(fields[b"e"]) for _, fields in way.client.xrange(way.keys.features("default"))]
    assert len(events) == 40
    assert all((event.statistics or {}).keys() == STATISTICS.keys() for event in events), "what drift is watched by"
    assert all(0.1 < (event.statistics or {})["exposure"] < 0.9 for event in events)
    passed = sum(verdict["decision"] == "pass" for verdict in verdicts)
    assert passed >= 30
    few = cli("fit", "--events", "default", "--rate", "0.01", code=1, GAUSSLINE_RESERVOIR_SHARE="0.4")
    assert "needs 99: record about 248 frames" in few.stderr
    made = json.loads(cli("fit", "--events", "default", "--rate", "0.15", "--json").stdout)
    assert made["version"] == 2
    report = made["report"]
    drawn = sum(f"cam1:1:{n}" in Draw("reservoir", 0.4) for n in range(40))
    assert report["calibration_frames"] == drawn
    assert report["training_frames"] + report["calibration_frames"] == passed + report["reservoir_failed"]
    odd = {"GAUSSLINE_KEPT_STORE": "s3:/bucket", "GAUSSLINE_ALLOW_RANDOM_WEIGHTS": "true", "GAUSSLINE_HTTP_PORT": "0"}
    wrong = cli("worker", code=2, env=odd)
    assert "kept_store" in wrong.stderr


def test_a_broken_store_of_kept_frames_holds_up_no_verdict(
    cli: Cli, way: Way, model_file: Path, parts: Path, tmp_path: Path
) -> None:
    cli("models", "import", str(model_file))
    cli("models", "promote", "default", "1")
    store = tmp_path / "kept"
    store.mkdir()
    worker = start_worker(cli, GAUSSLINE_KEEP_PASS_SHARE="1", GAUSSLINE_KEPT_STORE=store.as_uri())
    shutil.rmtree(store)
    store.write_text("in the way")  # breaks while the worker runs, and for whoever it runs as
    cli("produce", str(parts / "good"), "--camera", "cam1", "--quiet")
    eventually(lambda: len(way.verdict_ids()) == 40, what="forty verdicts")
    assert not any(json.loads(line)["kept"] for line in cli("verdicts", "--json").stdout.splitlines())
    assert worker.metric("gaussline_troubles_total", stage="kept") > 0
    assert "is not kept" in cli("kept", "get", "cam1:1:7", "--output", "x", code=1).stderr


def test_synthetic_in_the_place_of_a_folder_renders_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rendered_parts, "GOOD_PARTS", 3)
    with rendered_parts.rendered(Path("synthetic")) as folder:
        assert len(read_dataset(folder).normal) == 3
    assert not folder.exists()
    (tmp_path / "synthetic").mkdir()
    with rendered_parts.rendered(Path("synthetic")) as folder:
        assert list(folder.iterdir()) == [], "a folder of that name goes first"
