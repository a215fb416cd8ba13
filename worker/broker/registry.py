"""The registry: immutable model versions in Redis, and the pointers that say which of them judges."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gaussline.worker.broker.artefacts import Artefacts
from gaussline.worker.broker.client import Redis, time_us, translated
from gaussline.worker.broker.script import Script
from gaussline.worker.broker.seal import Seal, Signatures
from gaussline.worker.contract.clock import to_text
from gaussline.worker.contract.keys import Keys, check_name
from gaussline.worker.contract.remark import BY_CHARS, remark
from gaussline.worker.contract.trial import STABLE, Selection, Trial, from_fields, to_fields
from gaussline.worker.errors import ArtefactError, Conflict, NotFound, Pinned


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable version of a model, as it is recorded.

    Attributes:
        report: what was measured when it was made; JSON-able.
    """

    model: str
    number: int
    digest: str
    size_bytes: int
    created_at: str
    by: str
    note: str
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where a channel of a model points.

    Attributes:
        revision: rises with every move; what a compare-and-set compares.
        selection: whose frames a canary decides.
        trial: how long a canary or a shadow is looked at, and what ends it.
    """

    model: str
    channel: str
    version: int
    digest: str
    revision: int
    moved_at: str
    by: str
    selection: Selection | None = None
    trial: Trial | None = None


@dataclass(frozen=True, slots=True)
class Pin:
    """A model whose stable channel nobody moves until it is unpinned; its version is never collected."""

    model: str
    version: int
    at: str
    by: str
    note: str


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a pointer: who, when, why, from where to where (None: nowhere)."""

    channel: str
    before: int | None
    after: int | None
    at: str
    by: str
    note: str


