"""The same small line as the commands are tested on."""

from __future__ import annotations

from tests.commands.conftest import artefact, cli, model_file, parts, server, way

__all__ = ["artefact", "cli", "model_file", "parts", "server", "way"]
