"""Faults that take minutes to be seen, or to be forgotten. Part of `make monitoring-check`, not of `make test`."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from gaussline.worker.broker.admission import Admission, Request
from gaussline.worker.broker.client import connect
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.contract.model import Model
from gaussline.worker.gaussian.calibration import Method, WorkingPoint
from tests.monitoring.site import Site
from tests.monitoring.test_site import SEEN_WITHIN_S, send
from tests.support.skips import needs_program
from tests.support.waiting import eventually

pytestmark = [needs_program("prometheus", "prometheus"), pytest.mark.timeout(1800)]


def strict(artefact: Artefact, folder: Path) -> Path:
    """A version that fails every frame and states a rate of 2 %."""
    model = Model.from_artefact(artefact)
    point = WorkingPoint(Method.CONFORMAL, 0.02, 0.0, model.working_point.scores)
    made = Model(model.spec, model.gaussians, model.combination, point, model.moments, model.info)
    path = folder / "strict.safetensors"
    path.write_bytes(made.to_artefact().data)
    return path


def test_slow_faults_are_seen_and_end(site: Site, parts: Path, artefact: Artefact, tmp_path: Path) -> None:
    client = connect(site.cli.url)
    site.cli("models", "import", str(strict(artefact, tmp_path)))
    worker = site.worker(GAUSSLINE_SLOW_CLAIM_AFTER_S="600", GAUSSLINE_CLAIM_AFTER_S="500")
    site.cli("subscribers", "register", "mes")
    send(site.cli, parts)

    # Broken pictures: their alert looks back five minutes, and so do those of a subscriber and of latency.
    door = Admission(client, site.cli.line, "broken", camera_budget_bytes=10**9, line_budget_bytes=10**9)
    epoch = door.open()
    for sequence in range(5):
        payload = encode_batch("broken", epoch, sequence, [Frame(b"no picture", "png", 1_700_000_000_000_000)])
        door.admit(Request(epoch, sequence, 1, payload))
    site.fires("GausslineDeadLetters", SEEN_WITHIN_S)
    site.fires("GausslineCameraSilent", SEEN_WITHIN_S)

    # A worker that stands still with frames in its hands.
    worker.process.send_signal(signal.SIGSTOP)
    send(site.cli, parts)
    client.blpop(["never"], timeout=1)
    site.fires("GausslineNoWorker", SEEN_WITHIN_S)
    worker.process.send_signal(signal.SIGCONT)
    site.ends("GausslineNoWorker", 60.0)
    eventually(lambda: json.loads(site.cli("ledger", "--json").stdout)["cameras"][-1]["in_flight"] == 0, within_s=60.0)
    site.fires("GausslineLatency", 120.0)

    # A version that fails everything.
    site.cli("models", "promote", "default", "2")
    eventually(lambda: worker.metric("gaussline_model_version_info", version="2") == 1, what="version 2")
    for _ in range(13):
        send(site.cli, parts)
    site.fires("GausslineDefectBurst", SEEN_WITHIN_S)
    site.fires("GausslineFalsePositiveDrift", 120.0)
    site.fires("GausslineSubscriberLag", 400.0)
    site.cli("models", "rollback", "default")
    site.cli("verdicts", "--group", "mes", "--json", "--limit", "100000")
    site.ends("GausslineSubscriberLag", 60.0)
    site.ends("GausslineDefectBurst", 180.0)
    site.ends("GausslineDeadLetters", 400.0)
    site.ends("GausslineLatency", 400.0)
    client.close()
