"""Artefacts in Redis: content-addressed chunks, written in paced pieces, and a manifest that makes them whole.

An index holds when each chunk and manifest was last stored. A chunk that no manifest names is left over from an upload
that never ended, or belongs to one that goes on: its age tells them apart, and nothing else rests on that age. Whoever
deletes one does so by compare-and-set on the index; and a manifest is written by a script that looks for every chunk
first, and moves the index. So an upload and a deletion at the same time end with a whole artefact, whoever comes first.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from gaussline.worker.broker.client import Redis, time_us, translated
from gaussline.worker.broker.script import Script
from gaussline.worker.broker.seal import Seal, Signatures
from gaussline.worker.contract.keys import Keys
from gaussline.worker.errors import ArtefactError, NotFound

CHUNK_BYTES = 512_000
PAUSE_S = 0.002
ATTEMPTS = 5
"""How often chunks that went while the others were written are written again."""
PAGE = 200


class Artefacts:
    """The artefacts of one line.

    Args:
        seal: signs what is stored, and is asked before anything is fetched.
    """

    def __init__(
        self, client: Redis, line: str, *, seal: Seal | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._seal = seal or Seal()
        self._client = client
        self._keys = Keys(line)
        self._sleep = sleep
        self._commit = Script("store_artefact")
        self._drop = Script("drop_stored")

    # --- in and out --------------------------------------------------------------------------------------------------
    def store(self, data: bytes, signatures: Signatures | None = None) -> str:
        """Store an artefact; its SHA-256. Storing the same bytes again adds signatures at most."""
        digest = hashlib.sha256(data).hexdigest()
        pieces = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
        chunks = [hashlib.sha256(piece).hexdigest() for piece in pieces]
        by_name = dict(zip(chunks, pieces, strict=True))
        signed = self._seal.sign(digest, {**self.signatures(digest), **(signatures or {})})
        manifest = {"size": len(data), "chunks": chunks, **({"signatures": signed} if signed else {})}
        keys = [self._keys.artefact(digest), self._keys.stored]
        names = [manifest_name(digest), *map(chunk_name, by_name)]
        missing: Iterable[str] = by_name
        for _ in range(ATTEMPTS):
            for name in missing:
                self._put(name, by_name[name])
            # The manifest is written last: an artefact is there whole, or not at all.
            answer = self._commit(self._client, keys, [self._keys.prefix, json.dumps(manifest), *names])
            missing = [name.decode().partition(":")[2] for name in answer]
            if not missing:
                return digest
        raise ArtefactError(f"chunks of artefact {digest[:16]}… vanished while it was stored, {ATTEMPTS} times")

    def _put(self, name: str, piece: bytes) -> None:
        """One chunk. It is in the index before it is there: a crash between the two leaves a name and no bytes."""
        with translated("storing an artefact"):
            self._client.zadd(self._keys.stored, {chunk_name(name): time_us(self._client)})
            if self._client.set(self._keys.blob(name), piece, nx=True):
                self._sleep(PAUSE_S)

    def signatures(self, digest: str) -> dict[str, str]:
        """The signatures that stand with an artefact, unchecked."""
        with translated("reading an artefact's signatures"):
            text = self._client.get(self._keys.artefact(digest))
        return {} if text is None else dict(json.loads(text).get("signatures", {}))

    def check(self, digest: str) -> None:
        """Whether the seal takes an artefact. Raises ArtefactError where it does not."""
        if self._seal.strict:
            self._seal.check(digest, self.signatures(digest))

    def fetch(self, digest: str) -> bytes:
        """An artefact's bytes, checked. Raises NotFound, ArtefactError where it is torn, tampered with or unsigned."""
        with translated("fetching an artefact"):
            manifest = self._client.get(self._keys.artefact(digest))
            if manifest is None:
                raise NotFound(f"no artefact {digest[:16]}… on line {self._keys.line}")
            said = json.loads(manifest)
            self._seal.check(digest, said.get("signatures"))
            pieces, found = [], hashlib.sha256()
            for name in said["chunks"]:
                piece = self._client.get(self._keys.blob(name))
                if piece is None:
                    raise ArtefactError(f"artefact {digest[:16]}… is torn: chunk {name[:16]}… is gone")
                pieces.append(piece)
                found.update(piece)
                self._sleep(PAUSE_S)
        if found.hexdigest() != digest:
            raise ArtefactError(f"artefact {digest[:16]}… was tampered with: its bytes have another SHA-256")
        return b"".join(pieces)

    # --- what nobody needs -------------------------------------------------------------------------------------------
    def index(self) -> dict[str, int]:
        """When each chunk and manifest was last stored, microseconds, by `chunk_name` and `manifest_name`.

        To be read *before* the manifests, by whoever deletes what they do not name.
        """
        with translated("reading the index of artefacts"):
            found = self._client.zrange(self._keys.stored, 0, -1, withscores=True)
        return {name.decode(): int(score) for name, score in found}

    def named(self, digests: Iterable[str]) -> set[str]:
        """The chunks, by name, that the manifests of artefacts name, as far as these are there."""
        chunks: set[str] = set()
        listed = sorted(set(digests))
        with translated("reading manifests"):
            for start in range(0, len(listed), PAGE):
                pipeline = self._client.pipeline(transaction=False)
                for digest in listed[start : start + PAGE]:
                    pipeline.get(self._keys.artefact(digest))
                for text in pipeline.execute():
                    chunks.update(chunk_name(name) for name in ([] if text is None else json.loads(text)["chunks"]))
        return chunks

    def size(self, names: Sequence[str]) -> int:
        """Bytes of chunks and manifests, by name."""
        found = 0
        with translated("measuring artefacts"):
            for start in range(0, len(names), PAGE):
                pipeline = self._client.pipeline(transaction=False)
                for name in names[start : start + PAGE]:
                    pipeline.strlen(self._keys.prefix + name)
                found += sum(pipeline.execute())
        return found

    def drop(self, names: Iterable[str], index: Mapping[str, int]) -> int:
        """Delete chunks and manifests, by name, that were not stored since the index was read; the bytes freed."""
        freed = 0
        for name in names:
            keys = [self._keys.stored, self._keys.prefix + name]
            freed += int(self._drop(self._client, keys, [name, index.get(name, "")]))
        return freed


def chunk_name(digest: str) -> str:
    """A chunk's name in the index: its key without the line's prefix."""
    return f"blob:{digest}"


def manifest_name(digest: str) -> str:
    """A manifest's."""
    return f"artefact:{digest}"
