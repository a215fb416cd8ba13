from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema

from gaussline.worker.broker.client import connect
from gaussline.worker.contract.keys import Keys
from tests.support.cli import Cli, environment
from tests.support.waiting import eventually

SCHEMA = Path(__file__).parents[2] / "worker" / "contract" / "verdict.schema.json"


def start_worker(cli: Cli, **settings: str) -> tuple[subprocess.Popen[str], int]:
    """A worker process that is ready, and its port."""
    process = cli.start(
        "worker",
        GAUSSLINE_ALLOW_RANDOM_WEIGHTS="true",
        GAUSSLINE_HTTP_PORT="0",
        GAUSSLINE_BATCH_MAX_FRAMES="4",
        GAUSSLINE_MEMORY_FORMAT="channels_last",
        **settings,
    )
    assert process.stderr is not None
    port = 0
    for line in process.stderr:
        said: dict[str, Any] = json.loads(line)
        port = said.get("http_port", port)
        if said["event"] == "ready":
            return process, port
    raise AssertionError("the worker ended before it was ready")


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_frame_goes_its_whole_way(cli: Cli, model_file: Path, parts: Path) -> None:
    cli("models", "import", str(model_file), "--by", "ada")
    cli("models", "promote", "default", "1", "--by", "ada", "--note", "first")
    worker, port = start_worker(cli)
    cli("subscribers", "register", "mes")
    sent = json.loads(cli("produce", str(parts / "good"), "--camera", "cam1", "--part-id", "{stem}", "--json").stdout)
    assert sent["admitted"] == 40
    read = cli("verdicts", "--follow", "--json", "--group", "mes", "--limit", "40")
    verdicts = [json.loads(line) for line in read.stdout.splitlines()]
    schema = json.loads(SCHEMA.read_text("utf-8"))
    for verdict in verdicts:
        jsonschema.validate(verdict, schema)
    assert {verdict["id"] for verdict in verdicts} == {f"cam1:1:{n}" for n in range(40)}
    assert {verdict["part"] for verdict in verdicts} == {path.stem for path in (parts / "good").glob("*.png")}
    assert all(verdict["random_weights"] for verdict in verdicts)
    book = json.loads(cli("ledger", "--json").stdout)
    assert book["balances"]
    assert (book["cameras"][0]["admitted"], book["cameras"][0]["in_flight"]) == (40, 0)
    assert cli("verdicts", "--json", "--group", "mes").stdout == ""

    status, metrics = get(port, "/metrics")
    assert status == 200
    judged = sum(
        float(line.rsplit(" ", 1)[1]) for line in metrics.splitlines() if line.startswith("gaussline_frames_total{")
    )
    assert judged == 40
    assert get(port, "/healthz")[0] == 200
    assert get(port, "/readyz")[0] == 200
    assert get(port, "/nothing")[0] == 404
    worker.send_signal(signal.SIGTERM)
    _, log = worker.communicate(timeout=30)
    assert worker.returncode == 0
    assert "stopped" in log


def test_a_promotion_is_followed_within_a_second_or_two(cli: Cli, model_file: Path, parts: Path) -> None:
    cli("models", "import", str(model_file))
    cli("models", "import", str(model_file), "--note", "the same again")
    cli("models", "promote", "default", "1")
    start_worker(cli, GAUSSLINE_WORKER_NAME="w1")
    client = connect(cli.url)

    def running() -> int:
        text = client.hget(Keys(cli.line).workers, "w1")
        return int(json.loads(text)["models"]["default"]) if text else 0

    eventually(lambda: running() == 1, what="version 1")
    cli("models", "promote", "default", "2")
    eventually(lambda: running() == 2, within_s=5.0, what="version 2")
    cli("models", "rollback", "default", "--note", "worse")
    eventually(lambda: running() == 1, within_s=5.0, what="version 1 again")
    moves = json.loads(cli("models", "history", "default", "--json").stdout)
    assert [(move["before"], move["after"]) for move in moves] == [(None, 1), (1, 2), (2, 1)]
    client.close()


def test_a_worker_before_the_first_model_waits_and_says_so(cli: Cli, model_file: Path) -> None:
    process = cli.start("worker", GAUSSLINE_ALLOW_RANDOM_WEIGHTS="true", GAUSSLINE_HTTP_PORT="0")
    assert process.stderr is not None
    port = json.loads(process.stderr.readline())["http_port"]
    status, body = get(port, "/readyz")
    assert status == 503
    assert "no model is promoted" in body
    cli("models", "import", str(model_file))
    cli("models", "promote", "default", "1")
    assert any(json.loads(line)["event"] == "ready" for line in process.stderr)


def test_random_weights_are_refused_unless_somebody_allowed_them(cli: Cli, model_file: Path) -> None:
    cli("models", "import", str(model_file))
    cli("models", "promote", "default", "1")
    refused = cli("worker", code=4, GAUSSLINE_HTTP_PORT="0")
    assert "random" in refused.stderr


