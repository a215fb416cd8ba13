from __future__ import annotations

import dataclasses
import time

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition

from gaussline.worker.contract.verdict import Decision, ModelRef, Reason, Verdict
from gaussline.worker.telemetry.metrics import MAX_CAMERAS, Metrics


def verdict(camera: str = "cam1", decision: Decision = Decision.PASS, reason: Reason | None = None) -> Verdict:
    return Verdict(
        f"{camera}:1:0", "l", camera, 1, 0, decision, "w", admitted_us=1_000_000, captured_us=500_000, reason=reason
    )


def test_verdicts_are_counted_by_camera_decision_and_reason() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, "l", "w")
    metrics.settled(
        [verdict(), verdict(), verdict(decision=Decision.NOT_JUDGED, reason=Reason.EXPIRED)], 0.002, 1_040_000
    )

    def frames(decision: str, reason: str) -> float | None:
        labels = {"line": "l", "camera": "cam1", "decision": decision, "reason": reason}
        return registry.get_sample_value("gaussline_frames_total", labels)

    assert frames("pass", "") == 2
    assert frames("not_judged", "expired") == 1
    assert registry.get_sample_value("gaussline_admission_to_verdict_seconds_sum", {"line": "l"}) == 3 * 0.04
    assert registry.get_sample_value("gaussline_capture_to_verdict_seconds_count", {"line": "l"}) == 3
    bucket = {"line": "l", "le": "0.05"}
    assert registry.get_sample_value("gaussline_admission_to_verdict_seconds_bucket", bucket) == 3


def test_each_hook_moves_its_own_metric() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, "l", "w")
    metrics.taken(3, 1_000, 0.01)
    metrics.redelivered("cam1", 5, 2)
    metrics.isolated(7, 1)
    metrics.prepared(3, 0.02)
    metrics.waited(0.125)
    metrics.computed(4, 0.5, 0.25)
    metrics.heat_map("stored", 0.2)
    metrics.heat_map("shed", 9.0)
    metrics.lost_race(2)
    metrics.unreplicated(3)
    metrics.trouble("settle", OSError())
    metrics.surprise("compute", ValueError())
    metrics.model_refused("m", 3, ValueError())
    metrics.watch_held(lambda: 77)

    def told(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"gaussline_{name}", {"line": "l", **labels})

    assert told("taken_bytes_total") == 1_000
    assert told("held_bytes") == 77
    assert told("redelivered_messages_total", cause="crash") == 2
    assert told("redelivered_messages_total", cause="slow") == 3
    assert (told("isolated_frames_total"), told("poison_frames_total")) == (7, 1)
    assert (told("device_busy_seconds_total"), told("device_idle_seconds_total")) == (0.75, 0.125)
    assert told("batch_frames_bucket", le="4.0") == 1
    assert told("batch_frames_bucket", le="2.0") == 0
    stages = {"take": 0.01, "prepare": 0.02, "backbone": 0.5, "score": 0.25, "settle": 0.0}
    for stage, seconds in stages.items():
        assert told("stage_seconds_sum", stage=stage) == seconds
    assert (told("heat_maps_total", outcome="stored"), told("heat_maps_total", outcome="shed")) == (1, 1)
    assert (told("heat_map_seconds_sum"), told("heat_map_seconds_count")) == (0.2, 1)
    assert (told("lost_races_total"), told("unreplicated_messages_total")) == (2, 3)
    assert told("troubles_total", stage="settle") == told("surprises_total", stage="compute") == 1
    assert told("model_refusals_total", model="m") == 1


def test_a_camera_whose_clock_runs_ahead_has_no_negative_latency() -> None:
    registry = CollectorRegistry()
    Metrics(registry, "l", "w").settled([dataclasses.replace(verdict(), captured_us=9_000_000)], 0.002, 1_040_000)
    assert registry.get_sample_value("gaussline_capture_to_verdict_seconds_sum", {"line": "l"}) == 0.0
    assert registry.get_sample_value("gaussline_capture_to_verdict_seconds_count", {"line": "l"}) == 1.0


def test_hostile_camera_names_do_not_make_labels_without_end() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, "l", "w")
    metrics.settled([verdict(f"c{number}") for number in range(MAX_CAMERAS + 100)], 0.0, 2_000_000)
    cameras = {
        sample.labels["camera"]
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "gaussline_frames_total"
    }
    assert len(cameras) == MAX_CAMERAS + 1
    labels = {"line": "l", "camera": "other", "decision": "pass", "reason": ""}
    assert registry.get_sample_value("gaussline_frames_total", labels) == 100


def test_only_the_version_in_use_has_a_sample() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, "l", "w")
    metrics.model_loaded("default", 1, "0" * 64, 0.1)
    metrics.model_loaded("default", 2, "1" * 64, 0.1)

    def version(number: str) -> float | None:
        labels = {"line": "l", "worker": "w", "model": "default", "channel": "stable", "version": number}
        return registry.get_sample_value("gaussline_model_version_info", labels)

    assert version("1") is None
    assert version("2") == 1


def test_every_metric_is_in_base_units() -> None:
    registry = CollectorRegistry()
    Metrics(registry, "l", "w")
    for metric in registry.collect():
        assert metric.name.startswith("gaussline_")
        assert not metric.name.endswith(("_ms", "_milliseconds", "_mb", "_kb"))
        if metric.type == "histogram":
            assert metric.name.endswith(("_seconds", "_frames", "_ratio", "_p_value")), metric.name


def test_a_worker_of_two_hundred_cameras_is_scraped_quickly() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, "l", "w")
    reasons = (None, None, Reason.EXPIRED, Reason.UNDECODABLE)
    decisions = (Decision.PASS, Decision.FAIL, Decision.NOT_JUDGED, Decision.NOT_JUDGED)
    for number in range(200):
        judged = [
            verdict(f"cam{number}", decision, reason) for decision, reason in zip(decisions, reasons, strict=True)
        ]
        metrics.settled(judged, 0.002, 1_040_000)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        body = generate_latest(registry)
        times.append(time.perf_counter() - begin)
    samples = [line for line in body.splitlines() if line.startswith(b"gaussline_frames_total{")]
    assert sum(b'decision="fail"' in line for line in samples) == 200
    assert len(body) < 2_000_000
    assert sorted(times)[2] < 0.1, times


def test_p_values_and_scores_over_thresholds_are_distributions_by_model() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, "l", "w")
    model = ModelRef("m", 1, "0" * 64)
    told = [
        dataclasses.replace(verdict(), model=model, p_value=0.03, score=score, threshold=10.0) for score in (5.0, 12.0)
    ]
    metrics.settled([*told, verdict(decision=Decision.NOT_JUDGED, reason=Reason.EXPIRED)], 0.002, 1_040_000)

    def below(name: str, bound: str) -> float | None:
        return registry.get_sample_value(f"gaussline_{name}_bucket", {"line": "l", "model": "m", "le": bound})

    assert [below("p_value", bound) for bound in ("0.02", "0.05")] == [0.0, 2.0]
    assert [below("score_ratio", bound) for bound in ("0.25", "0.5", "1.0", "1.25")] == [0.0, 1.0, 1.0, 2.0]


def test_a_histogram_names_no_trace_that_nobody_recorded() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, "l", "w")
    for trace, flags in (("c", "01"), ("a", "00")):
        told = dataclasses.replace(verdict(), traceparent=f"00-{trace * 32}-{'b' * 16}-{flags}")
        metrics.settled([told], 0.002, 1_040_000)
    text = exposition.generate_latest(registry).decode()  # type: ignore[no-untyped-call]
    assert "c" * 32 in text
    assert "a" * 32 not in text
