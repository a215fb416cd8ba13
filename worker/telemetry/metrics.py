"""Prometheus metrics of a worker: base units, few labels, buckets made for the job. The registry is injected."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gaussline.worker.contract.verdict import Verdict
from gaussline.worker.engine.observer import Observer

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MAX_CAMERAS = 500
"""Cameras with a label of their own; the names come from outside, and a label set must have an end."""
OTHER = "other"


class Metrics(Observer):
    """Turns the engine's hooks into metrics.

    Args:
        registry: where they are registered; a test makes a fresh one.
    """

    def __init__(self, registry: CollectorRegistry, line: str, worker: str) -> None:
        fixed = ("line",)
        self._line = line
        self._cameras: set[str] = set()
        self._loaded: dict[str, tuple[str, str]] = {}

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"gaussline_{name}", text, (*fixed, *labels), registry=registry)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"gaussline_{name}", text, (*fixed, *labels), buckets=buckets, registry=registry)

        self._frames = counter(
            "frames_total", "Frames with a verdict, by camera, decision and reason.", "camera", "decision", "reason"
        )
        self._from_capture = histogram(
            "capture_to_verdict_seconds", "From capture (camera's clock) to verdict.", LATENCY_BUCKETS
        )
        self._from_admission = histogram(
            "admission_to_verdict_seconds", "From admission to verdict, both by Redis's clock.", LATENCY_BUCKETS
        )
        self._stage = histogram(
            "stage_seconds", "One turn of a stage: take, prepare, backbone, score, settle.", LATENCY_BUCKETS, "stage"
        )
        self._batch = histogram("batch_frames", "Frames of one backbone pass.", BATCH_BUCKETS)
        self._busy = counter("device_busy_seconds_total", "Time the device computed.")
        self._idle = counter("device_idle_seconds_total", "Time the device waited for frames.")
        self._bytes = counter("taken_bytes_total", "Encoded bytes taken from Redis.")
        self._redelivered = counter("redelivered_messages_total", "Messages claimed from other workers.", "cause")
        self._races = counter("lost_races_total", "Messages that somebody else had settled.")
        self._troubles = counter("troubles_total", "Expected faults, by stage.", "stage")
        self._surprises = counter("surprises_total", "Faults that nobody expected, by stage.", "stage")
        self._version = Gauge(
            "gaussline_model_version_info",
            "1 for the version a worker scores with.",
            (*fixed, "worker", "model", "version"),
            registry=registry,
        )
        self._load = histogram("model_load_seconds", "Fetching, checking and warming up a model.", LATENCY_BUCKETS)
        self._refused = counter("model_refusals_total", "Versions that could not be used.", "model")
        self._worker = worker

    def taken(self, frames: int, size_bytes: int, seconds: float) -> None:
        self._bytes.labels(self._line).inc(size_bytes)
        self._stage.labels(self._line, "take").observe(seconds)

    def redelivered(self, camera: str, messages: int, crashes: int) -> None:
        self._redelivered.labels(self._line, "crash").inc(crashes)
        self._redelivered.labels(self._line, "slow_or_stopped").inc(messages - crashes)

    def prepared(self, frames: int, seconds: float) -> None:
        self._stage.labels(self._line, "prepare").observe(seconds)

    def waited(self, seconds: float) -> None:
        self._idle.labels(self._line).inc(seconds)

    def computed(self, frames: int, backbone_seconds: float, score_seconds: float) -> None:
        self._batch.labels(self._line).observe(frames)
        self._busy.labels(self._line).inc(backbone_seconds + score_seconds)
        self._stage.labels(self._line, "backbone").observe(backbone_seconds)
        self._stage.labels(self._line, "score").observe(score_seconds)

    def settled(self, verdicts: Sequence[Verdict], seconds: float, now_us: int) -> None:
        self._stage.labels(self._line, "settle").observe(seconds)
        from_admission = self._from_admission.labels(self._line)
        from_capture = self._from_capture.labels(self._line)
        for verdict in verdicts:
            camera = self._camera(verdict.camera)
            reason = "" if verdict.reason is None else verdict.reason.value
            self._frames.labels(self._line, camera, verdict.decision.value, reason).inc()
            from_admission.observe(max(0.0, (now_us - verdict.admitted_us) / 1e6))
            if verdict.captured_us is not None:
                from_capture.observe(max(0.0, (now_us - verdict.captured_us) / 1e6))

    def lost_race(self, messages: int) -> None:
        self._races.labels(self._line).inc(messages)

    def trouble(self, stage: str, error: BaseException) -> None:
        self._troubles.labels(self._line, stage).inc()

    def surprise(self, stage: str, error: BaseException) -> None:
        self._surprises.labels(self._line, stage).inc()

    def model_loaded(self, name: str, version: int, digest: str, seconds: float) -> None:
        self._load.labels(self._line).observe(seconds)
        before = self._loaded.get(name)
        if before is not None:
            self._version.remove(self._line, self._worker, *before)
        self._loaded[name] = (name, str(version))
        self._version.labels(self._line, self._worker, name, str(version)).set(1)

    def model_refused(self, name: str, version: int, error: BaseException) -> None:
        self._refused.labels(self._line, name).inc()

    def _camera(self, camera: str) -> str:
        if camera not in self._cameras:
            if len(self._cameras) >= MAX_CAMERAS:
                return OTHER
            self._cameras.add(camera)
        return camera
