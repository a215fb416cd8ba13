"""Sets of workers: who settles a camera's frames, and who is only shown copies of them.

A set is some workers with one backbone. The set `main` needs no record and settles every camera that nobody moved. Any
other set is declared with the models that it judges by; it may be shown copies of cameras that others settle, and
cameras may be moved to it, one by one. Where a camera stands is one field of its own hash, which admission, intake and
the move itself read and write in one atomic step each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gaussline.worker.broker.cameras import CameraSettings, read_cameras
from gaussline.worker.broker.client import Redis, time_us, translated
from gaussline.worker.broker.script import Script
from gaussline.worker.contract.clock import to_text
from gaussline.worker.contract.keys import MAIN, Keys, check_name
from gaussline.worker.contract.remark import BY_CHARS, remark
from gaussline.worker.errors import Conflict, ContractError, NotFound, SettingsError

EVERY = "*"
"""Stands for every model of a camera."""
COPY_BYTES = 64 * 2**20
"""Bound of a set's copies where none is stated."""


@dataclass(frozen=True, slots=True)
class WorkerSet:
    """One declared set.

    Attributes:
        models: model of a camera (or EVERY) -> the model that this set judges it by.
        max_bytes: bound of the copies that wait for it; what is over it is shed.
    """

    name: str
    models: Mapping[str, str]
    max_bytes: int
    at: str
    by: str
    note: str

    def model_for(self, model: str) -> str | None:
        """What it judges a camera of this model by; None where it was not told."""
        return self.models.get(model, self.models.get(EVERY))


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where one camera stands.

    Attributes:
        settled_by: the set that settles its frames.
        copied_to: the set that is shown copies of them, empty where none is.
        revision: rises with every move; what a compare-and-set compares.
    """

    camera: str
    settled_by: str = MAIN
    copied_to: str = ""
    revision: int = 0


@dataclass(frozen=True, slots=True)
class SetCounts:
    """What became of the copies for one set: frames, and bytes that wait now."""

    copied: int
    shed: int
    taken: int
    results: int
    waiting_bytes: int


@dataclass(frozen=True, slots=True)
class SetMove:
    """One entry of the history: a set declared, changed or removed, a camera copied or moved."""

    kind: str
    set: str
    camera: str
    before: str
    at: str
    by: str
    note: str


class Sets:
    """The sets of one line."""

    def __init__(self, client: Redis, line: str) -> None:
        self._client = client
        self._line = line
        self._keys = Keys(line)
        self._write = Script("write_set")
        self._copy = Script("copy_camera")
        self._move = Script("move_camera")

    # --- reading -----------------------------------------------------------------------------------------------------
    def read(self) -> dict[str, WorkerSet]:
        """Every declared set; `main` has no record."""
        with translated("reading the sets of workers"):
            raw = self._client.hgetall(self._keys.sets)
        return {name.decode(): _set(name.decode(), text) for name, text in sorted(raw.items())}

    def assignments(self, cameras: Sequence[str] | None = None) -> dict[str, Assignment]:
        """Where each camera stands; by default all that are registered."""
        names = sorted(read_cameras(self._client, self._line)) if cameras is None else list(cameras)
        with translated("reading where cameras stand"):
            pipeline = self._client.pipeline(transaction=False)
            for name in names:
                pipeline.hmget(self._keys.camera(name), ["set", "copy", "set_revision"])
            found = pipeline.execute() if names else []
        return {
            name: Assignment(
                name,
                MAIN if settled is None else settled.decode(),
                "" if copied is None else copied.decode(),
                int(revision or 0),
            )
            for name, (settled, copied, revision) in zip(names, found, strict=True)
        }

    def counts(self, name: str) -> SetCounts:
        """What became of the copies for a set."""
        fields = ("copied", "shed", "taken", "results", "bytes")
        with translated("reading what a set was shown"):
            found = self._client.hmget(self._keys.set_state(name), fields)
        return SetCounts(*(int(value or 0) for value in found))

    def history(self) -> list[SetMove]:
        """Every change of sets and every move of a camera, oldest first."""
        with translated("reading the history of the sets"):
            entries = self._client.xrange(self._keys.set_history)
        return [SetMove(**json.loads(fields[b"move"])) for _, fields in entries]

    # --- changing ----------------------------------------------------------------------------------------------------
    def declare(
        self, name: str, models: Mapping[str, str], *, by: str, note: str = "", max_bytes: int = COPY_BYTES
    ) -> WorkerSet:
        """Declare a set, or change one. Raises ContractError, SettingsError, Conflict."""
        if check_name("set", name) == MAIN:
            raise SettingsError(f"set {MAIN!r} is always there, and judges cameras by their own models")
        if not models:
            raise SettingsError(f"set {name} has no model to judge by: name one")
        for model in {*models, *models.values()} - {EVERY}:
            check_name("model", model)
        if max_bytes < 1:
            raise SettingsError(f"{max_bytes} bytes of copies are none")
        cameras = read_cameras(self._client, self._line)
        for stands in self.assignments(list(cameras)).values():
            model = cameras[stands.camera].model
            if stands.settled_by == name and not {model, EVERY} & set(models):
                raise Conflict(
                    f"set {name} settles camera {stands.camera} of model {model}: name a model for these too, or move "
                    "the camera away first"
                )
        at = to_text(time_us(self._client))
        record = {
            "models": dict(models),
            "max_bytes": max_bytes,
            "at": at,
            "by": remark(by, BY_CHARS),
            "note": remark(note),
        }
        self._rewrite(name, json.dumps(record), max_bytes, SetMove("declared", name, "", "", at, by, note))
        return self.read()[name]

    def remove(self, name: str, *, by: str, note: str = "") -> None:
        """Forget a set, its copies and its results. Raises NotFound, Conflict where a camera still needs it."""
        if name not in self.read():
            raise NotFound(f"no set {name!r} on line {self._line}: 'gaussline sets list' shows them")
        at = to_text(time_us(self._client))
        self._rewrite(name, "", 0, SetMove("removed", name, "", "", at, by, note))

    def copy(self, camera: str, to: str, *, by: str, note: str = "") -> bool:
        """Show a set copies of a camera's frames; '' ends it. Whether anything changed. Raises NotFound, Conflict."""
        kind = "copied" if to else "not copied"
        move = self._record(SetMove(kind, to, camera, "", to_text(time_us(self._client)), by, note))
        keys = self._keys
        names = [keys.cameras, keys.camera(check_name("camera", camera)), keys.sets, keys.set_history, keys.events]
        answer = int(self._copy(self._client, names, [camera, to, move]))
        if answer == -3:
            raise Conflict(f"set {to} settles camera {camera} itself: there is nothing to show it")
        self._found(answer, camera, to)
        return answer == 1

    def move(
        self, camera: str, to: str, *, by: str, note: str = "", seen: Assignment | None = None
    ) -> tuple[Assignment, Assignment]:
        """Let a set settle a camera's frames, if the camera still stands where the caller saw it (by default: now).

        Where it stood, and where it stands. Raises NotFound, Conflict where somebody else moved it meanwhile.
        """
        before = self.assignments([check_name("camera", camera)])[camera] if seen is None else seen
        at = to_text(time_us(self._client))
        move = self._record(SetMove("moved", check_name("set", to), camera, before.settled_by, at, by, note))
        keys = self._keys
        names = [keys.cameras, keys.camera(camera), keys.sets, keys.set_history, keys.events, keys.index(camera)]
        args = [keys.prefix, camera, before.revision, to, move]
        done, revision, stands = self._move(self._client, [*names, keys.totals], args)
        if done == 0:
            raise Conflict(
                f"camera {camera} was moved by somebody else meanwhile: set {stands.decode()} settles it (revision "
                f"{revision}, you saw {before.revision}); look again with 'gaussline sets list'"
            )
        self._found(done, camera, to)
        if done == -3:
            return before, before
        return before, self.assignments([camera])[camera]

    def _rewrite(self, name: str, record: str, max_bytes: int, move: SetMove) -> None:
        keys = self._keys
        with translated("reading a set"):
            seen = self._client.hget(keys.sets, name) or b""
        names = [
            keys.sets,
            keys.set_state(name),
            keys.copies(name),
            keys.set_results(name),
            keys.cameras,
            keys.set_history,
            keys.events,
        ]
        args = [keys.prefix, name, seen, record, max_bytes, self._record(move)]
        done, camera = self._write(self._client, names, args)
        if done == 0:
            raise Conflict(f"set {name} was changed by somebody else meanwhile: look again with 'gaussline sets list'")
        if done == -1:
            raise Conflict(
                f"set {name} still has camera {camera.decode()}: 'gaussline sets move {camera.decode()} {MAIN}' or "
                f"'gaussline sets uncopy {camera.decode()}' first"
            )

    def _found(self, answer: int, camera: str, name: str) -> None:
        if answer == -1:
            raise NotFound(f"no camera {camera!r} on line {self._line}: it registers itself when its producer starts")
        if answer == -2:
            raise NotFound(f"no set {name!r} on line {self._line}: 'gaussline sets add {name} --model M' declares it")

    def _record(self, move: SetMove) -> str:
        said = replace(move, by=remark(move.by, BY_CHARS), note=remark(move.note))
        return json.dumps({name: getattr(said, name) for name in SetMove.__dataclass_fields__})


def models_of(worker_set: str, declared: Mapping[str, WorkerSet], cameras: Mapping[str, CameraSettings]) -> set[str]:
    """Names of the models that a set's workers must have: of `main`, what its cameras name and nobody else's alone."""
    if worker_set != MAIN:
        return set(declared[worker_set].models.values()) if worker_set in declared else set()
    return {camera.model for camera in cameras.values()}


def foreign_models(declared: Mapping[str, WorkerSet], cameras: Mapping[str, CameraSettings]) -> set[str]:
    """Names of the models that other sets judge by and no camera names itself: `main` leaves them alone."""
    others = {model for each in declared.values() for model in each.models.values()}
    return others - {camera.model for camera in cameras.values()}


def _set(name: str, text: bytes) -> WorkerSet:
    try:
        values: dict[str, Any] = json.loads(text)
        models = {str(key): check_name("model", value) for key, value in values["models"].items()}
        return WorkerSet(
            name,
            models,
            int(values["max_bytes"]),
            str(values.get("at", "")),
            str(values.get("by", "")),
            str(values.get("note", "")),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ContractError(f"the record of set {name} is malformed: {type(error).__name__}: {error}") from None
