"""What the Grafana dashboards show: their panels, as data. `dashboards.py` makes the files of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ADMISSION = "gaussline_admission_to_verdict_seconds"
BATCH = "gaussline_batch_frames"
P_VALUE = "gaussline_p_value"
RATIO = "gaussline_score_ratio"
LOAD = "gaussline_model_load_seconds"
L = 'line=~"$line"'
C = 'line=~"$line",camera=~"$camera"'
M = 'line=~"$line",model=~"$model"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        queries: (expression, legend).
        warn, bad: thresholds; where `bad` is below `warn`, low values are the bad ones.
        book: its runbook page.
    """

    title: str
    text: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    warn: float | None = None
    bad: float | None = None
    book: str | None = None
    width: int = 12


@dataclass(frozen=True, slots=True)
class Page:
    """One dashboard."""

    uid: str
    title: str
    text: str
    variables: tuple[str, ...]
    panels: tuple[Panel, ...]


def _stat(title: str, text: str, query: str, **more: object) -> Panel:
    return Panel(title, text, ((query, "{{line}}"),), kind="stat", width=6, **more)  # type: ignore[arg-type]


LINE = Page(
    "gaussline-line",
    "gaussline: line",
    "Is every part judged? How fast? What fails?",
    ("line", "camera"),
    (
        _stat(
            "Workers",
            "Workers whose heart beats.",
            f"gaussline_line_workers{{{L}}}",
            warn=1.0,
            bad=0.5,
            book="no-worker",
        ),
        _stat(
            "Off the ledger",
            "Admitted less judged, not judged and in flight: anything but 0 is a fault.",
            f"sum by (line) (abs(gaussline_line_imbalance_frames{{{L}}}))",
            warn=1.0,
            bad=1.0,
            book="ledger-imbalance",
        ),
        _stat(
            "Oldest frame without a verdict",
            "Age of the oldest frame in flight.",
            f"max by (line) (gaussline_line_backlog_age_seconds{{{L}}})",
            unit="s",
            warn=2.0,
            bad=10.0,
            book="backlog-age",
        ),
        _stat(
            "Redis's memory",
            "Share of maxmemory in use.",
            f"gaussline_line_redis_memory_bytes{{{L}}} / (gaussline_line_redis_max_memory_bytes{{{L}}} > 0)",
            unit="percentunit",
            warn=0.7,
            bad=0.85,
            book="redis-memory",
        ),
        Panel(
            "Frames by decision",
            "Verdicts a second.",
            ((f"sum by (decision) (rate(gaussline_line_verdicts_total{{{C}}}[1m]))", "{{decision}}"),),
            "reqps",
        ),
        Panel(
            "Admitted and dropped",
            "Frames a second that came in, and that a producer dropped by its policy.",
            (
                (f"sum(rate(gaussline_line_admitted_frames_total{{{C}}}[1m]))", "admitted"),
                (f"sum(rate(gaussline_line_dropped_frames_total{{{C}}}[1m]))", "dropped"),
                (f"sum(rate(gaussline_line_busy_answers_total{{{C}}}[1m]))", "busy answers"),
            ),
            "reqps",
        ),
        Panel(
            "Admission to verdict",
            "Both by Redis's clock.",
            tuple(
                (
                    f"histogram_quantile({q}, sum by (le) (rate({ADMISSION}_bucket{{{L}}}[1m])))",
                    f"p{int(100 * q)}",
                )
                for q in (0.5, 0.99)
            ),
            "s",
            warn=0.25,
            bad=1.0,
            book="latency",
        ),
        Panel(
            "Failed share by camera",
            "Over two minutes.",
            ((f"gaussline:failed_share:2m{{{C}}}", "{{camera}}"),),
            "percentunit",
            warn=0.05,
            bad=0.2,
            book="defect-burst",
        ),
        Panel(
            "Backlog by camera",
            "Encoded bytes without a verdict.",
            ((f"gaussline_line_backlog_bytes{{{C}}}", "{{camera}}"),),
            "bytes",
            book="backlog-age",
        ),
        Panel(
            "Silence by camera",
            "Time since a frame was last admitted.",
            ((f"gaussline_line_silence_seconds{{{C}}}", "{{camera}}"),),
            "s",
            warn=10.0,
            bad=30.0,
            book="camera-silent",
        ),
        Panel(
            "Dead letters",
            "Frames an hour, by reason.",
            ((f"sum by (reason) (increase(gaussline_line_dead_letter_frames_total{{{L}}}[1h]))", "{{reason}}"),),
            book="dead-letters",
        ),
        Panel(
            "Subscribers behind",
            "Age of the oldest verdict that a subscriber has not acknowledged.",
            ((f"gaussline_line_subscriber_lag_seconds{{{L}}}", "{{subscriber}}"),),
            "s",
            warn=60.0,
            bad=300.0,
            book="subscriber-lag",
        ),
    ),
)

