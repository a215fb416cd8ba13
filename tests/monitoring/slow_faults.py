"""Faults that take minutes to be seen, or to be forgotten. Part of `make monitoring-check`, not of `make test`."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image

from gaussline.worker.broker.admission import Admission, Request
from gaussline.worker.broker.client import connect
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.intake import Intake
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.model import Model
from gaussline.worker.gaussian.calibration import Method, WorkingPoint
from tests.access.certificates import Authority
from tests.monitoring.site import SCRAPE_S, Site, free_port
from tests.monitoring.test_site import SEEN_WITHIN_S, send
from tests.support.running import running_s
from tests.support.skips import needs_program, program
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


def nothing_waits(site: Site) -> bool:
    """Whether every admitted frame has its verdict."""
    return all(row["in_flight"] == 0 for row in json.loads(site.cli("ledger", "--json").stdout)["cameras"])


def test_slow_faults_are_seen_and_end(site: Site, parts: Path, artefact: Artefact, tmp_path: Path) -> None:
    client = connect(site.cli.url)
    site.cli("models", "import", str(strict(artefact, tmp_path)))
    worker = site.worker(GAUSSLINE_SLOW_CLAIM_AFTER_S="600", GAUSSLINE_CLAIM_AFTER_S="500")
    site.cli("subscribers", "register", "mes")
    send(site.cli, parts)

    # Broken pictures: their alert looks back five minutes, and so do those of a subscriber and of latency. What a
    # counter holds when it is seen first is no increase.
    none = 'gaussline_line_dead_letter_frames_total{reason="undecodable"} == 0'
    eventually(lambda: site.query(none), within_s=30.0, what="a first look at the dead letters")
    door = Admission(client, site.cli.line, "broken", camera_budget_bytes=10**9, line_budget_bytes=10**9)
    epoch = door.open()
    for sequence in range(5):
        payload = encode_batch("broken", epoch, sequence, [Frame(b"no picture", "png", 1_700_000_000_000_000)])
        door.admit(Request(epoch, sequence, 1, payload))
    site.fires("GausslineDeadLetters", within_s=SEEN_WITHIN_S)
    site.fires("GausslineCameraSilent", within_s=SEEN_WITHIN_S, camera="cam1")

    # A worker that stands still with frames in its hands.
    worker.process.send_signal(signal.SIGSTOP)
    send(site.cli, parts)
    site.ends("GausslineCameraSilent", within_s=20.0, camera="cam1")
    client.blpop(["never"], timeout=1)
    site.fires("GausslineNoWorker", within_s=SEEN_WITHIN_S)
    worker.process.send_signal(signal.SIGCONT)
    site.ends("GausslineNoWorker", within_s=60.0)
    eventually(lambda: nothing_waits(site), within_s=60.0, what="the verdicts of what the worker held")
    assert "GausslineLatency" not in site.firing(), "what waited once is no slow line"

    def late_again() -> bool:
        """As on a machine that is too slow: each turn's frames wait for longer than a second."""
        worker.process.send_signal(signal.SIGSTOP)
        send(site.cli, parts)
        client.blpop(["never"], timeout=1.5)
        worker.process.send_signal(signal.SIGCONT)
        eventually(lambda: nothing_waits(site), within_s=60.0, what="the verdicts of what the worker held")
        return "GausslineLatency" in site.firing()

    eventually(late_again, within_s=240.0, what="an alert of a line that stays slow")
    site.fires("GausslineLatency", within_s=SEEN_WITHIN_S)

    # A version that fails everything, on one camera of a line that has judged enough for a share to mean something.
    for _ in range(16):
        send(site.cli, parts)
    send(site.cli, parts, camera="cam2")
    eventually(lambda: nothing_waits(site), within_s=60.0, what="their verdicts, by the version before")
    seen = 'gaussline_line_verdicts_total{camera="cam2",decision="pass"} > 0'
    eventually(lambda: site.query(seen), within_s=30.0, what="a first look at the camera")
    site.cli("models", "promote", "default", "2")
    eventually(lambda: worker.metric("gaussline_model_version_info", version="2") == 1, what="version 2")
    for _ in range(3):
        send(site.cli, parts, camera="cam2")
    site.fires("GausslineDefectBurst", within_s=SEEN_WITHIN_S, camera="cam2")
    site.fires("GausslineFalsePositiveDrift", within_s=120.0)
    site.fires("GausslineSubscriberLag", within_s=400.0)
    site.cli("models", "rollback", "default")
    site.cli("verdicts", "--group", "mes", "--json", "--limit", "100000")
    site.ends("GausslineSubscriberLag", "GausslineFalsePositiveDrift", within_s=60.0)
    site.ends("GausslineDefectBurst", "GausslineDeadLetters", "GausslineLatency", within_s=400.0)
    client.close()


