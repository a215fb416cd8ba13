"""A new backbone through a second set of workers, from the command line, with real workers of both sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gaussline.worker.broker.ledger import read_ledger
from gaussline.worker.learning.dataset import read_dataset
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.learning.pipeline import BackboneOptions, read_features
from tests.broker.way import Way
from tests.commands.workers import start_worker
from tests.support.cli import Cli
from tests.support.waiting import eventually

FRAMES = 40


@pytest.fixture
def other_file(parts: Path, tmp_path: Path) -> Path:
    """A model of the same parts by a backbone with other weights."""
    extractor = BackboneOptions(
        "squeezenet1_1", random_seed=2, input_size=64, levels=("features.1", "features.4"), batch_size=4, device="cpu"
    ).open()
    images = read_features(extractor, read_dataset(parts).normal)
    path = tmp_path / "other.safetensors"
    path.write_bytes(fit_model(images.features, extractor.spec, FitOptions(rate=0.1)).to_artefact().data)
    return path


def produced(cli: Cli, parts: Path, camera: str, seen: int) -> list[dict[str, Any]]:
    """All verdicts after a camera has sent its parts once more."""
    cli("produce", str(parts / "good"), "--camera", camera, "--quiet")
    limit = ("--limit", str(seen + FRAMES))
    read = cli("verdicts", "--since", "1h", "--follow", "--json", *limit).stdout.splitlines()
    return [json.loads(line) for line in read]


def test_a_new_backbone_is_shown_copies_and_then_takes_cameras_over(
    cli: Cli, model_file: Path, other_file: Path, parts: Path, way: Way
) -> None:
    cli("models", "import", str(model_file))
    cli("models", "promote", "default", "1")
    main = start_worker(cli, GAUSSLINE_WORKER_NAME="w1")
    assert len(produced(cli, parts, "cam1", 0)) == FRAMES

    cli("models", "import", str(other_file), "-n", "plates-b")
    assert "judges by plates-b" in cli("sets", "add", "b", "--model", "plates-b", "--by", "ada").stdout
    cli("models", "promote", "plates-b", "1")
    assert "no worker of set b lives" in cli("sets", "move", "cam1", "b", code=1).stderr
    second = start_worker(cli, "--set", "b", GAUSSLINE_WORKER_NAME="w2")
    assert second.get("/readyz")[0] == 200
    assert main.get("/readyz")[0] == 200, "a backbone of another set is none of its business"
    assert main.metric("gaussline_model_version_info", model="plates-b") == 0
    assert second.metric("gaussline_model_version_info", model="plates-b", version="1") == 1

    assert "is copied to set b" in cli("sets", "copy", "b", "cam1").stdout
    verdicts = produced(cli, parts, "cam1", FRAMES)
    assert {(verdict["model"]["name"], verdict["worker"]) for verdict in verdicts} == {("default", "w1")}
    eventually(lambda: listed(cli)["b"]["copies_results"] == FRAMES, what="a result of every copy")
    compared = json.loads(cli("sets", "compare", "b", "--json").stdout)
    assert (compared["frames"], compared["unmatched"], compared["cameras"]) == (FRAMES, 0, {"cam1": FRAMES})
    assert compared["models"] == {"verdicts": {"default:1": FRAMES}, "set": {"plates-b:1": FRAMES}}
    assert "set b beside the verdicts" in cli("sets", "compare", "b").stdout
    row = listed(cli)["b"]
    assert (row["copied"], row["settles"], row["workers"], row["copies_shed"]) == (["cam1"], [], ["w2"], 0)

    assert "set b settles it, main did" in cli("sets", "move", "cam1", "b", "--by", "ada", "--note", "better").stdout
    verdicts = produced(cli, parts, "cam1", 2 * FRAMES)[2 * FRAMES :]
    assert {(verdict["model"]["name"], verdict["worker"]) for verdict in verdicts} == {("plates-b", "w2")}
    assert listed(cli)["b"]["copies_results"] == FRAMES, "what it settles is not copied to it as well"
    verdicts = produced(cli, parts, "cam2", 3 * FRAMES)[3 * FRAMES :]
    assert {verdict["worker"] for verdict in verdicts} == {"w1"}, "cameras move one by one"
    cli("sets", "move", "cam1", "main")
    verdicts = produced(cli, parts, "cam1", 4 * FRAMES)[4 * FRAMES :]
    assert {verdict["worker"] for verdict in verdicts} == {"w1"}
    moves = json.loads(cli("sets", "history", "--json").stdout)
    assert [(move["kind"], move["set"]) for move in moves] == [
        ("declared", "b"),
        ("copied", "b"),
        ("moved", "b"),
        ("moved", "main"),
    ]
    ledger = read_ledger(way.client, way.line)
    assert ledger.balances
    assert sum(row.passed + row.failed for row in ledger.rows) == 5 * FRAMES


def listed(cli: Cli) -> dict[str, Any]:
    """What `sets list` says, by set."""
    return {row["set"]: row for row in json.loads(cli("sets", "list", "--json").stdout)}


def test_a_promotion_that_no_worker_could_follow_is_refused_and_moves_nothing(
    cli: Cli, model_file: Path, other_file: Path, way: Way
) -> None:
    for file in (model_file, other_file, model_file):
        cli("models", "import", str(file), "-n", "default")
    cli("models", "promote", "default", "1")
    worker = start_worker(cli, GAUSSLINE_WORKER_NAME="w1")
    eventually(lambda: "w1" in str(way.client.hgetall(way.keys.workers)), what="a heartbeat")
    before = way.client.hgetall(way.keys.pointers)
    said = cli("models", "promote", "default", "2", code=4).stderr
    assert "another backbone" in said
    assert "weights_digest" in said
    assert "no version 9" in cli("models", "promote", "default", "9", code=1).stderr
    digest = json.loads(way.client.hget(way.keys.versions("default"), 2))["digest"]
    chunk = way.keys.blob(json.loads(way.client.get(way.keys.artefact(digest)))["chunks"][0])
    way.client.setrange(chunk, 2000, b"x")
    assert "tampered" in cli("models", "promote", "default", "2", code=4).stderr
    assert way.client.hgetall(way.keys.pointers) == before

    cli("models", "promote", "default", "2", "--force")
    eventually(lambda: "version 2: artefact" in worker.get("/readyz")[1], what="a worker that says why it is not ready")
    assert worker.get("/readyz")[0] == 503
    assert worker.metric("gaussline_model_refusals_total") == 1
    assert worker.metric("gaussline_model_version_info", version="1") == 1, "it keeps the old one"
    cli("models", "promote", "default", "3")
    eventually(lambda: worker.get("/readyz")[0] == 200, what="a worker that is ready again")


def test_mistakes_are_one_line_and_change_nothing(cli: Cli, way: Way) -> None:
    way.admit("cam1")
    assert "no set 'b'" in cli("sets", "copy", "b", "cam1", code=1).stderr
    assert "always there" in cli("sets", "add", "main", "--model", "m", code=2).stderr
    cli("sets", "add", "b", "--model", "lids=lids-b")
    assert "no model for cameras of model default" in cli("sets", "copy", "b", "cam1", code=2).stderr
    assert "no camera 'cam9'" in cli("sets", "move", "cam9", "b", "--force", code=1).stderr
    assert "settles frames" in cli("sets", "compare", "main", code=2).stderr
    assert "no measure" in cli("sets", "compare", "b", "--rules", "luck > 1", code=2).stderr
    assert "no frame was judged by both yet" in cli("sets", "compare", "b").stdout
    cli("sets", "move", "cam1", "b", "--force")
    assert "still has camera cam1" in cli("sets", "remove", "b", code=1).stderr
    assert "b" in cli("sets", "list").stdout


def test_a_camera_does_not_go_back_to_workers_that_could_not_judge_it(cli: Cli, way: Way) -> None:
    way.admit("cam1")
    cli("sets", "add", "b", "--model", "plates-b")
    cli("sets", "move", "cam1", "b", "--force", "--by", "\udcff", "--note", "\udcff")
    assert "�" in cli("sets", "history").stdout, "what is no text is shown as such"
    way.client.set(way.keys.worker("w1"), "1", ex=60)
    way.client.hset(way.keys.workers, "w1", json.dumps({"models": {"other": 1}}))
    assert "no worker of set main judges by model default" in cli("sets", "move", "cam1", "main", code=1).stderr
    way.client.hset(way.keys.workers, "w1", json.dumps({"models": {"default": 1}}))
    assert "set main settles it" in cli("sets", "move", "cam1", "main").stdout
