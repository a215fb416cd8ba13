"""The learner's checkpoint: immutable content-addressed chunks, written in paced pieces, and one pointer that flips.

A checkpoint is some named parts of bytes. A part that did not change costs nothing to write again. The pointer is
written last, by a script that looks at the fencing token: a checkpoint is there whole, or the one before it still is.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.broker.lease import Lease
from gaussline.worker.broker.seal import Seal
from gaussline.worker.contract.keys import Keys
from gaussline.worker.errors import ArtefactError

VERSION = 1
CHUNK_BYTES = 512_000
PAUSE_S = 0.002


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What the pointer says.

    Attributes:
        about: JSON-able facts that need no chunk: model, spec digest, log position, last id.
        parts: part -> its size, its SHA-256 and its chunks' digests in order.
    """

    about: dict[str, Any]
    parts: dict[str, dict[str, Any]]

    @property
    def chunks(self) -> set[str]:
        """Digests of everything it needs."""
        return {digest for part in self.parts.values() for digest in part["chunks"]}

    @property
    def size_bytes(self) -> int:
        """Of all parts."""
        return sum(int(part["size"]) for part in self.parts.values())


class CheckpointStore:
    """The checkpoints of one model."""

    def __init__(
        self,
        client: Redis,
        line: str,
        model: str,
        *,
        seal: Seal | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._seal = seal or Seal()
        self._client = client
        self._keys = Keys(line)
        self._model = model
        self._sleep = sleep

    def latest(self) -> Checkpoint | None:
        """The checkpoint that the pointer names, None where there is none. Raises ArtefactError, also for one that the
        seal does not take."""
        with translated("reading the checkpoint"):
            text = self._client.hget(self._keys.learner(self._model), "checkpoint")
        if text is None:
            return None
        try:
            said = json.loads(text)
            if said["v"] != VERSION:
                raise ArtefactError(f"the checkpoint of {self._model!r} speaks version {said['v']!r}, not {VERSION}")
            self._seal.check(_digest(said), said.get("signatures"), f"the checkpoint of {self._model!r}")
            return Checkpoint(dict(said["about"]), dict(said["parts"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ArtefactError(f"the checkpoint pointer of {self._model!r} is malformed: {error}") from None

    def load(self, checkpoint: Checkpoint, part: str) -> bytes:
        """One part, checked. Raises ArtefactError where it is missing, torn or tampered with."""
        said = checkpoint.parts.get(part)
        if said is None:
            raise ArtefactError(f"the checkpoint of {self._model!r} lacks its part {part}")
        pieces = []
        with translated("reading a checkpoint"):
            for digest in said["chunks"]:
                piece = self._client.hget(self._keys.learned(self._model), digest)
                if piece is None:
                    raise ArtefactError(f"the checkpoint of {self._model!r} is torn: chunk {digest[:16]}… is gone")
                if hashlib.sha256(piece).hexdigest() != digest:
                    raise ArtefactError(f"the checkpoint of {self._model!r} was tampered with: chunk {digest[:16]}…")
                pieces.append(piece)
                self._sleep(PAUSE_S)
        data = b"".join(pieces)
        if len(data) != said["size"] or hashlib.sha256(data).hexdigest() != said["sha256"]:
            raise ArtefactError(f"part {part} of the checkpoint of {self._model!r} is torn: its SHA-256 is another")
        return data

    def save(self, lease: Lease, about: Mapping[str, Any], parts: Mapping[str, bytes | dict[str, Any]]) -> Checkpoint:
        """Write what is new of the parts, flip the pointer, drop what nothing needs any more. Raises Fenced.

        A part may be given by what the checkpoint before says of it: it has not changed.
        """
        hash_key = self._keys.learned(self._model)
        written: dict[str, dict[str, Any]] = {}
        with translated("writing a checkpoint"):
            there = {name.decode() for name in self._client.hkeys(hash_key)}
            for name, data in parts.items():
                if isinstance(data, dict):
                    written[name] = data
                    continue
                chunks = []
                for start in range(0, len(data), CHUNK_BYTES):
                    piece = data[start : start + CHUNK_BYTES]
                    digest = hashlib.sha256(piece).hexdigest()
                    chunks.append(digest)
                    if digest not in there:
                        self._client.hset(hash_key, digest, piece)
                        there.add(digest)
                        self._sleep(PAUSE_S)
                digest = hashlib.sha256(data).hexdigest()
                written[name] = {"size": len(data), "sha256": digest, "chunks": chunks}
            checkpoint = Checkpoint(dict(about), written)
            said: dict[str, Any] = {"v": VERSION, "about": checkpoint.about, "parts": written}
            signatures = self._seal.sign(_digest(said))
            if signatures:
                said["signatures"] = signatures
            lease.write("checkpoint", json.dumps(said, allow_nan=False))
            old = sorted(there - checkpoint.chunks)
            for start in range(0, len(old), 4):
                lease.write("drop", *old[start : start + 4])
                self._sleep(PAUSE_S)
        return checkpoint


def _digest(said: Mapping[str, Any]) -> str:
    """What is signed of a checkpoint: everything it says, the digests of its chunks included."""
    text = json.dumps([said["v"], said["about"], said["parts"]], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(b"checkpoint\n" + text.encode()).hexdigest()