def dark(parts: Path, folder: Path) -> Path:
    """The good parts under a lamp that gives two thirds of its light."""
    folder.mkdir()
    for path in sorted((parts / "good").glob("*.png")):
        with Image.open(path) as picture:
            picture.point(lambda value: value * 2 // 3).save(folder / path.name)
    return folder


def test_a_learner_that_died_and_a_lamp_that_fades_are_seen_and_end(site: Site, parts: Path, tmp_path: Path) -> None:
    site.worker(GAUSSLINE_FEATURES="all")
    quick = {"GAUSSLINE_LEARN_BLOCK": "50", "GAUSSLINE_LEARN_QUARANTINE_S": "0", "GAUSSLINE_LEARN_CHECKPOINT_S": "5"}
    learner = site.learner(**quick)

    def stream(folder: Path) -> Callable[[], None]:
        """Send a folder at 15 frames a second; what ends it."""
        words = ("produce", str(folder), "--camera", "cam1", "--rate", "15", "--loop", "--quiet")
        process = site.cli.start(*words)

        def end() -> None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30.0) == 0

        return end

    end = stream(parts / "good")
    eventually(lambda: site.query("gaussline_line_learner_running == 1"), within_s=60.0, what="the learner")
    learner.send_signal(signal.SIGKILL)
    site.fires("GausslineLearnerStalled", within_s=60.0 + SEEN_WITHIN_S)
    site.learner(**quick)
    site.ends("GausslineLearnerStalled", within_s=60.0)
    # What is usual: more frames than the reference needs.
    eventually(lambda: site.query("sum(gaussline_line_verdicts_total) > 1300"), within_s=180.0, what="a reference")
    assert not site.firing() & {"GausslineImageDrift", "GausslineFeatureDrift"}
    end()
    end = stream(dark(parts, tmp_path / "dark"))
    site.fires("GausslineImageDrift", within_s=150.0)
    site.fires("GausslineFeatureDrift", within_s=150.0)
    end()
    end = stream(parts / "good")
    before = site.query("sum(gaussline_line_verdicts_total)")[0]["value"][1]
    eventually(
        lambda: site.query(f"sum(gaussline_line_verdicts_total) > {int(before) + 250}"),
        within_s=60.0,
        what="good parts",
    )
    site.cli("drift", "release", "--camera", "cam1", "--note", "the lamp was changed", "--by", "ada")
    site.ends("GausslineImageDrift", within_s=60.0)
    site.ends("GausslineFeatureDrift", within_s=60.0)
    end()


def test_from_a_fault_to_its_alert_with_the_intervals_as_shipped(parts: Path, model_file: Path, tmp_path: Path) -> None:
    limits_s = {
        "GausslineNoWorker": 60.0,
        "GausslineBacklogAge": 30.0,
        "GausslineLedgerImbalance": 60.0,
        "GausslineCameraSilent": 60.0,
    }
    with EmbeddedRedis() as server, Site(server, tmp_path, scrape_s=None) as site:
        client = connect(site.cli.url)
        site.cli("models", "import", str(model_file))
        site.cli("models", "promote", "default", "1")
        worker = site.worker()
        send(site.cli, parts)
        eventually(lambda: site.query("sum(gaussline_line_verdicts_total) >= 40"), within_s=30.0, what="verdicts")
        site.ends("GausslineNoWorker", within_s=60.0)  # there was none at first
        send(site.cli, parts)
        assert not site.firing() & limits_s.keys()
        took: dict[str, float] = {}
        began = dict.fromkeys(limits_s, running_s())
        client.hincrby(Keys(site.cli.line).camera("cam1"), "admitted", 3)
        began["GausslineNoWorker"] = running_s()
        worker.process.send_signal(signal.SIGKILL)
        send(site.cli, parts, camera="cam2")
        began["GausslineBacklogAge"] = began["GausslineCameraSilent"] = running_s()

        def all_seen() -> bool:
            for alert in site.firing() & (limits_s.keys() - took.keys()):
                took[alert] = running_s() - began[alert]
            return len(took) == len(limits_s)

        eventually(all_seen, within_s=90.0, what=f"{sorted(limits_s)}")
        print({alert: round(seconds, 1) for alert, seconds in sorted(took.items())})
        for alert, seconds in took.items():
            assert seconds <= limits_s[alert], f"{alert} came after {seconds:.1f} s"
        client.close()


