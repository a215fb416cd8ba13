"""Prometheus metrics of a roll-out judge."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from gaussline.worker.telemetry.metrics import PREFIX


class JudgeMetrics:
    """What a judge shows."""

    def __init__(self, registry: CollectorRegistry, line: str) -> None:
        self._line = line
        self._rulings = Counter(
            PREFIX + "judge_rulings_total",
            "Trials that were ruled on, by how: promoted, held, rolled_back, …",
            ("line", "model", "channel", "state"),
            registry=registry,
        )

    def ruled(self, model: str, channel: str, state: str) -> None:
        """A trial was ruled on."""
        self._rulings.labels(self._line, model, channel, state).inc()