def test_models_are_listed_shown_exported_and_never_change(cli: Cli, model_file: Path, tmp_path: Path) -> None:
    cli("models", "import", str(model_file), "--name", "plate", "--by", "ada", "--note", "from the press")
    (row,) = json.loads(cli("models", "list", "--json").stdout)
    assert (row["model"], row["number"], row["by"], row["note"]) == ("plate", 1, "ada", "from the press")
    copy = tmp_path / "copy.safetensors"
    cli("models", "export", "plate", "1", "--output", str(copy))
    assert copy.read_bytes() == model_file.read_bytes()
    assert json.loads(cli("models", "show", "plate", "1", "--json").stdout)["digest"] == row["digest"]
    assert "no version 7" in cli("models", "promote", "plate", "7", code=1).stderr
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(model_file.read_bytes()[:-100])
    assert "torn.safetensors" in cli("models", "import", str(torn), code=4).stderr
    assert "plate" in cli("models", "list").stdout


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
    made = json.loads(cli(*base, "--rate", "0.1", "--json", "--promote", **settings).stdout)
    assert (made["model"], made["version"], made["promoted"]) == ("default", 1, True)
    assert made["report"]["calibration_frames"] == 12
    wrong = cli(*base[:-1], "features.77", "--rate", "0.1", code=1, **settings)
    assert "features.77" in wrong.stderr
    assert "no folder" in cli("fit", str(tmp_path / "nowhere"), code=2).stderr


def test_expected_mistakes_are_one_plain_line(cli: Cli) -> None:
    away = "redis://somebody:hidden@127.0.0.1:1/0"
    for command in (["ledger"], ["verdicts"], ["models", "list"], ["worker"]):
        said = cli(*command, code=3, GAUSSLINE_REDIS_URL=away, GAUSSLINE_HTTP_PORT="0").stderr
        assert "cannot be reached" in said
        assert "hidden" not in said
    assert "GAUSSLINE_LIME" in cli("ledger", code=2, GAUSSLINE_LIME="x").stderr
    assert "did you mean GAUSSLINE_LINE?" in cli("ledger", code=2, GAUSSLINE_LIME="x").stderr
    assert "no subscriber" in cli("subscribers", "unregister", "ghost", code=1).stderr
    assert "is not kept" in cli("kept", "get", "cam1:1:1", "--output", "x", code=1).stderr
    assert "no camera" in cli("cameras", "set", "ghost", "--weight", "2", code=1).stderr


def test_a_broken_ledger_exits_with_five(cli: Cli, model_file: Path, parts: Path) -> None:
    cli("produce", str(parts / "good"), "--camera", "cam1", "--quiet")
    assert json.loads(cli("ledger", "--json").stdout)["cameras"][0]["in_flight"] == 40
    client = connect(cli.url)
    client.hincrby(Keys(cli.line).camera("cam1"), "admitted", 1)
    client.close()
    book = json.loads(cli("ledger", "--json", code=5).stdout)
    assert book["cameras"][0]["imbalance"] == 1
    assert "DOES NOT BALANCE" in cli("ledger", code=5).stdout


def test_help_teaches_and_loads_no_torch() -> None:
    code = (
        "import sys, contextlib\n"
        "from gaussline.worker.commands.main import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "assert not {'torch', 'scipy', 'redis'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    for command in ("demo", "fit", "worker", "produce", "verdicts", "ledger", "models"):
        assert f"  {command} " in done.stdout


def test_every_command_has_help() -> None:
    from gaussline.worker.commands.main import COMMANDS

    for command in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", "gaussline.worker.commands.main", command, "--help"],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Usage: gaussline" in done.stdout


def test_a_fit_from_recorded_events_and_frames_kept_in_a_folder(
    cli: Cli, model_file: Path, parts: Path, tmp_path: Path
) -> None:
    cli("models", "import", str(model_file))
    cli("models", "promote", "default", "1")
    nothing = cli("fit", "--events", "default", "--rate", "0.1", code=1)
    assert "GAUSSLINE_FEATURES=all" in nothing.stderr
    kept = {"GAUSSLINE_KEPT_STORE": f"file://{tmp_path / 'kept'}"}
    start_worker(cli, GAUSSLINE_FEATURES="all", GAUSSLINE_KEEP_PASS_SHARE="1", **kept)
    cli("produce", str(parts / "good"), "--camera", "cam1", "--quiet")
    read = cli("verdicts", "--follow", "--json", "--group", "mes", "--limit", "40")
    verdicts = [json.loads(line) for line in read.stdout.splitlines()]
    assert all(verdict["kept"] for verdict in verdicts)
    copy = tmp_path / "copy.png"
    cli("kept", "get", "cam1:1:7", "--output", str(copy), env=kept)
    names = sorted(path.name for path in (parts / "good").glob("*.png"))
    assert copy.read_bytes() == (parts / "good" / names[7]).read_bytes()
    passed = sum(verdict["decision"] == "pass" for verdict in verdicts)
    assert passed >= 30
    made = json.loads(cli("fit", "--events", "default", "--rate", "0.15", "--json").stdout)
    assert made["version"] == 2
    assert made["report"]["training_frames"] + made["report"]["calibration_frames"] == passed
    odd = {"GAUSSLINE_KEPT_STORE": "s3:/bucket", "GAUSSLINE_ALLOW_RANDOM_WEIGHTS": "true", "GAUSSLINE_HTTP_PORT": "0"}
    wrong = cli("worker", code=2, env=odd)
    assert "kept_store" in wrong.stderr