def test_a_certificate_near_its_end_is_told_until_it_is_replaced(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    old = authority.sign("old", server=True, end=datetime.now(UTC) + timedelta(days=3))
    new, port = authority.sign("new", server=True), free_port()
    options = {
        "tls-port": str(port),
        "tls-cert-file": str(old.cert),
        "tls-key-file": str(old.key),
        "tls-ca-cert-file": str(authority.cert),
        "tls-auth-clients": "no",
    }
    url, ca = f"rediss://127.0.0.1:{port}/0", str(authority.cert)
    with (
        EmbeddedRedis(server=program("redis-server", "redis-server"), options=options) as server,
        Site(server, tmp_path, GAUSSLINE_REDIS_URL=url, GAUSSLINE_REDIS_TLS_CA=ca) as site,
    ):
        site.fires("GausslineCertificateEnds", within_s=SEEN_WITHIN_S)
        server.client().execute_command("CONFIG", "SET", "tls-cert-file", str(new.cert), "tls-key-file", str(new.key))
        site.ends("GausslineCertificateEnds", within_s=120.0)


def test_a_sleeping_worker_a_small_budget_a_redis_that_hangs_and_lost_verdicts(
    parts: Path, model_file: Path, tmp_path: Path
) -> None:
    names = ("LINE_BUDGET", "CAMERA_BUDGET", "MESSAGE_MAX")
    small = {f"GAUSSLINE_{name}_BYTES": "20000" for name in names}
    with EmbeddedRedis() as server, Site(server, tmp_path, SCRAPE_S, **small) as site:
        client = connect(site.cli.url)
        site.cli("models", "import", str(model_file))
        site.cli("models", "promote", "default", "1")

        # Frames that nobody judges, a few of them in the hands of somebody who sleeps.
        send(site.cli, parts)
        assert Intake(client, site.cli.line, "sleeper").take(max_frames=4, max_bytes=10**6)
        site.fires("GausslineUnsettledBytes", within_s=SEEN_WITHIN_S)
        site.fires("GausslinePendingAge", within_s=SEEN_WITHIN_S)
        worker = site.worker(GAUSSLINE_VERDICT_MAX_BYTES="30000", GAUSSLINE_VERDICT_MIN_AGE_S="0")
        site.ends("GausslineUnsettledBytes", within_s=60.0)
        site.ends("GausslinePendingAge", within_s=60.0)

        # Redis hangs: the exporter says so, and nothing has to be restarted.
        os.kill(server.pid, signal.SIGSTOP)
        try:
            site.fires("GausslineExporterBlind", within_s=SEEN_WITHIN_S)
            metrics = f"http://127.0.0.1:{site.ports['exporter']}/metrics"
            with urllib.request.urlopen(metrics, timeout=4.0) as answer:  # shipped is a scrape every five seconds
                assert f'gaussline_line_up{{line="{site.cli.line}"}} 0.0'.encode() in answer.read()
        finally:
            os.kill(server.pid, signal.SIGCONT)
        site.ends("GausslineExporterBlind", within_s=60.0)

        # The exporter itself is gone, and nobody is left to say so.
        exporter = site.cli.running[0]
        exporter.send_signal(signal.SIGKILL)
        site.fires("GausslineExporterBlind", within_s=SEEN_WITHIN_S)
        site.exporter()
        site.ends("GausslineExporterBlind", within_s=60.0)

        # A subscriber that reads nothing, and a bound that is smaller than its backlog.
        site.cli("subscribers", "register", "mes")
        for _ in range(4):
            send(site.cli, parts)
        site.fires("GausslineVerdictsLost", within_s=SEEN_WITHIN_S)
        site.ends("GausslineVerdictsLost", within_s=400.0)
        assert worker.end(signal.SIGTERM) == 0
        client.close()
