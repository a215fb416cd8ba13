from __future__ import annotations

import getpass
import json
from pathlib import Path

import pytest

from tests.support.cli import Cli


def test_a_version_goes_out_and_comes_back_unchanged(cli: Cli, model_file: Path, tmp_path: Path) -> None:
    assert "gaussline fit" in cli("models", "list").stdout
    made = json.loads(
        cli("models", "import", str(model_file), "-n", "plate", "--by", "ada", "--note", "press 4", "--json").stdout
    )
    assert (made["model"], made["number"], made["by"], made["note"]) == ("plate", 1, "ada", "press 4")
    assert made["report"]["stated_rate"] == 0.1
    (row,) = json.loads(cli("models", "list", "--json").stdout)
    assert row == made | {"channels": []}
    copy = tmp_path / "copy.safetensors"
    told = cli("models", "export", "plate", "1", "--output", str(copy)).stdout
    assert made["digest"] in told
    assert copy.read_bytes() == model_file.read_bytes()
    again = json.loads(cli("models", "import", str(copy), "-n", "plate", "--json").stdout)
    assert (again["number"], again["digest"]) == (2, made["digest"])


def test_who_when_and_why_stand_in_the_history(cli: Cli, model_file: Path) -> None:
    for _ in range(2):
        cli("models", "import", str(model_file))
    cli("models", "promote", "default", "1", "--by", "ada", "--note", "first [bold]of all")
    cli("models", "promote", "default", "2", "--by", "bo")
    moved = json.loads(cli("models", "rollback", "default", "--by", "cy", "--note", "too strict", "--json").stdout)
    assert (moved["version"], moved["by"]) == (1, "cy")
    moves = json.loads(cli("models", "history", "default", "--json").stdout)
    assert [(move["before"], move["after"], move["by"], move["note"]) for move in moves] == [
        (None, 1, "ada", "first [bold]of all"),
        (1, 2, "bo", ""),
        (2, 1, "cy", "too strict"),
    ]
    assert all(move["at"].endswith("Z") for move in moves)
    told = cli("models", "history", "default").stdout
    assert "first [bold]of all" in told, "a note is text, not markup"
    listed = cli("models", "list").stdout.splitlines()
    assert ["stable" in line for line in listed if "MB" in line] == [True, False]
    cli("models", "import", str(model_file), "--name", "plates-of-press4", "--note", "the lamp of the morning shift")
    narrow = cli("models", "list", COLUMNS="80").stdout
    assert "plates-of-press4" in narrow
    assert "…" not in narrow, "nothing is cut"


def test_show_tells_the_stable_version_and_its_report(cli: Cli, model_file: Path) -> None:
    cli("models", "import", str(model_file), "--by", "ada")
    assert "name a version" in cli("models", "show", "default", code=1).stderr
    cli("models", "promote", "default", "1")
    shown = json.loads(cli("models", "show", "default", "--json").stdout)
    assert (shown["number"], shown["channels"]) == (1, ["stable"])
    text = cli("models", "show", "default").stdout
    assert shown["digest"] in text
    assert "features.1" in text
    assert "@" not in text, "regions stand in one row, their level's"
    assert "stated rate" in text


def test_mistakes_are_one_line_and_change_nothing(cli: Cli, model_file: Path, tmp_path: Path) -> None:
    cli("models", "import", str(model_file))
    assert "no version 7" in (said := cli("models", "promote", "default", "7", code=1).stderr)
    assert "the newest is 1" in said
    assert "no model 'defualt'" in (said := cli("models", "promote", "defualt", "1", code=1).stderr)
    assert "there are default" in said
    assert "points nowhere" in cli("models", "rollback", "default", code=1).stderr
    assert "no model 'ghost'" in cli("models", "history", "ghost", code=1).stderr
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(model_file.read_bytes()[:-100])
    assert "torn.safetensors" in cli("models", "import", str(torn), code=4).stderr
    assert "cannot be read" in cli("models", "import", str(tmp_path / "none"), code=2).stderr
    assert "cannot be read" in cli("models", "import", str(tmp_path), code=2).stderr
    away = tmp_path / "no" / "folder"
    assert "cannot be written" in cli("models", "export", "default", "1", "-o", str(away), code=2).stderr
    assert len(json.loads(cli("models", "list", "--json").stdout)) == 1


def test_somebody_without_a_name_may_promote(cli: Cli, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user is a bare number: the system knows no login name for it."""

    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    made = json.loads(cli("models", "import", str(model_file), "--json").stdout)
    assert made["by"] == "unknown"
