"""What the exporter says of a line, of a state that is made by hand."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client import CollectorRegistry

from gaussline.worker.broker.certificates import Certificate
from gaussline.worker.broker.dead_letters import DeadCount
from gaussline.worker.broker.learners import LearnerState, StandingAlarm
from gaussline.worker.broker.ledger import Ledger, LedgerRow
from gaussline.worker.broker.line_state import LineState, PendingState, SetState, WorkerState
from gaussline.worker.broker.registry import Pointer
from gaussline.worker.broker.sets import SetCounts
from gaussline.worker.contract.keys import MAIN
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.errors import BrokerUnavailable
from gaussline.worker.telemetry.line_metrics import MAX_CAMERAS, OTHER, LineMetrics

NOW_US = 1_000_000_000


def row(camera: str, **changed: object) -> LedgerRow:
    """Ten frames: five passed, two failed, one was not judged, two wait."""
    fields: dict[str, object] = {
        "camera": camera,
        "admitted": 10,
        "passed": 5,
        "failed": 2,
        "not_judged": 1,
        "in_flight": 2,
        "in_flight_bytes": 200,
        "counted_bytes": 200,
        "backlog_age_s": 4.0,
        "unsettled_messages": 2,
        "stream_entries": 2,
        "duplicates": 3,
        "busy": 4,
        "fenced": 5,
        "dropped": 6,
        "unadmitted": 7,
        "epoch": 1,
        "last_admitted_us": NOW_US - 3_000_000,
    }
    return LedgerRow(**(fields | changed))  # type: ignore[arg-type]


def worker(name: str, *, alive: bool = True, version: int = 2, **changed: object) -> WorkerState:
    """One that judges by a version of model `m`."""
    made = WorkerState(name, alive, "host", 1, "cpu", {"m": version}, {}, {})
    return replace(made, **changed)  # type: ignore[arg-type]


def state(*rows: LedgerRow, **changed: object) -> LineState:
    """A line with version 2 of model `m` in its stable channel."""
    pending = {each.camera: PendingState(1, each.backlog_age_s / 2.0) for each in rows}
    pointer = Pointer("m", "stable", 2, "0" * 64, 1, "2026", "ada")
    made = LineState("l", Ledger(rows, NOW_US), pending, (), (pointer,), {}, {"m": 0.02}, (), {}, {}, 70, 100)
    return replace(made, **changed)  # type: ignore[arg-type]


class Page:
    """One scrape."""

    def __init__(self, told: LineState, **words: object) -> None:
        registry = CollectorRegistry()
        registry.register(LineMetrics(lambda: told, "l", 500, **words))  # type: ignore[arg-type]
        self._registry = registry

    def __call__(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(f"gaussline_line_{name}", {"line": "l", **labels})


def test_a_camera_in_numbers() -> None:
    page = Page(state(row("c1"), row("c2", admitted=7, last_admitted_us=0)))
    counters = {"admitted_frames": 10, "dropped_frames": 6, "duplicate_messages": 3, "busy_answers": 4}
    for name, value in (counters | {"fenced_answers": 5, "unadmitted_entries": 7}).items():
        assert page(f"{name}_total", camera="c1") == value, name
    gauges: dict[str, float] = {
        "in_flight_frames": 2,
        "backlog_bytes": 200,
        "imbalance_frames": 0,
        "backlog_age_seconds": 4.0,
    }
    for name, level in (gauges | {"pending_age_seconds": 2.0, "silence_seconds": 3.0}).items():
        assert page(name, camera="c1") == level, name
    for decision, count in (("pass", 5), ("fail", 2), ("not_judged", 1)):
        assert page("verdicts_total", camera="c1", decision=decision) == count
    assert page("imbalance_frames", camera="c2") == -3, "more were judged than admitted"
    assert page("silence_seconds", camera="c2") is None, "it never sent any"


def test_beyond_the_bound_the_quiet_cameras_are_one_and_the_worst_of_them_is_told() -> None:
    busy = [row(f"c{number}", admitted=1000) for number in range(MAX_CAMERAS - 1)]
    quiet = [
        row("q1", backlog_age_s=9.0, last_admitted_us=NOW_US - 8_000_000),
        row("q2", backlog_age_s=1.0, last_admitted_us=NOW_US - 1_000_000),
    ]
    page = Page(state(*quiet, *busy))
    assert page("admitted_frames_total", camera="c0") == 1000
    assert page("admitted_frames_total", camera="q1") is None
    assert page("admitted_frames_total", camera=OTHER) == 20
    assert page("backlog_age_seconds", camera=OTHER) == 9.0
    assert page("pending_age_seconds", camera=OTHER) == 4.5
    assert page("silence_seconds", camera=OTHER) == 8.0


def test_workers_that_lag_or_refuse_are_counted_where_they_live() -> None:
    workers = (
        worker("w1"),
        worker("older", version=1),
        worker("newer", version=3),
        worker("dead", alive=False, version=1, refused={"m": "torn"}),
        worker("torn", refused={"m": "torn"}),
        worker("elsewhere", version=9, worker_set="b4"),
    )
    sets = (
        SetState(MAIN, 4, 1, 0, frozenset(), SetCounts(0, 0, 0, 0, 0)),
        SetState("b4", 1, 2, 3, frozenset({"n"}), SetCounts(10, 11, 12, 13, 14)),
    )
    page = Page(state(row("c1"), workers=workers, sets=sets))
    assert page("workers") == 5
    assert page("stale_workers", model="m") == 2
    assert page("refusing_workers", model="m") == 1
    assert page("model_version", model="m", channel="stable") == 2
    assert page("stated_false_positive_rate", model="m") == 0.02
    told = ("set_workers", "set_cameras", "set_copied_cameras", "set_waiting_bytes")
    assert [page(name, set="b4") for name in told] == [1, 2, 3, 14]
    counted = ("set_copied_frames_total", "set_shed_frames_total", "set_results_total")
    assert [page(name, set="b4") for name in counted] == [10, 11, 13]
    assert Page(state(row("c1")))("workers") == 0, "none is a number too, or its alert never fires"


def test_stores_subscribers_learners_and_certificates() -> None:
    alarms = (StandingAlarm("c1", "image", "image:exposure", 1, "darker"),)
    learner = LearnerState("m", False, "", 70.0, 5.0, alarms)
    dead = (DeadCount(Reason.UNDECODABLE, 9, 2, 300, 0, 0),)
    totals = {"bytes": 400, "kept_bytes": 5, "verdict_bytes": 6, "verdicts_lost": 7}
    told = state(row("c1"), learners=(learner,), dead=dead, totals=totals, subscribers={"mes": 8.0})
    page = Page(told, certificates=lambda: (Certificate("server", "a.crt", 1234.0),))
    assert page("up") == 1.0
    assert page("dead_letter_frames_total", reason="undecodable") == 9
    assert page("dead_letter_bytes", reason="undecodable") == 300
    assert page("dead_letter_frames_total", reason="poison") == 0, "it stands at 0 before the first"
    names = ("unsettled_bytes", "budget_bytes", "kept_bytes", "verdict_bytes", "redis_memory_bytes")
    assert [page(name) for name in (*names, "redis_max_memory_bytes")] == [400, 500, 5, 6, 70, 100]
    assert page("lost_verdicts_total") == 7
    assert page("subscriber_lag_seconds", subscriber="mes") == 8.0
    assert [page(f"learner_{name}", model="m") for name in ("running", "behind_seconds")] == [0.0, 70.0]
    assert page("feature_event_age_seconds", model="m") == 5.0
    assert page("drift_alarm", model="m", camera="c1", kind="image") == 1.0
    assert page("certificate_not_after_seconds", certificate="server") == 1234.0


def test_where_redis_is_away_that_and_the_certificates_are_all() -> None:
    def away() -> LineState:
        raise BrokerUnavailable("gone")

    registry = CollectorRegistry()
    registry.register(LineMetrics(away, "l", 500, lambda: (Certificate("server", "a.crt", 1.0),)))
    samples = {sample.name: sample.value for metric in registry.collect() for sample in metric.samples}
    assert samples == {"gaussline_line_certificate_not_after_seconds": 1.0, "gaussline_line_up": 0.0}
