"""What the Grafana dashboards show. `dashboards.py` makes the files of it."""

from __future__ import annotations

from collections.abc import Sequence

from panel import FRAMES_A_SECOND, C, L, M, Page, Panel, age, graph, quantile, stat

LINE = Page(
    "gaussline-line",
    "gaussline: line",
    "Is every part judged? How fast? What fails?",
    ("line", "camera"),
    (
        stat(
            "Workers",
            "Workers whose heart beats.",
            f"gaussline_line_workers{{{L}}}",
            warn=1.0,
            bad=0.5,
            book="no-worker",
        ),
        stat(
            "Off the ledger",
            "Admitted less judged, not judged and in flight: anything but 0 is a fault.",
            f"sum by (line) (abs(gaussline_line_imbalance_frames{{{L}}}))",
            warn=1.0,
            bad=1.0,
            book="ledger-imbalance",
        ),
        stat(
            "Oldest frame without a verdict",
            "Age of the oldest frame in flight.",
            f"max by (line) (gaussline_line_backlog_age_seconds{{{L}}})",
            unit="s",
            warn=2.0,
            bad=10.0,
            book="backlog-age",
        ),
        stat(
            "Redis's memory",
            "Share of maxmemory in use.",
            f"gaussline_line_redis_memory_bytes{{{L}}} / (gaussline_line_redis_max_memory_bytes{{{L}}} > 0)",
            unit="percentunit",
            warn=0.7,
            bad=0.85,
            book="redis-memory",
        ),
        graph(
            "Frames by decision",
            "Verdicts a second.",
            f"sum by (decision) (rate(gaussline_line_verdicts_total{{{C}}}[1m]))",
            "{{decision}}",
            FRAMES_A_SECOND,
        ),
        Panel(
            "Admitted and dropped",
            "Frames a second that came in, and that a producer dropped by its policy; answers that told it to wait.",
            (
                (f"sum(rate(gaussline_line_admitted_frames_total{{{C}}}[1m]))", "admitted"),
                (f"sum(rate(gaussline_line_dropped_frames_total{{{C}}}[1m]))", "dropped"),
                (f"sum(rate(gaussline_line_busy_answers_total{{{C}}}[1m]))", "busy answers"),
            ),
            FRAMES_A_SECOND,
            book="backlog-age",
        ),
        Panel(
            "Time to verdict",
            "From admission, both by Redis's clock; and from capture, by the camera's.",
            (
                (quantile(0.5, "gaussline_admission_to_verdict_seconds", L), "from admission, median"),
                (quantile(0.99, "gaussline_admission_to_verdict_seconds", L), "from admission, p99"),
                (quantile(0.99, "gaussline_capture_to_verdict_seconds", L), "from capture, p99"),
            ),
            "s",
            warn=0.25,
            bad=1.0,
            book="latency",
        ),
        graph(
            "Failed share by camera",
            "Over two minutes.",
            f"gaussline:failed_share:2m{{{C}}}",
            "{{camera}}",
            "percentunit",
            warn=0.05,
            bad=0.2,
            book="defect-burst",
        ),
        graph(
            "Backlog by camera",
            "Encoded bytes without a verdict.",
            f"gaussline_line_backlog_bytes{{{C}}}",
            "{{camera}}",
            "bytes",
            book="backlog-age",
        ),
        age(
            "Silence by camera",
            "Time since a frame was last admitted.",
            f"gaussline_line_silence_seconds{{{C}}}",
            "{{camera}}",
            10.0,
            30.0,
            "camera-silent",
        ),
        graph(
            "Dead letters",
            "Frames an hour, by reason.",
            f"sum by (reason) (increase(gaussline_line_dead_letter_frames_total{{{L}}}[1h]))",
            "{{reason}}",
            book="dead-letters",
        ),
        age(
            "Subscribers behind",
            "Age of the oldest verdict that a subscriber has not acknowledged.",
            f"gaussline_line_subscriber_lag_seconds{{{L}}}",
            "{{subscriber}}",
            60.0,
            300.0,
            "subscriber-lag",
        ),
        Panel(
            "What Redis holds",
            "Bytes by use; frames without a verdict beside the budget that they may have.",
            (
                (f"gaussline_line_unsettled_bytes{{{L}}}", "{{line}} frames without a verdict"),
                (f"gaussline_line_budget_bytes{{{L}}}", "{{line}} their budget"),
                (f"gaussline_line_kept_bytes{{{L}}}", "{{line}} kept frames"),
                (f"gaussline_line_verdict_bytes{{{L}}}", "{{line}} verdicts"),
                (f"sum by (line) (gaussline_line_dead_letter_bytes{{{L}}})", "{{line}} dead letters"),
            ),
            "bytes",
            book="redis-memory",
        ),
    ),
)

