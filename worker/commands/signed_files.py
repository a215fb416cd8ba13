"""Artefacts as files, with their signatures in a second file beside them: FILE and FILE.sig."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gaussline.worker.broker.seal import MAX_SIGNATURES, Seal, Signatures
from gaussline.worker.commands.options import read_file, write_file
from gaussline.worker.contract.artefact import digest_of
from gaussline.worker.errors import ArtefactError

VERSION = 1
MAX_BYTES = 64 * 1024


def beside(path: Path) -> Path:
    """Where a file's signatures lie."""
    return path.with_name(path.name + ".sig")


def write_signed(path: Path, data: bytes, seal: Seal, others: Signatures | None = None) -> dict[str, str]:
    """Write a file, and its signatures where it has any; the signatures. Raises SourceError."""
    digest = digest_of(data)
    signatures = seal.sign(digest, others)
    write_file(path, data)
    if signatures:
        text = json.dumps({"v": VERSION, "sha256": digest, "signatures": signatures}, indent=1) + "\n"
        write_file(beside(path), text.encode())
    else:
        beside(path).unlink(missing_ok=True)  # of what was there before
    return signatures


def read_signed(path: Path, seal: Seal) -> tuple[bytes, dict[str, str]]:
    """A file that the seal takes, and its signatures. Raises SourceError, ArtefactError."""
    data = read_file(path)
    signatures = read_signatures(path)
    seal.check(digest_of(data), signatures, str(path))
    return data, signatures


def read_signatures(path: Path) -> dict[str, str]:
    """The signatures beside a file; none where there are none. Raises ArtefactError where they are malformed."""
    place = beside(path)
    if not place.exists():
        return {}
    text = read_file(place)
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f"{len(text)} bytes")
        said: Any = json.loads(text)
        if said["v"] != VERSION:
            raise ValueError(f"version {said['v']!r}")
        signatures = {str(name): str(value) for name, value in dict(said["signatures"]).items()}
        if len(signatures) > MAX_SIGNATURES:
            raise ValueError(f"{len(signatures)} signatures")
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{place} holds no signatures: {type(error).__name__}: {error}") from None
    return signatures
