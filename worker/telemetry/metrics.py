"""Prometheus metrics of a worker: base units, few labels, buckets made for the job. The registry is injected."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from gaussline.worker.contract.trace import is_sampled, trace_id
from gaussline.worker.contract.trial import STABLE
from gaussline.worker.contract.verdict import Decision, Reason, Verdict
from gaussline.worker.engine.observer import Observer
from gaussline.worker.telemetry.histograms import Histograms, Tally

PREFIX = "gaussline_"
LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
LOAD_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
P_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""A p-value of a normal frame is uniform: the share below each bound should be the bound itself."""
RATIO_BUCKETS = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MAX_CAMERAS = 500
"""Cameras with a label of their own; the names come from outside, and a label set must have an end."""
OTHER = "other"
STAGES = ("take", "prepare", "backbone", "score", "settle")
FAULTS = ("intake", "compute", "settle", "watch", "tidy", "heartbeat")
"""Stages that every worker has; the names of others come up with their first fault."""
HEAT_MAPS = ("stored", "shed", "refused", "failed")


class Metrics(Observer):
    """Turns the engine's hooks into metrics.

    Args:
        registry: where they are registered; a test makes a fresh one.
    """

    def __init__(self, registry: CollectorRegistry, line: str, worker: str) -> None:
        self._line = line
        self._worker = worker
        self._cameras: set[str] = set()
        self._versions: dict[tuple[str, str], str] = {}

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(PREFIX + name, text, ("line", *labels), registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(PREFIX + name, text, ("line", *labels), registry=registry)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histograms:
            return Histograms(PREFIX + name, text, ("line", *labels), buckets, registry)

        self._frames = counter(
            "frames_total", "Frames with a verdict, by camera, decision and reason.", "camera", "decision", "reason"
        )
        # A metric's child is looked up by its labels under a lock: what a batch touches is looked up once.
        self._frames_of: dict[tuple[str, Decision, Reason | None], Counter] = {}
        self._from_capture = histogram(
            "capture_to_verdict_seconds", "From capture (camera's clock) to verdict.", LATENCY_BUCKETS
        ).labels(line)
        self._from_admission = histogram(
            "admission_to_verdict_seconds", "From admission to verdict, both by Redis's clock.", LATENCY_BUCKETS
        ).labels(line)
        stages = histogram("stage_seconds", f"One turn of a stage: {', '.join(STAGES)}.", LATENCY_BUCKETS, "stage")
        self._stage = {name: stages.labels(line, name) for name in STAGES}
        self._batch = histogram("batch_frames", "Frames of one backbone pass.", BATCH_BUCKETS).labels(line)
        self._busy = counter("device_busy_seconds_total", "Time the device computed.").labels(line)
        self._idle = counter("device_idle_seconds_total", "Time the device waited for frames.").labels(line)
        self._p_value = histogram("p_value", "P-values of judged frames.", P_BUCKETS, "model")
        self._ratio = histogram(
            "score_ratio", "Score of a judged frame over its threshold; above 1 it fails.", RATIO_BUCKETS, "model"
        )
        self._judged_of: dict[str, tuple[Tally, Tally]] = {}
        self._taken = counter("taken_bytes_total", "Encoded bytes taken from Redis.").labels(line)
        self._held = gauge("held_bytes", "Encoded bytes taken and not yet settled.").labels(line)
        self._redelivered = counter(
            "redelivered_messages_total", "Messages claimed from other workers: dead ones, or slow ones.", "cause"
        )
        self._isolated = counter(
            "isolated_frames_total", "Frames judged alone, because a worker had died over their message."
        ).labels(line)
        self._poison = counter("poison_frames_total", "Isolated frames that killed their process.").labels(line)
        self._races = counter("lost_races_total", "Messages that somebody else had settled.").labels(line)
        self._unreplicated = counter(
            "unreplicated_messages_total", "Messages settled that too few replicas had in time (wait_replicas)."
        ).labels(line)
        self._troubles = counter("troubles_total", "Expected faults (Redis away, say), by stage.", "stage")
        self._surprises = counter("surprises_total", "Faults that nobody expected, by stage.", "stage")
        self._heat_maps = counter(
            "heat_maps_total", f"Heat maps of failed frames, by what became of them: {', '.join(HEAT_MAPS)}.", "outcome"
        )
        self._heat_map_seconds = histogram(
            "heat_map_seconds", "Making and storing one heat map, beside the verdicts.", LATENCY_BUCKETS
        ).labels(line)
        self._version = gauge(
            "model_version_info", "1 for the version a worker scores with.", "worker", "model", "channel", "version"
        )
        self._load = histogram(
            "model_load_seconds", "Fetching, checking and warming up a model.", LOAD_BUCKETS, "model"
        )
        self._refused = counter("model_refusals_total", "Versions that could not be used.", "model")
        # A rate of something that never happened is 0, not absent; and a counter that begins at 1 has no increase.
        for outcome in HEAT_MAPS:
            self._heat_maps.labels(line, outcome)
        for cause in ("crash", "slow"):
            self._redelivered.labels(line, cause)
        for stage in FAULTS:
            self._troubles.labels(line, stage)
            self._surprises.labels(line, stage)

    def watch_held(self, held_bytes: Callable[[], int]) -> None:
        """Ask here for the bytes that are held, at each scrape."""
        self._held.set_function(held_bytes)

    def taken(self, frames: int, size_bytes: int, seconds: float) -> None:
        self._taken.inc(size_bytes)
        self._stage["take"].observe(seconds)

    def redelivered(self, camera: str, messages: int, crashes: int) -> None:
        self._redelivered.labels(self._line, "crash").inc(crashes)
        self._redelivered.labels(self._line, "slow").inc(messages - crashes)

    def isolated(self, frames: int, poisonous: int) -> None:
        self._isolated.inc(frames)
        self._poison.inc(poisonous)

    def prepared(self, frames: int, seconds: float) -> None:
        self._stage["prepare"].observe(seconds)

    def waited(self, seconds: float) -> None:
        self._idle.inc(seconds)

    def computed(self, frames: int, backbone_seconds: float, score_seconds: float) -> None:
        self._batch.observe(frames)
        self._busy.inc(backbone_seconds + score_seconds)
        self._stage["backbone"].observe(backbone_seconds)
        self._stage["score"].observe(score_seconds)

    def settled(self, verdicts: Sequence[Verdict], seconds: float, now_us: int) -> None:
        self._stage["settle"].observe(seconds)
        frames: dict[tuple[str, Decision, Reason | None], int] = {}
        by_model: dict[str, tuple[list[float], list[float]]] = {}
        for v in verdicts:
            key = (v.camera, v.decision, v.reason)
            frames[key] = frames.get(key, 0) + 1
            if v.model is not None:
                judged = by_model.get(v.model.name)
                if judged is None:
                    judged = by_model[v.model.name] = ([], [])
                if v.p_value is not None:
                    judged[0].append(v.p_value)
                if v.score is not None and v.threshold:
                    judged[1].append(v.score / v.threshold)
        for (camera, decision, reason), count in frames.items():
            self._frames_with(camera, decision, reason).inc(count)
        for model, values in by_model.items():
            for tally, some in zip(self._judged_by(model), values, strict=True):
                tally.count(some)
        traced = [(v, trace_id(v.traceparent)) for v in verdicts if v.traceparent and is_sampled(v.traceparent)]
        self._from_admission.count(
            [_seconds(v.admitted_us, now_us) for v in verdicts],
            [(_seconds(v.admitted_us, now_us), trace) for v, trace in traced],
        )
        self._from_capture.count(
            [_seconds(v.captured_us, now_us) for v in verdicts if v.captured_us is not None],
            [(_seconds(v.captured_us, now_us), trace) for v, trace in traced if v.captured_us is not None],
        )

    def unreplicated(self, messages: int) -> None:
        """Count them."""
        self._unreplicated.inc(messages)

    def lost_race(self, messages: int) -> None:
        self._races.inc(messages)

    def heat_map(self, outcome: str, seconds: float) -> None:
        self._heat_maps.labels(self._line, outcome).inc()
        if outcome == "stored":
            self._heat_map_seconds.observe(seconds)

    def trouble(self, stage: str, error: BaseException) -> None:
        self._troubles.labels(self._line, stage).inc()

    def surprise(self, stage: str, error: BaseException) -> None:
        self._surprises.labels(self._line, stage).inc()

    def model_loaded(self, name: str, version: int, digest: str, seconds: float, channel: str = STABLE) -> None:
        self._load.labels(self._line, name).observe(seconds)
        self.model_dropped(name, channel)
        self._versions[name, channel] = str(version)
        self._version.labels(self._line, self._worker, name, channel, str(version)).set(1)

    def model_dropped(self, name: str, channel: str) -> None:
        before = self._versions.pop((name, channel), None)
        if before is not None:
            self._version.remove(self._line, self._worker, name, channel, before)

    def model_refused(self, name: str, version: int, error: BaseException) -> None:
        self._refused.labels(self._line, name).inc()

    def _frames_with(self, camera: str, decision: Decision, reason: Reason | None) -> Counter:
        key = (self._label(camera), decision, reason)
        child = self._frames_of.get(key)
        if child is None:
            said = "" if reason is None else reason.value
            child = self._frames_of[key] = self._frames.labels(self._line, key[0], decision.value, said)
        return child

    def _judged_by(self, model: str) -> tuple[Tally, Tally]:
        tallies = self._judged_of.get(model)
        if tallies is None:
            tallies = self._judged_of[model] = (
                self._p_value.labels(self._line, model),
                self._ratio.labels(self._line, model),
            )
        return tallies

    def _label(self, camera: str) -> str:
        if camera not in self._cameras:
            if len(self._cameras) >= MAX_CAMERAS:
                return OTHER
            self._cameras.add(camera)
        return camera


def _seconds(begin_us: int, end_us: int) -> float:
    """A camera's clock may run ahead of Redis's; a latency below 0 would spoil the sum."""
    return (end_us - begin_us) / 1e6 if end_us > begin_us else 0.0
