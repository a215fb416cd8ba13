from __future__ import annotations

import json

from gaussline.worker.settings import PREFIX, Settings
from tests.support.cli import Cli


def test_every_setting_is_printed_with_its_value_and_its_meaning(cli: Cli) -> None:
    rows = json.loads(cli("settings", "--json", GAUSSLINE_BATCH_WAIT_MS="25").stdout)
    assert [row["variable"] for row in rows] == [PREFIX + name.upper() for name in Settings.model_fields]
    assert all(row["meaning"] for row in rows)
    (wait,) = [row for row in rows if row["variable"] == "GAUSSLINE_BATCH_WAIT_MS"]
    assert (wait["value"], wait["default"]) == (25.0, 10.0)


def test_only_what_was_changed_and_no_password(cli: Cli) -> None:
    url = "redis://ada:hunter2@10.0.0.5:6379/0"
    told = cli("settings", "--changed", GAUSSLINE_REDIS_URL=url, GAUSSLINE_LINE="press4").stdout
    assert "GAUSSLINE_LINE" in told
    assert "press4" in told
    assert "GAUSSLINE_BATCH_WAIT_MS" not in told
    assert "hunter2" not in told
    assert "10.0.0.5" in told


def test_a_narrow_terminal_breaks_no_name(cli: Cli) -> None:
    told = cli("settings", COLUMNS="80", GAUSSLINE_BATCH_WAIT_MS="25").stdout
    assert "\nGAUSSLINE_BATCH_WAIT_MS = 25.0  (default: 10.0)\n" in told
    assert {row.split()[0] for row in told.splitlines() if row[:1] != " "} == {
        PREFIX + name.upper() for name in Settings.model_fields
    }
