"""Every metric that a gaussline process exposes, from the code that exposes it: docs/metrics.md is made of this."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from gaussline.producer.metrics import PRODUCER_METRICS
from gaussline.worker.broker.ledger import Ledger
from gaussline.worker.broker.line_state import LineState
from gaussline.worker.telemetry.bridges import BridgeMetrics
from gaussline.worker.telemetry.learning import LearnerMetrics
from gaussline.worker.telemetry.line_metrics import LineMetrics
from gaussline.worker.telemetry.metrics import LATENCY_BUCKETS, Metrics
from gaussline.worker.telemetry.rollout import JudgeMetrics

PROCESSES = {
    "worker": "`gaussline worker`, port 9108.",
    "learner": "`gaussline learn`, where it is given a port.",
    "judge": "`gaussline judge`, where it is given a port.",
    "producer": "`gaussline produce`, where it is given a port.",
    "bridge": "`gaussline bridge`, port 9112.",
    "exporter": "`gaussline exporter`, port 9109: what belongs to the line and not to a process, read at each scrape.",
}
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """One metric.

    Attributes:
        process: who exposes it.
        series: names that a query may ask for.
    """

    process: str
    name: str
    kind: str
    labels: tuple[str, ...]
    text: str
    series: tuple[str, ...]


def catalogue() -> list[MetricInfo]:
    """All metrics of all processes, by process and name."""
    worker = CollectorRegistry()
    Metrics(worker, "line", "worker")
    line = CollectorRegistry()
    empty = LineState("line", Ledger((), 0), {}, (), (), {}, {}, (), {}, {}, 0, 0)
    line.register(LineMetrics(lambda: empty, "line", 0))
    learner = CollectorRegistry()
    LearnerMetrics(learner, "line", "model")
    judge = CollectorRegistry()
    JudgeMetrics(judge, "line")
    found = [*_describe("worker", worker), *_describe("exporter", line), *_describe("learner", learner)]
    bridge = CollectorRegistry()
    BridgeMetrics(bridge, "line", "bridge")
    found += [*_describe("judge", judge), *_describe("bridge", bridge), *_producer()]
    return sorted(found, key=lambda metric: (metric.process, metric.name))


def page() -> str:
    """The page docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Made from the code by `make docs`; a test holds the two together. Seconds and bytes. Labels have an end:",
        "cameras over 500 and their like share the label `other`. A frame is never a label.",
        "",
        f"Latency histograms have the buckets {', '.join(f'{bucket:g}' for bucket in LATENCY_BUCKETS)} s.",
    ]
    for process, text in PROCESSES.items():
        lines += ["", f"## {process}", text, "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
        for metric in catalogue():
            if metric.process == process:
                labels = ", ".join(f"`{label}`" for label in metric.labels)
                name = metric.name + ("_total" if metric.kind == "counter" else "")
                lines.append(f"| `{name}` | {metric.kind} | {labels} | {metric.text} |")
    return "\n".join(lines) + "\n"


def _producer() -> Iterator[MetricInfo]:
    for name, (kind, text, _) in PRODUCER_METRICS.items():
        yield MetricInfo("producer", name.removesuffix("_total"), kind, ("line", "camera"), text, (name,))


def _describe(process: str, registry: CollectorRegistry) -> Iterator[MetricInfo]:
    names = registry._collector_to_names  # the registry's only account of collectors, which know their labels
    for collector in list(names):
        for family in collector.collect():
            labels: tuple[str, ...] = tuple(getattr(collector, "_labelnames", ()) or getattr(family, "_labelnames", ()))
            series = tuple(family.name + suffix for suffix in _SUFFIXES.get(family.type, ("",)))
            yield MetricInfo(process, family.name, family.type, labels, family.documentation, series)
