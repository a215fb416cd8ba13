"""`python -m gaussline.worker.engine.isolated_main`: the isolated process of a worker, with a backbone of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from gaussline.worker.broker.client import open_redis
from gaussline.worker.broker.registry import Registry
from gaussline.worker.broker.seal import open_seal
from gaussline.worker.engine.book import first_model_of
from gaussline.worker.engine.isolated import serve
from gaussline.worker.engine.judge import BackboneJudge
from gaussline.worker.engine.load import load_judge
from gaussline.worker.engine.observer import Observer
from gaussline.worker.errors import NotFound
from gaussline.worker.settings import Settings
from gaussline.worker.vision.runtime import RuntimeChoice


def about(settings: Settings, runtime: RuntimeChoice) -> dict[str, Any]:
    """What the process is told at its start, through its standard input: secrets must not stand on a command line."""
    values = {name: _plain(value) for name, value in settings if value is not None}
    chosen = {"device": runtime.device, "memory_format": runtime.memory_format, "threads": runtime.threads}
    return {"settings": values, "runtime": chosen}


def make_judge(told: dict[str, Any]) -> BackboneJudge:
    """The judge of the models that are promoted now. Images are decoded here: a crash is meant to end this process."""
    settings = Settings.load({}, **told["settings"])
    client = open_redis(settings)
    found = first_model_of(Registry(client, settings.line, seal=open_seal(settings)), client, settings.worker_set)
    if found is None:
        raise NotFound("no model is promoted")
    # Frame by frame: a batch of one, in one lane, whatever the worker's own are.
    runtime = replace(RuntimeChoice(batch_size=1), **told["runtime"])
    return load_judge(settings, found[1], client, Observer(), runtime=runtime).judge


def _plain(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, Path) else value


if __name__ == "__main__":
    serve(make_judge)