class Registry:
    """The registry of one line.

    Args:
        seal: signs what is stored, and is asked before anything is fetched or promoted; none signs nothing and takes
            everything.
    """

    def __init__(
        self, client: Redis, line: str, *, seal: Seal | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._client = client
        self._keys = Keys(line)
        self.artefacts = Artefacts(client, line, seal=seal, sleep=sleep)
        self._publish = Script("publish_version")
        self._move = Script("move_pointer")
        self._pin = Script("pin_model")

    @property
    def line(self) -> str:
        """Name of the line."""
        return self._keys.line

    # --- artefacts ---------------------------------------------------------------------------------------------------
    def store(self, data: bytes, signatures: Signatures | None = None) -> str:
        """See `Artefacts.store`."""
        return self.artefacts.store(data, signatures)

    def signatures(self, digest: str) -> dict[str, str]:
        """See `Artefacts.signatures`."""
        return self.artefacts.signatures(digest)

    def check(self, digest: str) -> None:
        """See `Artefacts.check`."""
        self.artefacts.check(digest)

    def fetch(self, digest: str) -> bytes:
        """See `Artefacts.fetch`."""
        return self.artefacts.fetch(digest)

    # --- versions ----------------------------------------------------------------------------------------------------
    def publish(
        self,
        model: str,
        data: bytes,
        *,
        by: str,
        note: str = "",
        report: dict[str, Any] | None = None,
        signatures: Signatures | None = None,
    ) -> Version:
        """Store an artefact and record it as the model's next version. Nothing points to it yet."""
        check_name("model", model)
        digest = self.store(data, signatures)
        record = {
            "digest": digest,
            "size_bytes": len(data),
            "created_at": to_text(time_us(self._client)),
            "by": remark(by, BY_CHARS),
            "note": remark(note),
            "report": report or {},
        }
        keys = [self._keys.models, self._keys.versions(model), self._keys.artefact(digest), self._keys.events]
        number = int(self._publish(self._client, keys, [model, json.dumps(record)]))
        if number == 0:
            raise ArtefactError(f"artefact {digest[:16]}… vanished while it was published")
        return self.version(model, number)

    def models(self) -> list[str]:
        """Names of all models."""
        with translated("listing models"):
            return sorted(name.decode() for name in self._client.hkeys(self._keys.models))

    def versions(self, model: str) -> list[Version]:
        """All versions of a model, ascending. Raises NotFound."""
        with translated("listing versions"):
            records = self._client.hgetall(self._keys.versions(model))
        found = [_version(model, json.loads(record)) for field, record in records.items() if field.isdigit()]
        if not found:
            raise NotFound(f"no model {model!r} on line {self._keys.line}; 'gaussline fit' makes one")
        return sorted(found, key=lambda version: version.number)

    def version(self, model: str, number: int) -> Version:
        """One version. Raises NotFound."""
        with translated("reading a version"):
            record = self._client.hget(self._keys.versions(model), number)
        if record is None:
            raise self._no_version(model, number)
        return _version(model, json.loads(record))

    def _no_version(self, model: str, number: int | str) -> NotFound:
        """What there is in its place: who mistyped a name sees the right one."""
        with translated("listing versions"):
            known = [int(field) for field in self._client.hkeys(self._keys.versions(model)) if field.isdigit()]
        if known:
            return NotFound(
                f"model {model!r} has no version {number} on line {self._keys.line}: the newest is {max(known)}"
            )
        models = ", ".join(self.models())
        there = f"there are {models}" if models else "there is none yet: 'gaussline fit' makes one"
        return NotFound(f"no model {model!r} on line {self._keys.line}; {there}")

    # --- pointers ----------------------------------------------------------------------------------------------------
    def pointers(self) -> list[Pointer]:
        """All pointers of all models."""
        with translated("reading pointers"):
            raw = self._client.hgetall(self._keys.pointers)
        return sorted((_pointer(field.decode(), json.loads(text)) for field, text in raw.items()), key=_order)

    def pointer(self, model: str, channel: str = STABLE) -> Pointer | None:
        """Where a channel points, None where nowhere."""
        with translated("reading a pointer"):
            text = self._client.hget(self._keys.pointers, f"{model}/{channel}")
        return None if text is None else _pointer(f"{model}/{channel}", json.loads(text))

    def promote(
        self,
        model: str,
        number: int,
        *,
        by: str,
        channel: str = STABLE,
        note: str = "",
        seen: Pointer | str | None = "current",
        selection: Selection | None = None,
        trial: Trial | None = None,
    ) -> Pointer:
        """Point a channel at a version, if it still points where the caller saw it (`seen`; by default: now).

        Raises NotFound for a missing version, Conflict where somebody else moved the pointer meanwhile, Pinned.
        """
        check_name("channel", channel)
        before = self.pointer(model, channel) if isinstance(seen, str) else seen
        version = self.version(model, number)
        self.check(version.digest)
        now, by = to_text(time_us(self._client)), remark(by, BY_CHARS)
        record = {"version": number, "digest": version.digest, "moved_at": now, "by": by}
        text = json.dumps(record | to_fields(selection, trial))
        move = {
            "channel": channel,
            "before": None if before is None else before.version,
            "after": number,
            "at": now,
            "by": by,
            "note": remark(note),
        }
        revision = 0 if before is None else before.revision
        # Not read back: somebody may have moved it on by then.
        made = self._shift(model, channel, revision, text, str(number), move, version.digest)
        return _pointer(f"{model}/{channel}", json.loads(text) | {"revision": made})

    def remove(
        self, model: str, channel: str, *, by: str, note: str = "", seen: Pointer | str | None = "current"
    ) -> Pointer:
        """Let a channel point nowhere: the end of a trial. Where it pointed. Raises NotFound, Conflict."""
        before = self.pointer(model, channel) if isinstance(seen, str) else seen
        if before is None:
            raise NotFound(f"{model}/{channel} points nowhere")
        now = to_text(time_us(self._client))
        who, why = remark(by, BY_CHARS), remark(note)
        move = {"channel": channel, "before": before.version, "after": None, "at": now, "by": who, "note": why}
        self._shift(model, channel, before.revision, "", "", move)
        return before

    def rollback(self, model: str, *, by: str, channel: str = STABLE, note: str = "") -> Pointer:
        """Point a channel back at the version it pointed at before. Raises NotFound where there is none."""
        current = self.pointer(model, channel)
        if current is None:
            raise NotFound(f"{model}/{channel} points nowhere: there is nothing to roll back")
        back = self.before(model, channel)
        if back is None:
            raise NotFound(f"{model}/{channel} never pointed at another version than {current.version}")
        return self.promote(model, back, by=by, channel=channel, note=note or "rollback", seen=current)

    def before(self, model: str, channel: str = STABLE) -> int | None:
        """The version a rollback of the channel would lead to, None where there is none."""
        current = self.pointer(model, channel)
        if current is None:
            return None
        for move in reversed(self.history(model)):
            if move.channel == channel and move.after == current.version and move.before not in (None, current.version):
                return move.before
        return None

    def history(self, model: str) -> list[Move]:
        """Every move of a model's pointers, oldest first."""
        with translated("reading the history"):
            entries = self._client.xrange(self._keys.history(model))
        return [Move(**json.loads(fields[b"move"])) for _, fields in entries]

    # --- pins --------------------------------------------------------------------------------------------------------
    def pin(self, model: str, *, by: str, note: str = "") -> Pin:
        """Hold the model at its stable version: no promotion, rollback or judge moves it. Raises NotFound, Conflict."""
        current = self.pointer(model)
        if current is None:
            raise NotFound(f"{model}/{STABLE} points nowhere: there is nothing to pin")
        pin = Pin(model, current.version, to_text(time_us(self._client)), remark(by, BY_CHARS), remark(note))
        record = {"version": pin.version, "at": pin.at, "by": pin.by, "note": pin.note}
        args = [f"{model}/{STABLE}", current.revision, model, json.dumps(record)]
        done, stands = self._pin(self._client, [self._keys.pointers, self._keys.pins], args)
        if not done:
            raise _moved(model, STABLE, stands, current.revision)
        return pin

    def unpin(self, model: str) -> Pin:
        """Let the model move again. Raises NotFound where it is not pinned."""
        pin = self.pins().get(model)
        if pin is None:
            raise NotFound(f"{model} is not pinned")
        with translated("unpinning a model"):
            self._client.hdel(self._keys.pins, model)
        return pin

    def pins(self) -> dict[str, Pin]:
        """Every pin, by its model."""
        with translated("reading pins"):
            raw = self._client.hgetall(self._keys.pins)
        return {name.decode(): Pin(name.decode(), **json.loads(text)) for name, text in sorted(raw.items())}

    def _shift(
        self,
        model: str,
        channel: str,
        revision: int,
        text: str,
        version: str,
        move: dict[str, Any],
        digest: str = "",
    ) -> int:
        """Move or remove a pointer that is at `revision`; the revision it has then."""
        keys = [
            self._keys.pointers,
            self._keys.history(model),
            self._keys.versions(model),
            self._keys.events,
            self._keys.pins,
            self._keys.artefact(digest),
        ]
        args = [f"{model}/{channel}", revision, text, version, json.dumps(move), model if channel == STABLE else ""]
        done, stands = self._move(self._client, keys, args)
        if done == -2:
            pin = self.pins()[model]
            why = f": {pin.note}" if pin.note else ""
            raise Pinned(
                f"{model} is pinned to version {pin.version} by {pin.by} since {pin.at}{why}; "
                f"'gaussline models unpin {model}' lets it move again"
            )
        if done == 0:
            raise _moved(model, channel, stands, revision)
        if done == -3:
            raise NotFound(
                f"version {version} of model {model!r} was collected: its artefact is gone; import it again or fit anew"
            )
        if done < 0:
            raise self._no_version(model, version)
        return int(stands)


def _moved(model: str, channel: str, stands: int, seen: int) -> Conflict:
    return Conflict(
        f"{model}/{channel} was moved by somebody else meanwhile (revision {stands}, you saw {seen}): look again with "
        "'gaussline models show'"
    )


def _version(model: str, record: dict[str, Any]) -> Version:
    return Version(
        model,
        record["version"],
        record["digest"],
        record["size_bytes"],
        record["created_at"],
        record["by"],
        record["note"],
        record["report"],
    )


def _pointer(field: str, record: dict[str, Any]) -> Pointer:
    model, channel = field.split("/", 1)
    selection, trial = from_fields(record)
    return Pointer(
        model,
        channel,
        record["version"],
        record["digest"],
        record["revision"],
        record["moved_at"],
        record["by"],
        selection,
        trial,
    )


def _order(pointer: Pointer) -> tuple[str, str]:
    return pointer.model, pointer.channel