WORKERS = Page(
    "gaussline-workers",
    "gaussline: workers",
    "What workers spend their time on.",
    ("line",),
    (
        graph(
            "Device busy",
            "Share of the time that the device computed.",
            f"gaussline:device_busy_share:5m{{{L}}}",
            "{{line}}",
            "percentunit",
            book="backlog-age",
        ),
        graph(
            "Stages",
            "99th percentile of one turn of a stage.",
            quantile(0.99, "gaussline_stage_seconds", L, by="stage, le"),
            "{{stage}}",
            "s",
            book="latency",
        ),
        graph(
            "Batch size",
            "Mean frames of one backbone pass.",
            f"sum(rate(gaussline_batch_frames_sum{{{L}}}[1m])) / sum(rate(gaussline_batch_frames_count{{{L}}}[1m]))",
            "frames",
        ),
        graph(
            "Taken",
            "Encoded bytes a second.",
            f"sum by (instance) (rate(gaussline_taken_bytes_total{{{L}}}[1m]))",
            "{{instance}}",
            "Bps",
        ),
        graph(
            "Held",
            "Encoded bytes taken and not yet settled.",
            f"sum by (instance) (gaussline_held_bytes{{{L}}})",
            "{{instance}}",
            "bytes",
        ),
        Panel(
            "Taken over",
            "A second: messages claimed from other workers, settlements lost to them, frames judged alone after a "
            "death, and those that were to blame.",
            (
                (f"sum by (cause) (rate(gaussline_redelivered_messages_total{{{L}}}[5m]))", "messages: {{cause}}"),
                (f"sum(rate(gaussline_lost_races_total{{{L}}}[5m]))", "lost races"),
                (f"sum(rate(gaussline_isolated_frames_total{{{L}}}[5m]))", "judged alone"),
                (f"sum(rate(gaussline_poison_frames_total{{{L}}}[5m]))", "poison"),
            ),
            "ops",
            book="pending-age",
        ),
        age(
            "Pending by camera",
            "Age of the oldest message in a worker's hands.",
            f"gaussline_line_pending_age_seconds{{{L}}}",
            "{{camera}}",
            10.0,
            30.0,
            "pending-age",
        ),
        Panel(
            "Faults",
            "A second, by stage: expected ones, such as Redis away, and those that nobody expected; the log has each.",
            (
                (f"sum by (stage) (rate(gaussline_troubles_total{{{L}}}[5m]))", "{{stage}}"),
                (f"sum by (stage) (rate(gaussline_surprises_total{{{L}}}[5m]))", "{{stage}}, unexpected"),
            ),
            "ops",
        ),
        graph(
            "Heat maps",
            "A second, by what became of them.",
            f"sum by (outcome) (rate(gaussline_heat_maps_total{{{L}}}[5m]))",
            "{{outcome}}",
            "ops",
        ),
    ),
)

