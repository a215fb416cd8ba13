"""The pages and examples of the settings are those of the code, and the examples are read as settings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from gaussline.worker.commands.settings_page import env_example, page, settings_table, toml_example
from gaussline.worker.errors import SettingsError
from gaussline.worker.settings import Settings
from tests.support.repository import ROOT

FILES = {"docs/settings.md": page, ".env.example": env_example, "deploy/gaussline.toml": toml_example}


@pytest.mark.parametrize("place", FILES)
def test_the_files_are_made_from_the_code(place: str) -> None:
    assert (ROOT / place).read_text("utf-8") == FILES[place](), "run: make docs"


def test_every_setting_says_what_it_means() -> None:
    rows = settings_table()
    assert [row.name for row in rows] == list(Settings.model_fields)
    assert all(row.text.endswith(".") for row in rows)


def test_the_environment_example_gives_the_defaults() -> None:
    lines = [line[1:] for line in env_example().splitlines() if re.match(r"#GAUSSLINE_", line)]
    assert Settings.load(dict(line.split("=", 1) for line in lines)) == Settings.load({})


def test_the_toml_example_gives_the_defaults(tmp_path: Path) -> None:
    text = "\n".join(line[1:] for line in toml_example().splitlines() if re.match(r"#[a-z_]+ = ", line))
    assert set(tomllib.loads(text)) == set(Settings.model_fields)
    file = tmp_path / "gaussline.toml"
    file.write_text(text, "utf-8")
    assert Settings.load({"GAUSSLINE_CONFIG": str(file)}) == Settings.load({})


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gaussline.toml"
    file.write_text('line = "press4"\nbatch_wait_ms = 3.5\n', "utf-8")
    settings = Settings.load({"GAUSSLINE_CONFIG": str(file), "GAUSSLINE_LINE": "press5"})
    assert (settings.line, settings.batch_wait_ms) == ("press5", 3.5)
    assert Settings.load({"GAUSSLINE_CONFIG": str(file)}, line="press6").line == "press6"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('lien = "a"', "lien is no setting: did you mean line?"),
        ("line = ", "is no TOML"),
        ("batch_wait_ms = -1", "GAUSSLINE_BATCH_WAIT_MS = '-1'"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_file_is_told_by_name(tmp_path: Path, text: str | None, told: str) -> None:
    file = tmp_path / "gaussline.toml"
    if text is not None:
        file.write_text(text, "utf-8")
    with pytest.raises(SettingsError, match=re.escape(told)):
        Settings.load({"GAUSSLINE_CONFIG": str(file)})


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "gaussline.toml"
    file.write_text('lien = "a"\nbatch_wait_ms = -1\n', "utf-8")
    environment = {"GAUSSLINE_CONFIG": str(file), "GAUSSLINE_LIME": "x", "GAUSSLINE_LOG_LEVEL": "loud"}
    with pytest.raises(SettingsError) as caught:
        Settings.load(environment)
    told = str(caught.value).splitlines()
    assert len(told) == 4
    for word, line in zip(("lien", "GAUSSLINE_LIME", "BATCH_WAIT_MS", "LOG_LEVEL"), told, strict=True):
        assert word in line
