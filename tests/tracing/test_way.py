"""A frame's trace, from the producer over the worker's stages to whoever reads its verdict."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from gaussline.producer.producer import Producer
from gaussline.producer.shot import Shot
from gaussline.producer.traces import FrameTraces
from gaussline.worker.bridge.parcel import parcel_of
from gaussline.worker.broker.admission import Admission, Request
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.contract.verdict import Decision, Reason
from gaussline.worker.engine.observer import Observers
from gaussline.worker.settings import Settings
from gaussline.worker.telemetry.metrics import Metrics
from gaussline.worker.telemetry.traces import BridgeTraces, TraceObserver
from gaussline.worker.tracing.spans import Spans
from tests.broker.way import Way
from tests.engine.judges import ScriptedJudge, make_worker
from tests.support.waiting import eventually
from tests.telemetry.test_metrics import verdict as a_verdict

PICTURE = bytes(64)


def spans_to(exporter: InMemorySpanExporter, service: str, share: float = 1.0) -> Spans:
    return Spans(exporter, service, "line1", "one", share)


def producer(way: Way, url: str, spans: Spans | None, camera: str = "cam1") -> Producer:
    traces = None if spans is None else FrameTraces(spans, camera)
    settings = Settings.load({}, redis_url=url, line=way.line)
    return Producer(camera, settings=settings, traces=traces)


@contextmanager
def working(url: str, way: Way, *observers: Any) -> Iterator[None]:
    worker = make_worker(url, way.line, ScriptedJudge(), lanes=1, batch=8, observer=Observers(*observers))
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join(20)


def verdicts(way: Way, count: int) -> list[dict[str, Any]]:
    reader = Verdicts(way.client, way.line)
    eventually(lambda: len(reader.read("0-0")) >= count, what=f"{count} verdicts")
    return [verdict for _, verdict in reader.read("0-0")]


def by_trace(exporter: InMemorySpanExporter) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for span in exporter.get_finished_spans():
        assert span.context is not None
        found[span.context.trace_id][span.name] = span
    return found


def test_one_trace_leads_from_the_camera_to_the_subscriber(way: Way, server: Any, memory: InMemorySpanExporter) -> None:
    ours, theirs = spans_to(memory, "producer"), spans_to(memory, "worker")
    with working(server.url, way, TraceObserver(theirs)), producer(way, server.url, ours) as camera:
        camera.send_many([Shot(PICTURE, f"P{n}", encoding="png") for n in range(3)])
        read = verdicts(way, 3)
    theirs.close()
    bridge = spans_to(memory, "bridge")
    for verdict in read:
        entry = {b"json": json.dumps(verdict).encode()}
        BridgeTraces(bridge).delivered(parcel_of("1-0", way.line, entry), 0.01)
    bridge.close()
    traces = by_trace(memory)
    batches = [spans for spans in traces.values() if "batch" in spans]
    frames = [spans for spans in traces.values() if "send" in spans]
    assert len(frames) == 3
    for verdict in read:
        context = TraceContextTextMapPropagator().extract(verdict)  # what an MES does with a verdict
        (sent,) = [spans for spans in frames if spans["send"].attributes["gaussline.id"] == verdict["id"]]
        root = sent["send"].context
        assert verdict["traceparent"][:52] == f"00-{root.trace_id:032x}-{root.span_id:016x}"
        assert get_current_span(context).get_span_context().span_id == root.span_id
        assert set(sent) == {"send", "decode", "judge", "settle", "deliver"}
        for name in ("decode", "judge", "settle", "deliver"):
            assert sent[name].parent.span_id == root.span_id
            assert sent[name].attributes["gaussline.id"] == verdict["id"]
        assert sent["settle"].attributes["gaussline.decision"] == "pass"
        # The batch that it rode in is linked, both ways.
        (link,) = sent["judge"].links
        (batch,) = [spans for spans in batches if spans["batch"].context.span_id == link.context.span_id]
        assert root.span_id in {each.context.span_id for each in batch["batch"].links}
        for name in ("backbone", "score"):
            assert batch[name].parent.span_id == batch["batch"].context.span_id
    assert sum(spans["batch"].attributes["gaussline.frames"] for spans in batches) == 3


def test_spans_say_when_and_why_and_an_unrecorded_frame_has_none(memory: InMemorySpanExporter) -> None:
    spans = spans_to(memory, "worker")
    told = TraceObserver(spans)
    recorded, unrecorded = (f"00-{'a' * 32}-{'b' * 16}-{flags}" for flags in ("01", "00"))
    frames: Any = [
        SimpleNamespace(source=SimpleNamespace(trace=trace), identity=f"cam1:1:{number}")
        for number, trace in enumerate((recorded, unrecorded, None))
    ]
    told.prepared_frames(frames, 0.125)
    told.computed_frames(frames, 0.25, 0.5)
    told.computed_frames(frames[1:], 0.25, 0.5)
    refused = a_verdict(reason=Reason.EXPIRED, decision=Decision.NOT_JUDGED)
    told.settled([replace(refused, traceparent=trace) for trace in (recorded, unrecorded, None)], 0.0625, 1)
    spans.close()
    found = memory.get_finished_spans()
    by_name = {span.name: span for span in found}
    seconds = {"decode": 0.125, "batch": 0.75, "backbone": 0.25, "score": 0.5, "judge": 0.75, "settle": 0.0625}
    assert len(found) == len(by_name) == len(seconds)
    for name, took in seconds.items():
        span: Any = by_name[name]
        assert span.end_time - span.start_time == took * 1e9, name
    batch, backbone, score = (by_name[name] for name in ("batch", "backbone", "score"))
    assert (backbone.start_time, backbone.end_time) == (batch.start_time, score.start_time)
    assert score.end_time == batch.end_time
    assert batch.attributes == {"gaussline.frames": 3}
    assert len(batch.links) == 1
    about: Any = by_name["settle"].attributes
    assert (about["gaussline.decision"], about["gaussline.reason"]) == ("not_judged", "expired")
    assert "gaussline.score" not in about


def test_who_began_a_trace_decides_whether_it_is_recorded(memory: InMemorySpanExporter) -> None:
    for share in (0.0, 1.0):
        spans = spans_to(memory, "worker", share)
        for name, flags in (("recorded", "01"), ("unrecorded", "00")):
            spans.record(name, f"00-{'a' * 32}-{'b' * 16}-{flags}", 0.1, {})
        spans.close()
    assert [span.name for span in memory.get_finished_spans()] == ["recorded", "recorded"]


def test_a_trace_of_the_application_goes_on(way: Way, server: Any, memory: InMemorySpanExporter) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    with producer(way, server.url, spans_to(memory, "producer")) as camera:
        with provider.get_tracer("their own").start_as_current_span("trigger") as trigger:
            camera.send(PICTURE, encoding="png")
        camera.send(PICTURE, encoding="png")
    (first, second) = [span for span in memory.get_finished_spans() if span.name == "send"]
    assert first.parent is not None
    assert first.parent.span_id == trigger.get_span_context().span_id
    assert second.parent is None


def test_of_a_share_of_none_nothing_is_carried(way: Way, server: Any, memory: InMemorySpanExporter) -> None:
    spans = spans_to(memory, "worker")
    with (
        working(server.url, way, TraceObserver(spans)),
        producer(way, server.url, spans_to(memory, "producer", 0.0)) as camera,
    ):
        camera.send(PICTURE, encoding="png")
        (read,) = verdicts(way, 1)
    spans.close()
    assert "traceparent" not in read
    assert memory.get_finished_spans() == ()


@pytest.mark.parametrize(
    "text", ["", "00-x", "01-" + "a" * 32 + "-" + "b" * 16 + "-01", "00-" + "0" * 32 + "-" + "b" * 16 + "-01"]
)
def test_a_hostile_trace_goes_no_further(way: Way, server: Any, memory: InMemorySpanExporter, text: str) -> None:
    spans = spans_to(memory, "worker")
    door = Admission(way.client, way.line, "cam1", camera_budget_bytes=10**9, line_budget_bytes=10**9)
    epoch = door.open()
    payload = encode_batch("cam1", epoch, 0, [Frame(PICTURE, "png", 1_700_000_000_000_000, trace=text)])
    with working(server.url, way, TraceObserver(spans)):
        door.admit(Request(epoch, 0, 1, payload, 0))
        (read,) = verdicts(way, 1)
    spans.close()
    assert "traceparent" not in read
    assert memory.get_finished_spans() == ()


def test_the_latency_histogram_names_a_trace(way: Way, server: Any, memory: InMemorySpanExporter) -> None:
    registry = CollectorRegistry()
    spans = spans_to(memory, "producer")
    with working(server.url, way, Metrics(registry, way.line, "w1")), producer(way, server.url, spans) as camera:
        camera.send(PICTURE, encoding="png")
        (read,) = verdicts(way, 1)
        eventually(
            lambda: registry.get_sample_value("gaussline_admission_to_verdict_seconds_count", {"line": way.line})
        )
    trace = read["traceparent"].split("-")[1]
    lines = generate_latest(registry).decode().splitlines()  # type: ignore[no-untyped-call]
    for name in ("admission", "capture"):
        assert any(
            line.startswith(f"gaussline_{name}_to_verdict_seconds_bucket") and f'# {{trace_id="{trace}"}}' in line
            for line in lines
        )
