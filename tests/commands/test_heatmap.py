"""Heat maps and verification, from the worker's ring to a person's files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gaussline.worker.broker.heat_maps import HeatMaps
from gaussline.worker.broker.kept import KeptFrames
from gaussline.worker.contract.heat_map import Explanation
from tests.broker.way import Way
from tests.commands.inside import Inside
from tests.commands.workers import WorkerProcess, start_worker
from tests.support.cli import Cli
from tests.support.waiting import eventually


@pytest.fixture
def inside(cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    return Inside(cli, monkeypatch, capsys)


RANDOM = {"GAUSSLINE_ALLOW_RANDOM_WEIGHTS": "true"}


def judged(cli: Cli, model_file: Path, folder: Path, frames: int, **settings: str) -> tuple[WorkerProcess, list[Any]]:
    """A line that has judged a folder, and its verdicts."""
    cli("models", "import", str(model_file), "--by", "ada")
    cli("models", "promote", "default", "1", "--by", "ada")
    worker = start_worker(cli, env={"GAUSSLINE_KEEP_PASS_SHARE": "1"} | settings)
    cli("produce", str(folder), "--camera", "cam1", "--quiet")
    read = cli("verdicts", "--follow", "--json", "--group", "mes", "--limit", str(frames))
    return worker, [json.loads(line) for line in read.stdout.splitlines()]


def test_maps_and_verification_from_the_frame_to_its_expiry(
    cli: Cli, inside: Inside, way: Way, model_file: Path, parts: Path, tmp_path: Path
) -> None:
    here = RANDOM
    worker, verdicts = judged(cli, model_file, parts / "bad", 12)
    failed = [one for one in verdicts if one["decision"] == "fail"]
    assert failed, "the defects of the rendered parts are seen even by random weights"
    assert all(one["heat_map"] == f"{one['id']}@{one['model']['digest'][:16]}" for one in failed)
    assert all(one["heat_map"] is None for one in verdicts if one["decision"] == "pass")
    ring = HeatMaps(way.client, way.line)
    eventually(lambda: ring.count().maps == len(failed), what="a map for every failed frame")
    assert worker.metric("gaussline_heat_maps_total", outcome="stored") == len(failed)
    assert worker.metric("gaussline_heat_map_seconds_count") == len(failed)

    # From the ring, with the frame below it.
    frame = failed[0]["id"]
    picture, array, levels = tmp_path / "map.png", tmp_path / "map.npy", tmp_path / "map.safetensors"
    told = json.loads(inside("heatmap", frame, "-o", str(picture), "--array", str(array), "--json", env=here).stdout)
    assert told["source"] == "stored by the worker"
    assert told["score"] == pytest.approx(failed[0]["score"], rel=1e-4)
    assert told["sum"] == pytest.approx(told["score"], rel=1e-5)
    assert Image.open(io.BytesIO(picture.read_bytes())).size == (64, 64)
    values = np.load(array, allow_pickle=False)
    assert (values.shape, values.dtype) == ((64, 64), np.float32)
    assert values.sum(dtype=np.float64) == pytest.approx(told["score"], rel=1e-5)

    # The ring has lost it: made again, and the same.
    way.client.delete(way.keys.heat(failed[0]["heat_map"]))
    again = json.loads(inside("heatmap", frame, "-o", str(picture), "--array", str(levels), "--json", env=here).stdout)
    assert again["source"] == "made again from the kept frame"
    assert again["score"] == pytest.approx(told["score"], rel=1e-4)
    assert Explanation.from_bytes(levels.read_bytes()).frame == frame

    # Every kept frame comes out the same.
    sure = json.loads(inside("verify", "--all-kept", "--json", env=here).stdout)
    assert (sure["confirmed"], sure["differs"], sure["failed"]) == (12, 0, 0)
    assert f"{frame}: confirmed" in inside("verify", frame, env=here).stdout

    # A verdict that says another score than its version gives is found out.
    key = way.keys.kept_verdict(frame)
    text = way.client.get(key)
    tampered = json.loads(text) | {"score": failed[0]["score"] * 1.01, "device": "cuda NVIDIA H100"}
    way.client.set(key, json.dumps(tampered))
    said = inside("verify", frame, code=5, env=here).stdout
    assert "differs: default version 1 gave" in said
    assert "judged on cuda NVIDIA H100 and verified on cpu" in said
    assert "both in float32" in said
    assert "confirmed" in inside("verify", frame, "--tolerance", "0.02", env=here).stdout
    way.client.set(key, text)

    # The frame expires, its map is still there; then neither is.
    frame = failed[-1]["id"]
    way.client.delete(way.keys.kept_blob(frame))
    alone = inside("heatmap", frame, "-o", str(picture), env=here)
    assert "has expired: the map lies on plain grey" in alone.stderr
    assert f"{frame}: expired" in inside("verify", frame, code=1, env=here).stdout
    way.client.delete(way.keys.heat(failed[-1]["heat_map"]))
    gone = inside("heatmap", frame, "-o", str(tmp_path / "none.png"), code=1, env=here).stderr
    assert "it was shed" in gone
    assert "has expired" in gone
    assert not (tmp_path / "none.png").exists()
    assert json.loads(inside("verify", "--all-kept", "--json", env=here).stdout)["expired"] == 1


def test_frames_in_a_folder_on_a_line_without_maps(
    cli: Cli, inside: Inside, way: Way, model_file: Path, parts: Path, tmp_path: Path
) -> None:
    kept = {"GAUSSLINE_KEPT_STORE": f"file://{tmp_path / 'kept'}"}
    here = RANDOM | kept
    _, verdicts = judged(cli, model_file, parts / "bad", 12, GAUSSLINE_HEAT_MAPS="off", **kept)
    frame = next(one["id"] for one in verdicts if one["decision"] == "fail")
    assert all(one["heat_map"] is None for one in verdicts)
    assert HeatMaps(way.client, way.line).count().maps == 0
    store = KeptFrames(way.client, way.line)
    found = store.verdicts([one.id for one in store.list()])
    assert {one.id: one.to_json() for one in found if one is not None} == {
        one["id"]: json.dumps(one, separators=(",", ":"), ensure_ascii=False) for one in verdicts
    }
    told = json.loads(inside("heatmap", frame, "-o", str(tmp_path / "map.png"), "--json", env=here).stdout)
    assert told["source"] == "made again from the kept frame"
    assert json.loads(inside("verify", "--all-kept", "--json", env=here).stdout)["confirmed"] == 12
    (tmp_path / "kept" / f"{frame.replace(':', '_')}.msgpack").unlink()
    assert f"{frame}: expired: frame {frame} has expired" in inside("verify", frame, code=1, env=here).stdout
    assert json.loads(inside("verify", "--all-kept", "--json", env=here).stdout)["expired"] == 1


def test_a_map_of_a_file_and_plain_mistakes(
    cli: Cli, inside: Inside, model_file: Path, parts: Path, tmp_path: Path
) -> None:
    picture = next((parts / "bad").rglob("*.png"))
    assert "points nowhere" in inside("heatmap", str(picture), code=1).stderr
    cli("models", "import", str(model_file))
    cli("models", "promote", "default", "1")
    made = tmp_path / "made.png"
    said = inside("heatmap", str(picture), "-o", str(made), env=RANDOM).stdout
    assert "features.4" in said
    assert "made from the file" in said
    assert made.is_file()
    assert "random weights" in inside("heatmap", str(picture), code=4).stderr
    assert ".npy" in inside("heatmap", str(picture), "--array", "map.txt", code=2, env=RANDOM).stderr
    assert "no verdict of frame cam1:1:0" in inside("heatmap", "cam1:1:0", code=1, env=RANDOM).stderr
    assert "is no frame id" in inside("heatmap", "nofile.png", code=1, env=RANDOM).stderr
    assert "--all-kept" in inside("verify", code=2).stderr
    assert "expired: no verdict" in inside("verify", "cam1:1:0", code=1, env=RANDOM).stdout
