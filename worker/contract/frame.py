"""The frame batch: one stream message, one or more frames of one camera, as msgpack.

Written by producers, read by workers; the wire form is described in docs/contract.md. A batch is read in two steps, so
that one bad frame does not take its batch-mates with it: the envelope must be right as a whole (else ContractError),
then every frame is either a `Frame` or a `BadFrame` that carries its reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgpack

from gaussline.worker.contract.bounded import is_text, unpack
from gaussline.worker.contract.clock import MAX_US
from gaussline.worker.contract.keys import check_name
from gaussline.worker.contract.limits import MessageLimits
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.errors import ContractError, LimitExceeded, UnknownVersion

VERSION: Final = 1
ENCODINGS: Final = frozenset({"jpeg", "png", "bmp", "webp", "tiff", "raw"})
DTYPES: Final = frozenset({"uint8", "uint16", "float32"})
MAX_SEQUENCE: Final = 2**53 - 1
"""Sequences and epochs stay exact in JSON numbers and in Redis's Lua, both of which count in doubles."""
_DEFAULT_LIMITS: Final = MessageLimits()


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of one camera.

    Attributes:
        data: the encoded image, or the bytes of a C-contiguous little-endian array where `encoding` is `raw`.
        encoding: one of `ENCODINGS`.
        captured_us: UTC capture time, microseconds since the Unix epoch.
        part: part or serial id, where the line knows it.
        deadline_us: time after which nobody needs the verdict; such a frame ends as `not_judged(expired)`.
        shape: (H, W) or (H, W, C) with C of 1, 3 or 4; raw arrays only.
        dtype: one of `DTYPES`; raw arrays only.
        trace: W3C `traceparent` of the frame's trace, where tracing is on.
        retry_of: identity of the frame whose dead letter this one is a retry of.
    """

    data: bytes
    encoding: str
    captured_us: int
    part: str | None = None
    deadline_us: int | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    trace: str | None = None
    retry_of: str | None = None


@dataclass(frozen=True, slots=True)
class BadFrame:
    """A frame that follows its envelope but not the contract; it ends as `not_judged(reason)`."""

    reason: Reason
    detail: str
    data: bytes = b""
    captured_us: int | None = None
    part: str | None = None


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """Frames `first_sequence`, `first_sequence` + 1, … of one camera's epoch, in the order of capture."""

    camera: str
    epoch: int
    first_sequence: int
    frames: tuple[Frame | BadFrame, ...]


def frame_id(camera: str, epoch: int, sequence: int) -> str:
    """The identity of a frame, and so the id of its verdict: `camera:epoch:sequence`."""
    return f"{camera}:{epoch}:{sequence}"


def parse_frame_id(text: str) -> tuple[str, int, int]:
    """`camera:epoch:sequence` as its three parts. Raises ContractError."""
    parts = text.split(":")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) <= 16 for part in parts[1:]):
        raise ContractError(
            f"{text[:100]!r} is no frame id: it has the form camera:epoch:sequence, such as cam1:3:1042"
        )
    camera, epoch, sequence = check_name("camera", parts[0]), int(parts[1]), int(parts[2])
    if frame_id(camera, epoch, sequence) != text or not (1 <= epoch <= MAX_SEQUENCE and sequence <= MAX_SEQUENCE):
        raise ContractError(f"{text[:100]!r} is no frame id: its numbers are out of range, or begin with a zero")
    return camera, epoch, sequence


def encode_batch(camera: str, epoch: int, first_sequence: int, frames: list[Frame] | tuple[Frame, ...]) -> bytes:
    """One message as msgpack. Fields that stand at their default are left out."""
    packed: list[dict[str, Any]] = []
    for frame in frames:
        fields: dict[str, Any] = {"encoding": frame.encoding, "captured_us": frame.captured_us, "data": frame.data}
        for name in ("part", "deadline_us", "shape", "dtype", "trace", "retry_of"):
            value = getattr(frame, name)
            if value is not None:
                fields[name] = value
        packed.append(fields)
    message = {"v": VERSION, "camera": camera, "epoch": epoch, "seq": first_sequence, "frames": packed}
    result = msgpack.packb(message, use_bin_type=True)
    assert isinstance(result, bytes)
    return result


