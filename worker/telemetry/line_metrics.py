"""Metrics of what belongs to a line and not to a process, read from Redis at each scrape."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gaussline.worker.broker.certificates import Certificate
from gaussline.worker.broker.ledger import LedgerRow
from gaussline.worker.broker.line_state import LineState
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.errors import BrokerError

PREFIX = "gaussline_line_"
MAX_CAMERAS = 500
"""Cameras with a label of their own; the quiet rest are one camera called `other`."""
MAX_NAMES = 100
"""Models, workers and subscribers with a label of their own."""
OTHER = "other"

CAMERA_COUNTERS = {
    "admitted_frames": ("Frames admitted.", "admitted"),
    "dropped_frames": ("Frames that a producer dropped by its policy, before admission.", "dropped"),
    "duplicate_messages": ("Messages that were in already when they came again.", "duplicates"),
    "busy_answers": ("Admissions answered busy.", "busy"),
    "fenced_answers": ("Admissions of older producers, fenced off.", "fenced"),
    "unadmitted_entries": ("Stream entries that came past admission.", "unadmitted"),
}
CAMERA_GAUGES = {
    "in_flight_frames": ("Frames admitted and without a verdict yet.", "in_flight"),
    "backlog_bytes": ("Encoded bytes of those.", "in_flight_bytes"),
    "imbalance_frames": ("Admitted less all it must equal; anything but 0 is a fault.", "imbalance"),
}
SET_GAUGES = {
    "set_workers": "Living workers of a set, where there is another than main.",
    "set_cameras": "Cameras that a set settles.",
    "set_copied_cameras": "Cameras that a set is shown copies of.",
    "set_waiting_bytes": "Bytes of copies that wait for a set.",
}
SET_COUNTERS = {
    "set_copied_frames": "Frames copied for a set.",
    "set_shed_frames": "Frames that were not copied, because the set's bound was reached.",
    "set_results": "Copied frames of which a set said something.",
}


class LineMetrics(Collector):
    """Collects one line.

    Args:
        read: the state now; raises BrokerError where Redis cannot say, which is then itself a metric.
        budget_bytes: unsettled bytes that the line may have.
        certificates: those of the connection to Redis.
    """

    def __init__(
        self,
        read: Callable[[], LineState],
        line: str,
        budget_bytes: int,
        certificates: Callable[[], Sequence[Certificate]] = tuple,
    ) -> None:
        self._certificates = certificates
        self._read = read
        self._line = line
        self._budget_bytes = budget_bytes

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing in advance: registering must not ask Redis."""
        return ()

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Every metric of the line. Only `up` where Redis does not answer."""
        begin = time.perf_counter()
        ends = self._gauge("certificate_not_after_seconds", "Unix time at which a certificate ends.", "certificate")
        for certificate in self._certificates():
            ends.add_metric([self._line, certificate.what], certificate.not_after_s)
        yield ends
        up = self._gauge("up", "1 where the state of the line could be read.")
        try:
            state = self._read()
        except BrokerError:
            up.add_metric([self._line], 0.0)
            yield up
            return
        up.add_metric([self._line], 1.0)
        yield up
        yield from self._cameras(state)
        yield from self._workers(state)
        yield from self._models(state)
        yield from self._learners(state)
        yield from self._sets(state)
        yield from self._store(state)
        took = self._gauge("read_seconds", "How long it took to read the state of the line.")
        took.add_metric([self._line], time.perf_counter() - begin)
        yield took

    # --- cameras -----------------------------------------------------------------------------------------------------
    def _cameras(self, state: LineState) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        now_us = state.ledger.now_us
        shown = _bounded(state.ledger.rows)
        for name, (text, field) in CAMERA_COUNTERS.items():
            counter = self._counter(name, text, "camera")
            for label, rows in shown.items():
                counter.add_metric([self._line, label], sum(getattr(row, field) for row in rows))
            yield counter
        for name, (text, field) in CAMERA_GAUGES.items():
            gauge = self._gauge(name, text, "camera")
            for label, rows in shown.items():
                gauge.add_metric([self._line, label], sum(getattr(row, field) for row in rows))
            yield gauge
        verdicts = self._counter("verdicts", "Verdicts published.", "camera", "decision")
        age = self._gauge("backlog_age_seconds", "Age of the oldest frame without a verdict.", "camera")
        pending = self._gauge("pending_age_seconds", "Age of the oldest message in a worker's hands.", "camera")
        silence = self._gauge("silence_seconds", "Time since a frame was last admitted.", "camera")
        for label, rows in shown.items():
            for decision, field in (("pass", "passed"), ("fail", "failed"), ("not_judged", "not_judged")):
                verdicts.add_metric([self._line, label, decision], sum(getattr(row, field) for row in rows))
            age.add_metric([self._line, label], max(row.backlog_age_s for row in rows))
            pending.add_metric([self._line, label], max(state.pending[row.camera].age_s for row in rows))
            since = [row.last_admitted_us for row in rows if row.last_admitted_us]
            if since:
                silence.add_metric([self._line, label], max(0.0, (now_us - min(since)) / 1e6))
        yield from (verdicts, age, pending, silence)

    # --- workers and models ------------------------------------------------------------------------------------------
    def _workers(self, state: LineState) -> Iterator[GaugeMetricFamily]:
        alive = self._gauge("workers", "Workers whose heart beats.")
        alive.add_metric([self._line], state.alive)
        skew = self._gauge("stale_workers", "Living workers that judge by another version than stable.", "model")
        refusing = self._gauge("refusing_workers", "Living workers that cannot load a version.", "model")
        for pointer in state.pointers[:MAX_NAMES]:
            if pointer.channel != "stable":
                continue
            living = state.followers(pointer.model)
            stale = sum(worker.models.get(pointer.model) != pointer.version for worker in living)
            skew.add_metric([self._line, pointer.model], stale)
            refused = sum(pointer.model in worker.refused for worker in living)
            refusing.add_metric([self._line, pointer.model], refused)
        yield from (alive, skew, refusing)

    def _sets(self, state: LineState) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Sets of workers; nothing where there is none beside `main`."""
        for name, text in SET_GAUGES.items():
            gauge = self._gauge(name, text, "set")
            for each in state.sets[:MAX_NAMES] if len(state.sets) > 1 else ():
                values = {
                    "set_workers": each.alive,
                    "set_cameras": each.cameras,
                    "set_copied_cameras": each.copied_cameras,
                    "set_waiting_bytes": each.counts.waiting_bytes,
                }
                gauge.add_metric([self._line, each.name], values[name])
            yield gauge
        for name, text in SET_COUNTERS.items():
            counter = self._counter(name, text, "set")
            for each in state.sets[1:MAX_NAMES]:
                values = {
                    "set_copied_frames": each.counts.copied,
                    "set_shed_frames": each.counts.shed,
                    "set_results": each.counts.results,
                }
                counter.add_metric([self._line, each.name], values[name])
            yield counter

    def _models(self, state: LineState) -> Iterator[GaugeMetricFamily]:
        version = self._gauge("model_version", "Version that a channel points at.", "model", "channel")
        for pointer in state.pointers[:MAX_NAMES]:
            version.add_metric([self._line, pointer.model, pointer.channel], pointer.version)
        rate = self._gauge("stated_false_positive_rate", "Stated rate of the stable version.", "model")
        for model, stated in sorted(state.stated_rates.items())[:MAX_NAMES]:
            rate.add_metric([self._line, model], stated)
        pinned = self._gauge("pinned_models", "Models that are pinned.")
        pinned.add_metric([self._line], len(state.pins))
        yield from (version, rate, pinned)

    def _learners(self, state: LineState) -> Iterator[GaugeMetricFamily]:
        running = self._gauge("learner_running", "1 while a learner of the model holds its lease.", "model")
        behind = self._gauge(
            "learner_behind_seconds",
            "Age of the oldest event no checkpoint has read, or since it had caught up.",
            "model",
        )
        age = self._gauge("feature_event_age_seconds", "Age of the newest feature event.", "model")
        alarm = self._gauge("drift_alarm", "1 for an alarm of the learner that stands.", "model", "camera", "kind")
        for learner in state.learners[:MAX_NAMES]:
            running.add_metric([self._line, learner.model], float(learner.running))
            behind.add_metric([self._line, learner.model], learner.behind_s)
            if learner.event_age_s is not None:
                age.add_metric([self._line, learner.model], learner.event_age_s)
            standing = sorted({(each.camera, each.kind) for each in learner.alarms})
            for camera, kind in standing[:MAX_CAMERAS]:
                alarm.add_metric([self._line, learner.model, camera, kind], 1.0)
        yield from (running, behind, age, alarm)

    # --- stores ------------------------------------------------------------------------------------------------------
    def _store(self, state: LineState) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        totals = state.totals
        dead = self._counter("dead_letter_frames", "Frames dead-lettered, by reason.", "reason")
        held = self._gauge("dead_letter_bytes", "Bytes held as dead letters, by reason.", "reason")
        counts = {count.reason: count for count in state.dead}
        for reason in Reason:
            # A reason that never occurred stands at 0: a counter that begins at 1 has no increase.
            count = counts.get(reason)
            dead.add_metric([self._line, reason.value], 0 if count is None else count.total)
            held.add_metric([self._line, reason.value], 0 if count is None else count.size_bytes)
        yield from (dead, held)
        for name, text, value in (
            ("unsettled_bytes", "Encoded bytes of all frames without a verdict.", totals.get("bytes", 0)),
            ("budget_bytes", "Unsettled bytes that the line may have.", self._budget_bytes),
            ("kept_bytes", "Bytes of kept frames in Redis.", totals.get("kept_bytes", 0)),
            ("verdict_bytes", "Bytes of the verdict stream.", totals.get("verdict_bytes", 0)),
            ("redis_memory_bytes", "Memory that Redis uses.", state.memory_bytes),
            ("redis_max_memory_bytes", "Memory that Redis may use; 0 is no limit.", state.memory_max_bytes),
        ):
            gauge = self._gauge(name, text)
            gauge.add_metric([self._line], value)
            yield gauge
        lost = self._counter("lost_verdicts", "Verdicts trimmed at the hard bound before a subscriber had read them.")
        lost.add_metric([self._line], totals.get("verdicts_lost", 0))
        yield lost
        behind = self._gauge("subscriber_lag_seconds", "Age of the oldest verdict not acknowledged.", "subscriber")
        for name, seconds in list(state.subscribers.items())[:MAX_NAMES]:
            behind.add_metric([self._line, name], seconds)
        yield behind

    def _gauge(self, name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(PREFIX + name, text, labels=["line", *labels])

    def _counter(self, name: str, text: str, *labels: str) -> CounterMetricFamily:
        return CounterMetricFamily(PREFIX + name, text, labels=["line", *labels])


def _bounded(rows: tuple[LedgerRow, ...]) -> dict[str, list[LedgerRow]]:
    """Rows by label: the busiest cameras by their names, the rest together."""
    if len(rows) <= MAX_CAMERAS:
        return {row.camera: [row] for row in rows}
    ranked = sorted(rows, key=lambda row: (-row.admitted, row.camera))
    named = {row.camera: [row] for row in sorted(ranked[: MAX_CAMERAS - 1], key=lambda row: row.camera)}
    return named | {OTHER: ranked[MAX_CAMERAS - 1 :]}
