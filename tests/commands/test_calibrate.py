from __future__ import annotations

import json
import shutil
from pathlib import Path

from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.model import Model
from tests.support.cli import Cli


def test_another_working_point_is_another_version_of_the_same_gaussians(
    cli: Cli, model_file: Path, parts: Path, tmp_path: Path
) -> None:
    cli("models", "import", str(model_file))
    folder = tmp_path / "more"
    shutil.copytree(parts / "good", folder / "good")
    (folder / "good" / "torn.png").write_bytes(b"no image")
    base = ["calibrate", "default", str(folder), "--version", "1", "--rate", "0.2"]
    assert "neither good/" in cli(*base[:2], str(tmp_path), *base[3:], code=2).stderr
    assert "name a --version" in cli("calibrate", "default", str(folder), "--rate", "0.2", code=1).stderr
    torn = cli(*base, code=2).stderr
    assert "torn.png" in torn
    assert "--skip-bad" in torn
    assert "99 are needed" in cli(*base[:-1], "0.01", "--skip-bad", code=1).stderr
    assert [one["number"] for one in json.loads(cli("models", "list", "--json").stdout)] == [1]  # nothing half-made
    made = cli(*base, "--skip-bad", "--holdout", "0.5", "--promote", "--json")
    told = json.loads(made.stdout)
    assert "skipped" in made.stderr
    assert (told["version"], told["base"], told["promoted"]) == (2, 1, True)
    report = told["report"]
    assert report["stated_rate"] == 0.2
    assert report["held_out_frames"] == 20
    low, high = report["realised_interval"]
    assert low <= report["realised_rate"] <= high
    out = tmp_path / "two.safetensors"
    cli("models", "export", "default", "2", "--output", str(out))
    old, new = (Model.from_artefact(Artefact.unpack(path.read_bytes())) for path in (model_file, out))
    for mine, theirs in zip(new.gaussians, old.gaussians, strict=True):
        assert mine.whitening.tobytes() == theirs.whitening.tobytes()
    assert new.working_point.threshold != old.working_point.threshold
