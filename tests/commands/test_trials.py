"""A trial from the command line to its end, with a real worker between."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.model import Model
from gaussline.worker.gaussian.calibration import Method, calibrate
from tests.commands.workers import start_worker
from tests.support.cli import Cli
from tests.support.waiting import eventually

SCHEMA = Path(__file__).parents[2] / "worker" / "contract" / "verdict.schema.json"


@pytest.fixture
def strict_file(artefact: Artefact, tmp_path: Path) -> Path:
    """A version that fails most good parts."""
    model = Model.from_artefact(artefact)
    point = calibrate(model.working_point.scores, 0.9, Method.CONFORMAL)
    strict = Model(model.spec, model.gaussians, model.combination, point, model.moments, model.info)
    path = tmp_path / "strict.safetensors"
    path.write_bytes(strict.to_artefact().data)
    return path


def test_a_bad_canary_is_rolled_back_and_a_good_one_promoted(
    cli: Cli, model_file: Path, strict_file: Path, parts: Path, tmp_path: Path
) -> None:
    for file in (model_file, strict_file):
        cli("models", "import", str(file))
    cli("models", "promote", "default", "1")
    worker = start_worker(cli, GAUSSLINE_WORKER_NAME="w1")
    wide = ("--canary", "50%", "--min-frames", "20", "--for", "0s", "--abort-if", "extra_fails > 5%")
    said = cli("models", "promote", "default", "2", *wide, "--by", "ada").stdout
    assert "default/canary points at version 2" in said
    eventually(
        lambda: worker.metric("gaussline_model_version_info", channel="canary", version="2") == 1, what="a canary"
    )
    for camera in ("cam1", "cam2"):
        cli("produce", str(parts / "good"), "--camera", camera, "--quiet")
    read = cli("verdicts", "--follow", "--json", "--group", "mes", "--limit", "80")
    verdicts = [json.loads(line) for line in read.stdout.splitlines()]
    schema = json.loads(SCHEMA.read_text("utf-8"))
    for verdict in verdicts:
        jsonschema.validate(verdict, schema)
    tried = [verdict for verdict in verdicts if verdict["model"]["channel"] == "canary"]
    assert 20 < len(tried) < 60
    assert all(verdict["opinions"][0]["version"] == 1 for verdict in tried)
    assert all("opinions" not in verdict for verdict in verdicts if verdict["model"]["channel"] == "stable")

    ruled = json.loads(cli("judge", "--once", "--json").stdout)
    assert (ruled["state"], ruled["version"], ruled["failed_by_stable_only"]) == ("aborted", 2, 0)
    assert ruled["failed_by_new_only"] > 5
    eventually(lambda: worker.metric("gaussline_model_version_info", channel="canary") == 0, what="no canary")

    cli("models", "import", str(model_file), "--note", "the same again")
    cli(
        "models",
        "promote",
        "default",
        "3",
        "--shadow",
        "--min-frames",
        "20",
        "--for",
        "0s",
        "--abort-if",
        "disagreement > 10%",
    )
    eventually(
        lambda: worker.metric("gaussline_model_version_info", channel="shadow", version="3") == 1, what="a shadow"
    )
    cli("produce", str(parts / "good"), "--camera", "cam1", "--quiet")
    assert len(cli("verdicts", "--follow", "--json", "--group", "mes", "--limit", "40").stdout.splitlines()) == 40
    assert "promoted" in cli("judge", "--once").stdout
    eventually(
        lambda: worker.metric("gaussline_model_version_info", channel="stable", version="3") == 1, what="version 3"
    )

    page = tmp_path / "trial.html"
    shown = json.loads(cli("models", "trials", "default", "--json", "--html", str(page)).stdout)
    assert [(each["version"], each["state"]) for each in shown] == [(3, "promoted"), (2, "aborted")]
    assert "version 3 as shadow" in page.read_text("utf-8")
    assert "aborted" in cli("models", "trials", "default").stdout
    moves = json.loads(cli("models", "history", "default", "--json").stdout)
    assert [(move["channel"], move["after"]) for move in moves] == [
        ("stable", 1),
        ("canary", 2),
        ("canary", None),
        ("shadow", 3),
        ("stable", 3),
        ("shadow", None),
    ]


def test_wrong_words_are_told_and_change_nothing(cli: Cli, model_file: Path) -> None:
    cli("models", "import", str(model_file))
    assert "nothing to try" in cli("models", "promote", "default", "1", "--shadow", code=1).stderr
    cli("models", "promote", "default", "1")
    for words, told in (
        (("--canary", "120%"), "no share"),
        (("--for", "3h"), "length of a trial"),
        (("--shadow", "--canary", "1%"), "decides nothing"),
        (("--shadow", "--for", "soon"), "length of time"),
        (("--shadow", "--abort-if", "p99_ratio > 1.2"), "of a canary"),
        (("--canary", "5%", "--abort-if", "luck > 3"), "no measure"),
    ):
        assert told in cli("models", "promote", "default", "1", *words, code=2).stderr
    assert [each["channels"] for each in json.loads(cli("models", "list", "--json").stdout)] == [["stable"]]
    assert "no trial of default yet" in cli("models", "trials", "default").stdout
    assert json.loads(cli("models", "trials", "default", "--json").stdout) == []
    assert "no model 'x'" in cli("models", "trials", "x", code=1).stderr
    assert "points nowhere" in cli("models", "stop", "default", code=1).stderr
    assert "holds no trial" in cli("models", "stop", "default", "--channel", "stable", code=2).stderr


def test_pins_and_collection(cli: Cli, model_file: Path, strict_file: Path) -> None:
    for file in (model_file, strict_file, model_file, strict_file):
        cli("models", "import", str(file))
    cli("models", "promote", "default", "1")
    assert "pinned to version 1" in cli("models", "pin", "default", "--note", "audit", "--by", "eve").stdout
    assert "pinned to version 1 by eve" in cli("models", "promote", "default", "2", code=1).stderr
    cli("models", "unpin", "default")
    planned = json.loads(cli("models", "gc", "--dry-run", "--newest", "0", "--max-age-days", "0", "--json").stdout)
    assert [row["version"] for row in planned["versions"]] == [2, 4], "3 has the bytes of 1"
    assert "2 versions" in cli("models", "gc", "--newest", "0", "--max-age-days", "0").stdout
    assert "was collected" in cli("models", "promote", "default", "4", code=1).stderr
    cli("models", "promote", "default", "3")
