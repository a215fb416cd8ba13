"""The model artefact: arrays and one JSON manifest in one safetensors file, named by the SHA-256 of its bytes.

safetensors holds plain numbers behind a checked header: nothing in it can run, and a torn file does not open.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from gaussline.worker.errors import ArtefactError

VERSION: Final = 1
MAX_BYTES: Final = 2 * 2**30
MAX_HEADER_BYTES: Final = 16 * 2**20
_MANIFEST = "gaussline"
_DTYPES: Final = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Artefact:
    """Arrays by name and a JSON-able manifest, with the bytes they stand in.

    Attributes:
        arrays: of an artefact that was read: read-only views of `data`.
        data: the whole file.
        digest: SHA-256 of `data`, hex.
    """

    manifest: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]
    data: bytes
    digest: str

    @classmethod
    def pack(cls, manifest: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Artefact:
        """Write an artefact. The same manifest and arrays give the same bytes."""
        ordered = {name: np.array(arrays[name], order="C") for name in sorted(arrays)}
        # One metadata key: safetensors keeps metadata in a hash map, whose order would change the digest.
        text = json.dumps({"v": VERSION, **manifest}, sort_keys=True, separators=(",", ":"), allow_nan=False)
        data = save(ordered, metadata={_MANIFEST: text})
        return cls({"v": VERSION, **manifest}, ordered, data, digest_of(data))

    @classmethod
    def unpack(cls, data: bytes, digest: str | None = None, *, checked: bool = False) -> Artefact:
        """Read an artefact and check it against its digest. Raises ArtefactError.

        Nothing of the arrays is copied: a worker reads large artefacts beside its work. `checked` says that the caller
        has just compared the bytes with `digest` itself.
        """
        if len(data) > MAX_BYTES:
            raise ArtefactError(f"artefact of {len(data)} bytes is over the limit of {MAX_BYTES}")
        real = digest if checked and digest is not None else digest_of(data)
        if digest is not None and real != digest:
            raise ArtefactError(f"artefact is torn or tampered with: its SHA-256 is {real[:16]}…, not {digest[:16]}…")
        try:
            if len(data) < 8:
                raise ValueError("shorter than a header")
            (length,) = struct.unpack("<Q", data[:8])
            if length > MAX_HEADER_BYTES:
                raise ValueError(f"header of {length} bytes")
            header = json.loads(data[8 : 8 + length])
            manifest = json.loads(header["__metadata__"][_MANIFEST])
            if not isinstance(manifest, dict):
                raise TypeError(f"manifest is a {type(manifest).__name__}")
            arrays = _views(data, 8 + length, {name: said for name, said in header.items() if name != "__metadata__"})
        except Exception as error:  # the foreign parser raises many kinds; all mean that this is no artefact
            raise ArtefactError(
                f"bytes are no gaussline model artefact: {type(error).__name__}: {str(error)[:200]}"
            ) from None
        if manifest.get("v") != VERSION:
            raise ArtefactError(f"artefact has format version {manifest.get('v')!r}; this build reads {VERSION}")
        return cls(manifest, arrays, data, real)


def _views(data: bytes, begin: int, said: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The arrays that a safetensors header speaks of; they fill the file from `begin` on, without gap or overlap."""
    arrays = {}
    at = begin
    for name, each in sorted(said.items(), key=lambda item: (item[1]["data_offsets"], item[0])):
        dtype, shape = _DTYPES[each["dtype"]], tuple(each["shape"])
        if any(type(number) is not int or number < 0 for number in (*shape, *each["data_offsets"])):
            raise ValueError(f"array {name:.40} has a shape or a place that is none")
        first, end = each["data_offsets"]
        count = math.prod(shape)
        if begin + first != at or end - first != count * dtype.itemsize or begin + end > len(data):
            raise ValueError(f"array {name:.40} does not lie where it should")
        arrays[name] = np.frombuffer(data, dtype, count, at).reshape(shape) if count else np.empty(shape, dtype)
        at = begin + end
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes belong to no array")
    return arrays


def digest_of(data: bytes) -> str:
    """SHA-256 of bytes, hex."""
    return hashlib.sha256(data).hexdigest()
