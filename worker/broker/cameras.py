"""The cameras of a line and their settings: which model judges them, and how much of the workers they may have."""

from __future__ import annotations

import json
from dataclasses import dataclass

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.contract.keys import Keys, check_name
from gaussline.worker.errors import ContractError, NotFound, SettingsError

DEFAULT_MODEL = "default"


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """One camera.

    Attributes:
        model: name of the model that judges its frames.
        weight: its share of the workers, beside the other cameras' (1 … 100).
    """

    name: str
    model: str = DEFAULT_MODEL
    weight: int = 1


def read_cameras(client: Redis, line: str) -> dict[str, CameraSettings]:
    """All cameras of a line by name."""
    with translated("reading the cameras"):
        raw = client.hgetall(Keys(line).cameras)
    found = (_camera(field, text) for field, text in raw.items())
    return {camera.name: camera for camera in found if camera is not None}


def _camera(field: bytes, text: bytes) -> CameraSettings | None:
    """One camera; None where the name or the settings are not such as we write: one must not hide all the others."""
    try:
        values = json.loads(text)
        name = check_name("camera", field.decode())
        return CameraSettings(
            name, check_name("model", values.get("model", DEFAULT_MODEL)), int(values.get("weight", 1))
        )
    except (ValueError, TypeError, AttributeError, ContractError):
        return None


def set_camera(client: Redis, line: str, name: str, *, model: str | None = None, weight: int | None = None) -> None:
    """Change a registered camera's settings; workers follow within a second. Raises NotFound, SettingsError."""
    keys = Keys(line)
    current = read_cameras(client, line).get(check_name("camera", name))
    if current is None:
        raise NotFound(f"no camera {name!r} on line {line}: it registers itself when its producer starts")
    if weight is not None and not 1 <= weight <= 100:
        raise SettingsError(f"weight {weight} of camera {name} is not between 1 and 100")
    values = {
        "model": check_name("model", model or current.model),
        "weight": current.weight if weight is None else weight,
    }
    with translated("changing a camera"):
        pipeline = client.pipeline(transaction=True)
        pipeline.hset(keys.cameras, name, json.dumps(values))
        pipeline.hset(keys.camera(name), "weight", values["weight"])
        pipeline.xadd(keys.events, {"kind": "camera", "name": name}, maxlen=1000, approximate=True)
        pipeline.execute()
