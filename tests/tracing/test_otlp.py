"""Over the wire: processes that send their spans to a collector, one that is away, and none that was asked for."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gaussline.producer.producer import Producer
from gaussline.worker.errors import SettingsError
from gaussline.worker.settings import Settings
from gaussline.worker.tracing import open_spans
from tests.bridge.receivers import free_port
from tests.broker.way import Way
from tests.commands.conftest import artefact, model_file, parts  # noqa: F401 - fixtures
from tests.commands.workers import start_worker
from tests.support.cli import Cli
from tests.support.waiting import eventually
from tests.tracing.conftest import Collector


def test_producer_and_worker_send_their_spans_over_otlp(
    way: Way,
    server: object,
    collector: Collector,
    model_file: Path,  # noqa: F811 - the fixture
    parts: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    cli = Cli(server.url, way.line)  # type: ignore[attr-defined]
    few = tmp_path / "few"
    few.mkdir()
    for picture in sorted((parts / "good").glob("*.png"))[:4]:
        shutil.copy(picture, few)
    traced: dict[str, Any] = {"GAUSSLINE_TRACE_ENDPOINT": collector.url, "GAUSSLINE_TRACE_SHARE": "1"}
    try:
        cli("models", "import", str(model_file))
        cli("models", "promote", "default", "1")
        worker = start_worker(cli, **traced)
        cli("produce", str(few), "--camera", "cam1", **traced)
        read = cli("verdicts", "--follow", "--json", "--group", "mes", "--limit", "4")
        assert worker.end(signal.SIGTERM) == 0
        assert worker.other == []
    finally:
        cli.close()
    spans = eventually(collector.spans)
    wanted = {json.loads(line)["traceparent"].split("-")[1] for line in read.stdout.splitlines()}
    assert len(wanted) == 4
    for trace in wanted:
        own = {(service, name) for service, name, identity, _ in spans if identity == trace}
        assert own == {("gaussline-producer", "send")} | {
            ("gaussline-worker", name) for name in ("decode", "judge", "settle")
        }
    assert {"batch", "backbone", "score"} <= {name for _, name, _, _ in spans}


def test_a_collector_that_is_away_holds_nothing_up(way: Way, server: object) -> None:
    settings = Settings.load(
        {},
        redis_url=server.url,  # type: ignore[attr-defined]
        line=way.line,
        trace_endpoint=f"http://127.0.0.1:{free_port()}/v1/traces",
        trace_share=1.0,
    )
    with Producer("cam1", settings=settings) as camera:
        assert camera.send(bytes(10), encoding="png").admitted


def test_what_a_collector_does_not_take_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    told: list[Exception] = []
    settings = Settings.load({}, trace_endpoint=f"http://127.0.0.1:{free_port()}/v1/traces")
    spans = open_spans(settings, "s", "i", on_trouble=told.append)
    assert spans is not None
    spans.record("one", None, 0.0, {})
    spans.close()
    assert ["did not take 1 spans" in str(error) for error in told] == [True]
    assert capfd.readouterr().err == "", "a log of JSON lines stays one"


def test_off_loads_nothing_of_it() -> None:
    look = """
import sys
from gaussline import Producer
from gaussline.worker.settings import Settings
import gaussline.worker.commands.worker, gaussline.worker.engine.worker, gaussline.worker.telemetry.metrics
import gaussline.worker.commands.bridge_run, gaussline.producer.command
Producer("cam1", settings=Settings.load({}))
# redis-py looks for OpenTelemetry's metrics by itself.
ours = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "gaussline.worker.tracing.spans")
sys.exit(str(sorted(name for name in sys.modules if name.startswith(ours))))
"""
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    assert told.stderr.strip() == "[]"


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gaussline.worker.tracing.spans", None)
    with pytest.raises(SettingsError, match=r"pip install 'gaussline\[trace\]'"):
        open_spans(Settings.load({}, trace_endpoint="http://127.0.0.1:1/"), "s", "i")
    assert open_spans(Settings.load({}), "s", "i") is None