MODELS = Page(
    "gaussline-models",
    "gaussline: models and drift",
    "Whether the version that judges keeps its word, and what the learner sees.",
    ("line", "model"),
    (
        Panel(
            "Failed share against the stated rate",
            "The failed share holds true defects too: look at it beside what the line usually shows.",
            (
                (f"gaussline:failed_share:30m{{{L}}}", "failed share of {{line}}, 30 minutes"),
                (f"gaussline_line_stated_false_positive_rate{{{M}}}", "stated rate of {{model}}"),
            ),
            "percentunit",
            book="false-positive-drift",
        ),
        Panel(
            "Score over threshold",
            "Median and 99 of 100 of the frames; a median that creeps up is a model that no longer fits.",
            (
                (quantile(0.5, "gaussline_score_ratio", M, by="le, model", over="5m"), "{{model}} median"),
                (quantile(0.99, "gaussline_score_ratio", M, by="le, model", over="5m"), "{{model}} p99"),
            ),
            warn=0.9,
            bad=1.0,
            book="feature-drift",
        ),
        graph(
            "P-values up to 5 %",
            "Share of the frames; where parts are good and the model fits it is 5 %.",
            f'sum by (model) (rate(gaussline_p_value_bucket{{le="0.05",{M}}}[15m]))'
            f" / (sum by (model) (rate(gaussline_p_value_count{{{M}}}[15m])) > 0)",
            "{{model}}",
            "percentunit",
            warn=0.1,
            bad=0.15,
            book="false-positive-drift",
        ),
        graph(
            "Drift alarms that stand",
            "By camera and kind; 0 for a model whose learner sees no drift.",
            f"sum by (model, camera, kind) (gaussline_line_drift_alarm{{{M}}})"
            f" or 0 * sum by (model) (gaussline_line_learner_running{{{M}}})",
            "{{model}} {{camera}} {{kind}}",
            warn=1.0,
            bad=1.0,
            book="image-drift",
        ),
        age(
            "Learner behind",
            "Age of the oldest feature event that no checkpoint has read.",
            f"max by (model) (gaussline_line_learner_behind_seconds{{{M}}})",
            "{{model}}",
            300.0,
            900.0,
            "learner-stalled",
        ),
        graph(
            "What became of the learner's frames",
            "Seen, taught, and why the others were not.",
            f"sum by (model, outcome) (gaussline_learner_frames{{{M}}})",
            "{{model}} {{outcome}}",
        ),
        Panel(
            "What the learner holds",
            "Frames behind its moments (counted as what they still weigh), in quarantine, and held for calibration.",
            (
                (f"gaussline_learner_effective_frames{{{M}}}", "{{model}} in the moments"),
                (f"gaussline_learner_quarantined_frames{{{M}}}", "{{model}} in quarantine"),
                (f"gaussline_learner_reservoir_frames{{{M}}}", "{{model}} for calibration"),
            ),
        ),
    ),
)

ROLLOUT = Page(
    "gaussline-rollout",
    "gaussline: roll-out",
    "Which version judges where, and what became of new ones.",
    ("line", "model"),
    (
        graph(
            "Versions",
            "Where each channel points.",
            f"gaussline_line_model_version{{{M}}}",
            "{{model}}/{{channel}}",
            "none",
        ),
        graph(
            "Versions by worker",
            "Workers that score with a version.",
            f"count by (model, channel, version) (gaussline_model_version_info{{{M}}})",
            "{{model}}/{{channel}} {{version}}",
            book="version-skew",
        ),
        graph(
            "Stale workers",
            "Living workers that judge by another version than stable.",
            f"gaussline_line_stale_workers{{{M}}}",
            "{{model}}",
            warn=1.0,
            bad=1.0,
            book="version-skew",
        ),
        graph(
            "Refusing workers",
            "Living workers that cannot load the stable version.",
            f"gaussline_line_refusing_workers{{{M}}}",
            "{{model}}",
            warn=1.0,
            bad=1.0,
            book="model-load-failure",
        ),
        graph(
            "Loading a version",
            "Mean time to fetch, check and warm up, since the workers began.",
            f"sum by (model) (gaussline_model_load_seconds_sum{{{M}}})"
            f" / sum by (model) (gaussline_model_load_seconds_count{{{M}}})",
            "{{model}}",
            "s",
        ),
        graph(
            "Versions proposed",
            "By the learner within a day, and those that its guard refused.",
            f"sum by (model, result) (increase(gaussline_learner_proposals_total{{{M}}}[1d]))",
            "{{model}} {{result}}",
        ),
        graph(
            "Trials ended",
            "Within a day, by how; 0 for a model of which none has ended.",
            f"sum by (model, channel, state) (increase(gaussline_judge_rulings_total{{{M}}}[1d]))"
            f" or 0 * sum by (model) (gaussline_line_model_version{{{M}}})",
            "{{model}}/{{channel}} {{state}}",
        ),
    ),
)
PAGES: Sequence[Page] = (LINE, WORKERS, MODELS, ROLLOUT)
