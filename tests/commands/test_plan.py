"""`gaussline plan` is arithmetic over what was measured; it refuses what was not."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from gaussline.worker.commands.capacity import BASE_BYTES, BUSY, SPARE, Load, Measured, plan
from gaussline.worker.errors import SettingsError
from gaussline.worker.settings import Settings
from tests.support.cli import Cli

MEASURED = Measured(
    machine="a machine",
    date="2026-01-01",
    cores=2,
    images_per_second={"mobilenet_v2": {"cpu": 100.0, "l4": 1000.0}},
    decode_ms_per_megapixel={"jpeg": 20.0, "raw": 0.0},
    worker_frames_per_second=2_000.0,
    message_us=300.0,
    byte_ns=2.0,
    payload_factor=1.1,
    message_bytes=1_000.0,
    verdict_bytes=500.0,
    feature_bytes={"mobilenet_v2": 2_000.0},
    learner_frames_per_second={"mobilenet_v2": 4_000.0},
)
SETTINGS = Settings.load({}, heat_maps="off", kept_store="file:///kept")


def load(**changed: object) -> Load:
    fields = {"cameras": 10, "rate": 5.0, "frame_bytes": 100_000, "megapixels": 1.0, "backbone": "mobilenet_v2"}
    return Load(**{**fields, **changed})  # type: ignore[arg-type]


def test_workers_of_a_cpu_share_it_between_backbone_and_decoding() -> None:
    made = plan(load(), MEASURED, SETTINGS)
    alone = 1.0 / (1.0 / 100.0 + 0.020 / 2)
    assert made.workers == math.ceil(50.0 / (BUSY * alone)) + 1 == 3
    more = plan(load(cores=8), MEASURED, SETTINGS)
    assert more.workers == math.ceil(50.0 / (BUSY * 4 * alone)) + 1 == 2
    assert any("in proportion" in note for note in more.notes)
    assert f"{4 * alone:,.1f} frames/s each" in more.needs[0].why
    own = plan(load(cores=8, images_per_second=100.0), MEASURED, SETTINGS)
    assert "80.0 frames/s each" in own.needs[0].why, "your own number is of your own cores; decoding has all eight"


def test_decoding_and_the_pipeline_hold_a_quick_device() -> None:
    held = plan(load(device="l4", cores=2), MEASURED, SETTINGS)
    assert any("decoding on 2 cores holds the device at 100" in note for note in held.notes)
    raw = plan(load(device="l4", encoding="raw", rate=300.0), MEASURED, SETTINGS)
    assert raw.workers == math.ceil(3000.0 / (BUSY * 1000.0)) + 1
    own = plan(load(device="h100", encoding="raw", rate=300.0, images_per_second=9_000.0), MEASURED, SETTINGS)
    assert own.workers == math.ceil(3000.0 / (BUSY * 2_000.0)) + 1, "the pipeline's own ceiling"
    assert any("your own number" in note for note in own.notes)


def test_redis_in_numbers() -> None:
    made = plan(load(), MEASURED, SETTINGS)
    assert made.redis_cpu_share == pytest.approx(50.0 * (300e-6 + 2e-9 * 100_000))
    assert made.network_share == pytest.approx(50.0 * 100_000 * 8 / 1e9)
    backlog = 50.0 * 60.0 * (1.1 * 100_000 + 1_000.0)
    verdicts = float(SETTINGS.verdict_max_bytes)
    assert made.redis_memory_bytes == math.ceil(SPARE * (BASE_BYTES + backlog + verdicts + SETTINGS.dead_max_bytes))
    assert any("verdict_max_bytes holds 11.9 h" in note for note in made.notes)
    assert not any("verdict_max" in note for note in plan(load(rate=2.0), MEASURED, SETTINGS).notes)
    assert any("camera_budget_bytes holds 54 s" in n for n in plan(load(rate=50.0), MEASURED, SETTINGS).notes)


def test_the_first_limit_is_the_one_that_is_reached_first() -> None:
    small = plan(load(frame_bytes=1_000, encoding="raw"), MEASURED, SETTINGS).first_limit
    assert small.what == "Redis's one thread"
    assert small.frames_per_second == pytest.approx(BUSY / (300e-6 + 2e-9 * 1_000))
    assert small.headroom == pytest.approx(small.frames_per_second / 50.0)
    big = plan(load(frame_bytes=1_000_000), MEASURED, SETTINGS).first_limit
    assert big.what == "1 Gbit/s at Redis"
    taught = plan(load(features=1.0, frame_bytes=1_000, network_gbit=10.0), MEASURED, SETTINGS)
    assert taught.learner_share == pytest.approx(50.0 / 4_000.0)
    assert taught.first_limit.what != "the learner"
    over = plan(load(cameras=400, frame_bytes=200_000), MEASURED, SETTINGS)
    assert over.lines == math.ceil(1.0 / over.first_limit.headroom) == 5
    assert any("cut the cameras into 5 lines" in note for note in over.notes)


def test_redis_holds_what_the_settings_let_it_hold() -> None:
    def bytes_of(changed: dict[str, object], **more: object) -> float:
        return plan(load(**more), MEASURED, SETTINGS.model_copy(update=changed)).redis_memory_bytes / SPARE

    least = bytes_of({})
    assert bytes_of({"kept_store": "redis"}) - least == pytest.approx(SETTINGS.kept_max_bytes, abs=2)
    assert bytes_of({"heat_maps": "failed"}) - least == pytest.approx(SETTINGS.heat_maps_max_bytes, abs=2)
    events = 50.0 * 0.1 * 2_000.0 * (SETTINGS.learn_quarantine_s + 60.0)
    assert bytes_of({}, features=0.1) - least == pytest.approx(min(events, SETTINGS.features_max_bytes), abs=2)
    small: dict[str, object] = {"features_max_bytes": 10_000}
    assert bytes_of(small, features=0.1) - bytes_of(small) == pytest.approx(10_000, abs=2)
    budget = SETTINGS.model_copy(update={"line_budget_bytes": 250_000_000})
    assert any("line_budget_bytes holds 50 s" in note for note in plan(load(), MEASURED, budget).notes)


def test_a_learner_is_a_limit_and_no_reason_to_cut_a_line() -> None:
    slow = dataclasses.replace(MEASURED, learner_frames_per_second={"mobilenet_v2": 10.0})
    made = plan(load(features=0.5), slow, SETTINGS)
    assert made.first_limit.what == "the learner"
    assert made.first_limit.frames_per_second == pytest.approx(BUSY * 10.0 / 0.5)
    assert made.lines == 1


def test_more_never_needs_less() -> None:
    before = plan(load(), MEASURED, SETTINGS)
    for changed in (
        {"cameras": 50},
        {"rate": 20.0},
        {"frame_bytes": 400_000},
        {"megapixels": 4.0},
        {"outage_s": 600.0},
    ):
        after = plan(load(**changed), MEASURED, SETTINGS)
        assert after.workers >= before.workers
        assert after.redis_memory_bytes >= before.redis_memory_bytes
        assert after.first_limit.headroom <= before.first_limit.headroom


def test_what_was_not_measured_is_refused() -> None:
    with pytest.raises(SettingsError, match="mobilenet_v2 on h100 was not measured"):
        plan(load(device="h100"), MEASURED, SETTINGS)
    with pytest.raises(SettingsError, match="vit on cpu was not measured"):
        plan(load(backbone="vit"), MEASURED, SETTINGS)
    with pytest.raises(SettingsError, match="measured are jpeg, raw"):
        plan(load(encoding="tiff"), MEASURED, SETTINGS)


def test_the_command(tmp_path: Path) -> None:
    cli = Cli("redis://127.0.0.1:1", "line1")
    words = ("plan", "--cameras", "40", "--rate", "5", "--frame-bytes", "200k", "--backbone", "efficientnet_b4")
    told = cli(*words).stdout
    assert Measured.read().machine in told, "it says where its numbers come from"
    assert "first limit" in told
    read = json.loads(cli(*words, "--json").stdout)
    assert read["frames_per_second"] == 200.0
    assert read["first_limit"]["headroom"] > 0
    assert read["workers"] > 2
    refused = cli(*words, "--gpu", "l4", code=2).stderr
    assert "--images-per-second" in refused
    assert json.loads(cli(*words, "--gpu", "l4", "--images-per-second", "400", "--json").stdout)["workers"] == 2
    assert "a number of bytes" in cli(*words[:5], "--frame-bytes", "many", code=2).stderr
    wrong = tmp_path / "measured.json"
    wrong.write_text("{}", "utf-8")
    assert "no file of bench.capacity" in cli(*words, "--measured", str(wrong), code=2).stderr
    assert "cannot be read" in cli(*words, "--measured", str(tmp_path / "no"), code=2).stderr


def test_the_package_has_measurements_of_the_backbones_that_fits_offer() -> None:
    measured = Measured.read()
    assert {"mobilenet_v2", "efficientnet_b4"} <= set(measured.images_per_second)
    for rates in measured.images_per_second.values():
        assert all(rate > 0 for rate in rates.values())
    assert (
        measured.learner_frames_per_second.keys() == measured.images_per_second.keys() == measured.feature_bytes.keys()
    )
