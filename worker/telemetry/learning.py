"""Prometheus metrics of a learner."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from gaussline.worker.learning.learner import Learner
from gaussline.worker.learning.notice import Notice
from gaussline.worker.telemetry.metrics import MAX_CAMERAS, OTHER, PREFIX


class LearnerMetrics:
    """What a learner shows."""

    def __init__(self, registry: CollectorRegistry, line: str, model: str) -> None:
        self._base = (line, model)
        names = ("line", "model")

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(PREFIX + name, text, (*names, *labels), registry=registry)

        self._frames = gauge("learner_frames", "What became of frames, since the learner began.", "outcome")
        self._effective = gauge("learner_effective_frames", "Effective number of frames behind the moments.")
        self._waiting = gauge("learner_quarantined_frames", "Frames in quarantine.")
        self._reservoir = gauge("learner_reservoir_frames", "Frames held for calibration.")
        self._frozen = gauge("learner_closed_spans", "Spans of time in which a camera's frames do not teach.")
        self._alarm = gauge("drift_alarm", "1 while an alarm stands.", "camera", "kind")
        self._change = gauge("drift_change", "What the newest alarm of a test compared: after.", "camera", "test")
        self._proposals = Counter(
            PREFIX + "learner_proposals_total",
            "Versions proposed, or refused by the guard.",
            (*names, "result"),
            registry=registry,
        )
        self._busy = Counter(
            PREFIX + "learner_busy_seconds_total",
            "Time spent on folding blocks and proposing versions.",
            names,
            registry=registry,
        ).labels(line, model)
        self._cameras: set[str] = set()
        self._standing: set[tuple[str, str]] = set()
        self._frames.labels(line, model, "taught").set(0)  # a learner that has read nothing yet has taught nothing
        for result in ("proposed", "refused"):
            self._proposals.labels(line, model, result)

    def observe(self, learner: Learner) -> None:
        """The state after a step."""
        for name, count in learner.counts.items():
            self._frames.labels(*self._base, name).set(count)
        self._effective.labels(*self._base).set(learner.moments[0].effective_size)
        self._waiting.labels(*self._base).set(sum(len(entry.block) for entry in learner.pending))
        self._reservoir.labels(*self._base).set(len(learner.reservoir))
        self._frozen.labels(*self._base).set(len(learner.spans))
        standing = {
            (self._label(camera), test.partition(":")[0])
            for camera, watch in learner.cameras.items()
            for test in watch.alarms
        }
        for camera, kind in standing | self._standing:
            self._alarm.labels(*self._base, camera, kind).set(float((camera, kind) in standing))
        self._standing = standing

    def notice(self, notice: Notice) -> None:
        """Something was said."""
        if notice.kind == "proposal":
            self._proposals.labels(*self._base, "proposed" if notice.facts.get("passed") else "refused").inc()
        if notice.alarm is not None:
            after = notice.facts.get("after")
            if after is not None:
                self._change.labels(*self._base, self._label(notice.camera), notice.alarm.test).set(float(after))

    def folded(self, seconds: float) -> None:
        """A block was read and folded, and a version proposed where one was due."""
        self._busy.inc(seconds)

    def _label(self, camera: str) -> str:
        if camera not in self._cameras:
            if len(self._cameras) >= MAX_CAMERAS:
                return OTHER
            self._cameras.add(camera)
        return camera
