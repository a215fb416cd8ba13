"""A real Prometheus watches a real line: panels have data, real faults make alerts fire, and their end ends them.

The short form, part of every test run, has the faults that are seen within a minute; `make monitoring-check` has all.
"""

from __future__ import annotations

import json
import math
import os
import signal
import urllib.request
from pathlib import Path

import pytest

from gaussline.worker.broker.admission import Admission, Request
from gaussline.worker.broker.client import connect
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.model import Model
from tests.monitoring.site import Site
from tests.monitoring.test_rules import GRAFANA, expressions
from tests.support.cli import Cli
from tests.support.skips import needs_program
from tests.support.waiting import eventually

pytestmark = [
    needs_program("prometheus", "prometheus"),
    needs_program("amtool", "prometheus-alertmanager"),
    pytest.mark.timeout(900),
]
SEEN_WITHIN_S = 60.0
"""Longest time from a fault to its alert."""


def send(cli: Cli, parts: Path, camera: str = "cam1") -> None:
    """Push forty good parts."""
    cli("produce", str(parts / "good"), "--camera", camera, "--quiet")


def other_backbone(artefact: Artefact, folder: Path) -> Path:
    """A version of a backbone that the worker does not hold."""
    import dataclasses

    model = Model.from_artefact(artefact)
    spec = dataclasses.replace(model.spec, weights_digest="1" * 64)
    made = Model(spec, model.gaussians, model.combination, model.working_point, model.moments, model.info)
    path = folder / "other.safetensors"
    path.write_bytes(made.to_artefact().data)
    return path


def test_panels_have_data_and_quick_faults_are_seen_and_end(
    site: Site, parts: Path, artefact: Artefact, tmp_path: Path
) -> None:
    worker = site.worker(GAUSSLINE_FEATURES="all")
    send(site.cli, parts)
    site.learner(GAUSSLINE_LEARN_BLOCK="20")
    site.cli("subscribers", "register", "mes")
    eventually(lambda: site.query("gaussline_frames_total"), within_s=20.0, what="the worker's frames")
    client = connect(site.cli.url)
    keys = Keys(site.cli.line)

    # Redis's memory, the ledger, and a model that cannot be loaded: three faults at once, each seen by its own alert.
    site.cli("models", "import", str(other_backbone(artefact, tmp_path)))
    used = int(client.info("memory")["used_memory"])
    client.config_set("maxmemory", int(used / 0.88))
    client.hincrby(keys.camera("cam1"), "admitted", 3)
    site.cli("models", "promote", "default", "2", "--force")
    site.fires(
        "GausslineLedgerImbalance",
        "GausslineModelLoadFailure",
        "GausslineRedisMemory",
        "GausslineVersionSkew",
        within_s=SEEN_WITHIN_S,
    )
    assert "GausslineNoWorker" not in site.firing()
    client.config_set("maxmemory", 10 * used)
    client.hincrby(keys.camera("cam1"), "admitted", -3)
    site.cli("models", "rollback", "default")
    site.ends(
        "GausslineLedgerImbalance",
        "GausslineModelLoadFailure",
        "GausslineRedisMemory",
        "GausslineVersionSkew",
        within_s=30.0,
    )

    # No worker: frames wait, and both are said; who is paged hears of the cause alone.
    site.alertmanager()
    worker.process.send_signal(signal.SIGKILL)
    send(site.cli, parts)
    site.fires("GausslineNoWorker", within_s=SEEN_WITHIN_S)
    site.fires("GausslineBacklogAge", within_s=30.0)
    eventually(
        lambda: site.told().get("GausslineBacklogAge", {"status": {}})["status"].get("inhibitedBy"),
        within_s=30.0,
        what="the consequence held back",
    )
    cause = site.told()["GausslineNoWorker"]
    assert cause["status"]["state"] == "active"
    assert [receiver["name"] for receiver in cause["receivers"]] == ["pager"]
    assert "grafana" not in cause["labels"]
    assert cause["annotations"]["runbook_url"].startswith("http://127.0.0.1:3000/d/gaussline-runbooks?viewPanel=")
    site.worker(GAUSSLINE_FEATURES="all")
    site.ends("GausslineNoWorker", within_s=30.0)
    site.ends("GausslineBacklogAge", within_s=30.0)
    assert json.loads(site.cli("ledger", "--json").stdout)["balances"]

    send(site.cli, parts)
    for page in sorted(GRAFANA.glob("*.json")):
        for expression in expressions(json.loads(page.read_text("utf-8"))):
            shown = expression.replace("$line", site.cli.line).replace("$camera", ".*").replace("$model", ".*")
            eventually(lambda shown=shown: has_data(site, shown), within_s=20.0, what=f"{page.name}: {shown}")  # type: ignore[misc]
    client.close()


def has_data(site: Site, expression: str) -> bool:
    """Whether some series has a value; a quantile of nothing is not a number, and no panel shows it."""
    return any(not math.isnan(float(series["value"][1])) for series in site.query(expression))


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_scrape_with_two_hundred_cameras_is_quick_and_small(site: Site) -> None:
    client = connect(site.cli.url)
    for number in range(200):
        door = Admission(client, site.cli.line, f"cam{number}", camera_budget_bytes=10**9, line_budget_bytes=10**9)
        epoch = door.open()
        for sequence in range(5):
            payload = encode_batch(door.camera, epoch, sequence, [Frame(bytes(100), "png", 1_700_000_000_000_000)])
            door.admit(Request(epoch, sequence, 1, payload))
    url = f"http://127.0.0.1:{site.ports['exporter']}/metrics"
    size, rounds = 0, 20
    before = cpu_seconds(site.cli.running[0].pid)
    for _ in range(rounds):
        with urllib.request.urlopen(url, timeout=10.0) as answer:
            body = answer.read()
        size = len(body)
    # The exporter's own time: by the clock on the wall, what else the machine does would count too.
    each_s = (cpu_seconds(site.cli.running[0].pid) - before) / rounds
    assert body.count(b'camera="cam') == 200 * body.count(b'camera="cam7"')
    assert size < 2_000_000
    assert each_s < 0.1, each_s
    client.close()