WORKERS = Page(
    "gaussline-workers",
    "gaussline: workers",
    "What workers spend their time on.",
    ("line",),
    (
        Panel(
            "Device busy",
            "Share of the time that the device computed.",
            ((f"gaussline:device_busy_share:5m{{{L}}}", "{{line}}"),),
            "percentunit",
        ),
        Panel(
            "Stages",
            "99th percentile of one turn of a stage.",
            (
                (
                    f"histogram_quantile(0.99, sum by (stage, le) (rate(gaussline_stage_seconds_bucket{{{L}}}[1m])))",
                    "{{stage}}",
                ),
            ),
            "s",
        ),
        Panel(
            "Batch size",
            "Mean frames of one backbone pass.",
            (
                (
                    f"sum(rate({BATCH}_sum{{{L}}}[1m])) / sum(rate({BATCH}_count{{{L}}}[1m]))",
                    "frames",
                ),
            ),
        ),
        Panel(
            "Taken",
            "Encoded bytes a second.",
            ((f"sum by (instance) (rate(gaussline_taken_bytes_total{{{L}}}[1m]))", "{{instance}}"),),
            "Bps",
        ),
        Panel(
            "Held",
            "Encoded bytes taken and not yet settled.",
            ((f"sum by (instance) (gaussline_held_bytes{{{L}}})", "{{instance}}"),),
            "bytes",
        ),
        Panel(
            "Redelivered",
            "Messages claimed from other workers.",
            ((f"sum by (cause) (rate(gaussline_redelivered_messages_total{{{L}}}[5m]))", "{{cause}}"),),
            book="pending-age",
        ),
        Panel(
            "Pending by camera",
            "Age of the oldest message in a worker's hands.",
            ((f"gaussline_line_pending_age_seconds{{{L}}}", "{{camera}}"),),
            "s",
            warn=10.0,
            bad=30.0,
            book="pending-age",
        ),
    ),
)

MODELS = Page(
    "gaussline-models",
    "gaussline: models and roll-out",
    "Which version judges, and whether it keeps its word.",
    ("line", "model"),
    (
        Panel(
            "Versions",
            "Where each channel points.",
            ((f"gaussline_line_model_version{{{M}}}", "{{model}}/{{channel}}"),),
        ),
        Panel(
            "Versions by worker",
            "Workers that score with a version.",
            (
                (
                    f"count by (model, channel, version) (gaussline_model_version_info{{{M}}})",
                    "{{model}}/{{channel}} {{version}}",
                ),
            ),
            book="version-skew",
        ),
        Panel(
            "Stale workers",
            "Living workers that judge by another version than stable.",
            ((f"gaussline_line_stale_workers{{{M}}}", "{{model}}"),),
            warn=1.0,
            bad=1.0,
            book="version-skew",
        ),
        Panel(
            "Refusing workers",
            "Living workers that cannot load the stable version.",
            ((f"gaussline_line_refusing_workers{{{M}}}", "{{model}}"),),
            warn=1.0,
            bad=1.0,
            book="model-load-failure",
        ),
        Panel(
            "Failed share against the stated rate",
            "The failed share holds true defects too: look at it beside what the line usually shows.",
            (
                (f"gaussline:failed_share:30m{{{L}}}", "failed share, 30 minutes"),
                (f"gaussline_line_stated_false_positive_rate{{{M}}}", "stated rate of {{model}}"),
            ),
            "percentunit",
            book="false-positive-drift",
        ),
        Panel(
            "Loading a model",
            "Mean time to fetch, check and warm up.",
            (
                (
                    f"sum by (model) ({LOAD}_sum{{{M}}}) / sum by (model) ({LOAD}_count{{{M}}})",
                    "{{model}}",
                ),
            ),
            "s",
        ),
        Panel(
            "Score over threshold",
            "Median and 99 of 100 of the frames; a median that creeps up is a model that no longer fits.",
            (
                (f"histogram_quantile(0.5, sum by (le, model) (rate({RATIO}_bucket{{{M}}}[5m])))", "{{model}} median"),
                (f"histogram_quantile(0.99, sum by (le, model) (rate({RATIO}_bucket{{{M}}}[5m])))", "{{model}} p99"),
            ),
        ),
        Panel(
            "P-values up to 5 %",
            "Share of the frames; where parts are good and the model fits it is 5 %.",
            (
                (
                    (
                        f'sum by (model) (rate({P_VALUE}_bucket{{le="0.05",{M}}}[15m]))'
                        f" / (sum by (model) (rate({P_VALUE}_count{{{M}}}[15m])) > 0)"
                    ),
                    "{{model}}",
                ),
            ),
            "percentunit",
        ),
        Panel(
            "Drift alarms that stand",
            "By camera and kind; 0 for a model whose learner sees no drift.",
            (
                (
                    (
                        f"sum by (model, camera, kind) (gaussline_line_drift_alarm{{{M}}})"
                        f" or 0 * sum by (model) (gaussline_line_learner_running{{{M}}})"
                    ),
                    "{{model}} {{camera}} {{kind}}",
                ),
            ),
            warn=1,
            bad=2,
            book="image-drift",
        ),
        Panel(
            "Learner behind",
            "Age of the oldest feature event that no checkpoint has read.",
            ((f"max by (model) (gaussline_line_learner_behind_seconds{{{M}}})", "{{model}}"),),
            "s",
            warn=300,
            bad=900,
            book="learner-stalled",
        ),
        Panel(
            "What became of the learner's frames",
            "Seen, taught, and why the others were not.",
            ((f"sum by (model, outcome) (gaussline_learner_frames{{{M}}})", "{{model}} {{outcome}}"),),
        ),
    ),
)
PAGES: Sequence[Page] = (LINE, WORKERS, MODELS)
