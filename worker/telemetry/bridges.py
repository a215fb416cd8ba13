"""What a bridge shows: Prometheus metrics, and a log that a broken receiver cannot flood."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gaussline.worker.bridge.observer import BridgeObserver
from gaussline.worker.bridge.parcel import Parcel
from gaussline.worker.telemetry.health import Health
from gaussline.worker.telemetry.logs import STORM_S
from gaussline.worker.telemetry.metrics import PREFIX
from gaussline.worker.telemetry.storm import Storm

SEND_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STAGE = "delivery"


class BridgeMetrics(BridgeObserver):
    """One bridge's metrics.

    Args:
        registry: where they are registered; a test makes a fresh one.
    """

    def __init__(self, registry: CollectorRegistry, line: str, bridge: str) -> None:
        names, own = ("line", "bridge"), (line, bridge)

        def counter(name: str, text: str) -> Counter:
            return Counter(PREFIX + name, text, names, registry=registry).labels(*own)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(PREFIX + name, text, names, registry=registry).labels(*own)

        self._delivered = counter("bridge_delivered_total", "Verdicts that the receiver took.")
        self._retried = counter("bridge_retried_total", "Deliveries that failed and are tried again.")
        self._dead = counter("bridge_dead_total", "Verdicts put among the bridge's dead letters.")
        self._dropped = counter("bridge_dead_dropped_total", "Dead letters that went at the bound in bytes.")
        self._gaps = counter("bridge_gaps_total", "Times that verdicts were trimmed before this bridge had them.")
        self._troubles = counter("bridge_troubles_total", "Expected faults, such as Redis away.")
        self._lag = gauge("bridge_lag_seconds", "Age of the oldest verdict that is not delivered; 0: none waits.")
        self._waiting = gauge("bridge_waiting", "Verdicts in hand that are not delivered.")
        self._active = gauge("bridge_active", "1 where this process delivers, 0 where it stands by.")
        self._send = Histogram(
            PREFIX + "bridge_send_seconds",
            "One delivery that was taken.",
            names,
            buckets=SEND_BUCKETS,
            registry=registry,
        ).labels(*own)

    def watch(self, lag_s: Callable[[], float], waiting: Callable[[], int]) -> None:
        """Ask here, at each scrape."""
        self._lag.set_function(lag_s)
        self._waiting.set_function(waiting)

    def holding(self, said: str) -> None:
        self._active.set(0 if said else 1)

    def delivered(self, parcel: Parcel, seconds: float) -> None:
        self._delivered.inc()
        self._send.observe(seconds)

    def retried(self, parcel: Parcel, said: str, pause_s: float) -> None:
        self._retried.inc()

    def buried(self, parcel: Parcel, said: str, dropped: int) -> None:
        self._dead.inc()
        self._dropped.inc(dropped)

    def gap(self, after: str, upto: str) -> None:
        self._gaps.inc()

    def trouble(self, stage: str, error: BaseException) -> None:
        self._troubles.inc()


class BridgeLog(BridgeObserver):
    """Writes down what a person would want to know later; never a line a verdict that went well."""

    def __init__(self, logger: logging.Logger, bridge: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._bridge = bridge
        self._storm: Storm[str] = Storm(STORM_S, monotonic)

    def turned(self) -> None:
        for event, left_out in self._storm.ended():
            self._write(logging.INFO, event, left_out=left_out)

    def holding(self, said: str) -> None:
        self._write(logging.INFO, "standing by" if said else "delivering", said=said or None)

    def retried(self, parcel: Parcel, said: str, pause_s: float) -> None:
        self._say(
            logging.WARNING, "not delivered, trying again", verdict=parcel.id, said=said, pause_s=round(pause_s, 2)
        )

    def buried(self, parcel: Parcel, said: str, dropped: int) -> None:
        self._say(logging.ERROR, "dead letter", verdict=parcel.id, said=said, dropped=dropped)

    def gap(self, after: str, upto: str) -> None:
        self._write(logging.ERROR, "verdicts were trimmed before they were delivered", after=after, upto=upto)

    def trouble(self, stage: str, error: BaseException) -> None:
        self._say(logging.WARNING, "trouble, trying again", stage=stage, said=str(error))

    def _say(self, level: int, event: str, **fields: object) -> None:
        left_out = self._storm.let(event)
        if left_out is not None:
            self._write(level, event, **fields, **({"left_out": left_out} if left_out else {}))

    def _write(self, level: int, event: str, **fields: object) -> None:
        self._logger.log(level, event, extra={"bridge": self._bridge, **fields})


class BridgeHealth(BridgeObserver):
    """Tells the health check that the loop goes round."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def turned(self) -> None:
        self._health.turned(STAGE)