def decode_batch(payload: bytes, limits: MessageLimits = _DEFAULT_LIMITS) -> FrameBatch:
    """Read one message under limits.

    Raises LimitExceeded for a size or count over its limit, UnknownVersion for a version of tomorrow, ContractError for
    anything else that is wrong with the envelope. A wrong frame inside a right envelope becomes a `BadFrame`.
    """
    message = unpack(
        payload,
        max_bytes=limits.max_bytes,
        max_array=max(limits.max_frames, 16),
        max_containers=64 + 16 * limits.max_frames,
    )
    if not isinstance(message, dict):
        raise ContractError(f"message is a {type(message).__name__}, not a map")
    version = message.get("v")
    if type(version) is not int or version < 1:
        raise ContractError(f"message names no contract version: v is {version!r:.40}")
    if version > VERSION:
        raise UnknownVersion(f"message speaks contract version {version}; this build speaks up to {VERSION}: update it")
    camera = check_name("camera", message.get("camera"))
    epoch = _whole(message, "epoch", 1, MAX_SEQUENCE)
    first = _whole(message, "seq", 0, MAX_SEQUENCE)
    frames = message.get("frames")
    if not isinstance(frames, list) or not frames:
        raise ContractError("message holds no frames")
    if len(frames) > limits.max_frames:
        raise LimitExceeded(f"message holds {len(frames)} frames, over the limit of {limits.max_frames}")
    return FrameBatch(camera, epoch, first, tuple(_frame(fields, limits) for fields in frames))


def _whole(message: dict[str, Any], name: str, low: int, high: int) -> int:
    value = message.get(name)
    if type(value) is not int or not low <= value <= high:
        raise ContractError(f"{name} is {value!r:.60}, not a whole number from {low} to {high}")
    return value


def _frame(fields: object, limits: MessageLimits) -> Frame | BadFrame:
    if not isinstance(fields, dict):
        return BadFrame(Reason.INVALID_FRAME, f"frame is a {type(fields).__name__}, not a map")
    data = fields.get("data")
    if not isinstance(data, bytes):
        return BadFrame(Reason.INVALID_FRAME, f"data is a {type(data).__name__}, not bytes")
    captured: Any = fields.get("captured_us")
    part = fields.get("part")
    good_time = type(captured) is int and 0 < captured < MAX_US
    good_part = part is None or is_text(part, limits.max_text)
    known: dict[str, Any] = {"data": data}
    if good_time:
        known["captured_us"] = captured
    if good_part:
        known["part"] = part
    if not good_time:
        return BadFrame(
            Reason.INVALID_FRAME, f"captured_us is {captured!r:.60}, not a UTC time in microseconds", **known
        )
    if not good_part:
        return BadFrame(Reason.INVALID_FRAME, f"part is no text of at most {limits.max_text} bytes", **known)
    encoding = fields.get("encoding")
    if not isinstance(encoding, str) or encoding not in ENCODINGS:
        return BadFrame(
            Reason.UNSUPPORTED_FORMAT, f"encoding is {encoding!r:.40}, none of {sorted(ENCODINGS)}", **known
        )
    deadline = fields.get("deadline_us")
    if deadline is not None and not (type(deadline) is int and 0 < deadline < MAX_US):
        return BadFrame(Reason.INVALID_FRAME, f"deadline_us is {deadline!r:.60}, not a time in microseconds", **known)
    trace, retry_of = fields.get("trace"), fields.get("retry_of")
    # A broken trace context, or reference, must not cost a part its verdict.
    trace = trace if is_text(trace, limits.max_text) else None
    retry_of = retry_of if is_text(retry_of, limits.max_text) else None
    shape = fields.get("shape")
    dtype = fields.get("dtype")
    if encoding == "raw":
        if not (isinstance(shape, list) and len(shape) in (2, 3) and all(type(s) is int and s > 0 for s in shape)):
            return BadFrame(Reason.INVALID_ARRAY, f"shape is {shape!r:.60}, not (H, W) or (H, W, C)", **known)
        if not isinstance(dtype, str) or dtype not in DTYPES:
            return BadFrame(Reason.INVALID_ARRAY, f"dtype is {dtype!r:.40}, none of {sorted(DTYPES)}", **known)
        return Frame(data, encoding, captured, part, deadline, tuple(shape), dtype, trace, retry_of)
    return Frame(data, encoding, captured, part, deadline, None, None, trace, retry_of)
