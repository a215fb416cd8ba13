"""The frame batch: what is right comes through whole, what is wrong is refused with its reason."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussline.worker.contract.clock import MAX_US
from gaussline.worker.contract.frame import (
    DTYPES,
    ENCODINGS,
    MAX_SEQUENCE,
    BadFrame,
    Frame,
    FrameBatch,
    decode_batch,
    encode_batch,
    frame_id,
    parse_frame_id,
)
from gaussline.worker.contract.limits import MessageLimits
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.errors import ContractError, LimitExceeded, UnknownVersion

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
NUMBERS = st.integers(0, MAX_SEQUENCE)
TIMES = st.integers(1, MAX_US - 1)
TEXTS = st.text(max_size=64)
ENCODED = st.builds(
    Frame,
    data=st.binary(max_size=200),
    encoding=st.sampled_from(sorted(ENCODINGS - {"raw"})),
    captured_us=TIMES,
    part=st.none() | TEXTS,
    deadline_us=st.none() | TIMES,
    trace=st.none() | TEXTS,
)
SIDES = st.integers(1, 9_000)
RAW = st.builds(
    Frame,
    data=st.binary(max_size=200),
    encoding=st.just("raw"),
    captured_us=TIMES,
    part=st.none() | TEXTS,
    deadline_us=st.none() | TIMES,
    shape=st.tuples(SIDES, SIDES) | st.tuples(SIDES, SIDES, st.sampled_from([1, 3, 4])),
    dtype=st.sampled_from(sorted(DTYPES)),
)
FRAMES = st.lists(ENCODED | RAW, min_size=1, max_size=5)
JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXTS | st.binary(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
GOOD_FRAME: dict[str, Any] = {"encoding": "jpeg", "captured_us": 5, "data": b"x"}
GOOD: dict[str, Any] = {"v": 1, "camera": "cam1", "epoch": 2, "seq": 7, "frames": [GOOD_FRAME]}


def packed(**changes: Any) -> bytes:
    """A right message with some fields changed; a field set to `...` is left out."""
    message = {name: value for name, value in {**GOOD, **changes}.items() if value is not ...}
    data = msgpack.packb(message)
    assert isinstance(data, bytes)
    return data


def one_frame(**changes: Any) -> Frame | BadFrame:
    """The frame that a right message with one changed frame gives."""
    fields = {name: value for name, value in {**GOOD_FRAME, **changes}.items() if value is not ...}
    (frame,) = decode_batch(packed(frames=[fields])).frames
    return frame


# --- what is right ---------------------------------------------------------------------------------------------------
@given(NAMES, st.integers(1, MAX_SEQUENCE), NUMBERS, FRAMES)
def test_a_batch_comes_back_as_it_went(camera: str, epoch: int, first: int, frames: list[Frame]) -> None:
    batch = decode_batch(encode_batch(camera, epoch, first, frames))
    assert batch == FrameBatch(camera, epoch, first, tuple(frames))


@given(st.dictionaries(st.text(min_size=1, max_size=8).map(lambda name: "x_" + name), JUNK, max_size=3))
def test_fields_of_tomorrow_are_ignored(extra: dict[str, Any]) -> None:
    known = decode_batch(packed())
    assert decode_batch(packed(**extra)) == known
    assert decode_batch(packed(frames=[{**GOOD_FRAME, **extra}])) == known


def test_fields_that_an_older_producer_does_not_know_have_defaults() -> None:
    assert one_frame() == Frame(b"x", "jpeg", 5)


# --- a wrong envelope ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"v": ...}, "names no contract version"),
        ({"v": "1"}, "names no contract version"),
        ({"v": True}, "names no contract version"),
        ({"v": 1.0}, "names no contract version"),
        ({"v": 0}, "names no contract version"),
        ({"v": -1}, "names no contract version"),
        ({"camera": ...}, "camera name"),
        ({"camera": 5}, "camera name"),
        ({"camera": ""}, "camera name"),
        ({"camera": "a:b"}, "camera name"),
        ({"camera": "a\n"}, "camera name"),
        ({"camera": "{a}"}, "camera name"),
        ({"camera": "-a"}, "camera name"),
        ({"camera": "ä"}, "camera name"),
        ({"camera": "a" * 65}, "camera name"),
        ({"camera": ["a"]}, "camera name"),
        ({"epoch": ...}, "epoch is None"),
        ({"epoch": 0}, "epoch is 0"),
        ({"epoch": True}, "epoch is True"),
        ({"epoch": "1"}, "epoch is '1'"),
        ({"epoch": MAX_SEQUENCE + 1}, "epoch is"),
        ({"seq": -1}, "seq is -1"),
        ({"seq": 1.0}, "seq is 1.0"),
        ({"seq": MAX_SEQUENCE + 1}, "seq is"),
        ({"frames": ...}, "holds no frames"),
        ({"frames": []}, "holds no frames"),
        ({"frames": {}}, "holds no frames"),
        ({"frames": b"x"}, "holds no frames"),
    ],
)
def test_a_wrong_envelope_is_refused_whole(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        decode_batch(packed(**changes))


@pytest.mark.parametrize("version", [2, 3, 1_000, 2**63])
def test_a_version_of_tomorrow_is_an_error_that_says_so(version: int) -> None:
    with pytest.raises(UnknownVersion, match=f"version {version}; this build speaks up to 1: update it"):
        decode_batch(packed(v=version, frames="of another kind"))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"junk",
        packed()[:-1],
        packed() + b"\0",
        msgpack.packb([1, 2]),
        msgpack.packb("text"),
        msgpack.packb({1: 2}),
        msgpack.packb({"v": msgpack.ExtType(5, b"x")}),
        msgpack.packb({"v": 1, "camera": b"\xff\xfe"}, use_bin_type=False),
        b"\x91" * 5_000 + b"\x90",
    ],
)
def test_other_bytes_are_refused(payload: bytes) -> None:
    with pytest.raises(ContractError):
        decode_batch(payload)


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_else(payload: bytes) -> None:
    with pytest.raises(ContractError):
        decode_batch(payload)


@given(st.data())
def test_a_damaged_message_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    payload = bytearray(encode_batch("cam1", 1, 0, data.draw(FRAMES)))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        batch = decode_batch(bytes(payload[: data.draw(st.integers(1, len(payload)))]))
    except ContractError:
        return
    assert batch.frames
    assert all(isinstance(frame, Frame | BadFrame) for frame in batch.frames)


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), JUNK, min_size=1))
def test_fields_of_any_kind_are_read_or_refused_and_nothing_else(changes: dict[str, Any]) -> None:
    try:
        decode_batch(packed(**changes))
    except ContractError:
        return


# --- limits ----------------------------------------------------------------------------------------------------------
def test_limits_are_found_before_the_memory_is_spent() -> None:
    limits = MessageLimits(max_bytes=500, max_frames=3)
    with pytest.raises(LimitExceeded, match="over the limit of 500 bytes"):
        decode_batch(packed(x=bytes(500)), limits)
    with pytest.raises(LimitExceeded, match="holds 4 frames, over the limit of 3"):
        decode_batch(packed(frames=[GOOD_FRAME] * 4), limits)
    assert len(decode_batch(packed(frames=[GOOD_FRAME] * 3), limits).frames) == 3


def nested(width: int, depth: int) -> bytes:
    """Arrays in arrays, each of this width."""
    head = b"\xdd" + width.to_bytes(4, "big")
    data = b"\x90"
    for _ in range(depth):
        data = head + data * width
    return data


@pytest.mark.parametrize(
    "payload",
    [
        nested(1_000, 2),
        nested(60, 3),
        b"\x81\xa1x" + nested(60, 3),
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xdb\x00\x02\x00\x00" + b"x" * 2**17,
        packed(frames=[{**GOOD_FRAME, "x": [[]] * 60}] * 60),
    ],
)
def test_a_message_that_would_become_a_mountain_stays_small(payload: bytes) -> None:
    """A few hundred kB of nested arrays would become tens of MB; the bound ends it at once."""
    tracemalloc.start()
    with pytest.raises(ContractError):
        decode_batch(payload)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 2**20


# --- a wrong frame in a right envelope -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "reason", "said"),
    [
        ({"data": ...}, Reason.INVALID_FRAME, "data is a NoneType"),
        ({"data": "text"}, Reason.INVALID_FRAME, "data is a str"),
        ({"captured_us": ...}, Reason.INVALID_FRAME, "captured_us is None"),
        ({"captured_us": 0}, Reason.INVALID_FRAME, "captured_us is 0"),
        ({"captured_us": -5}, Reason.INVALID_FRAME, "captured_us is -5"),
        ({"captured_us": True}, Reason.INVALID_FRAME, "captured_us is True"),
        ({"captured_us": 1.5}, Reason.INVALID_FRAME, "captured_us is 1.5"),
        ({"captured_us": MAX_US}, Reason.INVALID_FRAME, "captured_us is"),
        ({"part": 5}, Reason.INVALID_FRAME, "part is no text"),
        ({"part": "x" * 257}, Reason.INVALID_FRAME, "part is no text of at most 256 bytes"),
        ({"part": "ä" * 129}, Reason.INVALID_FRAME, "part is no text of at most 256 bytes"),
        ({"encoding": ...}, Reason.UNSUPPORTED_FORMAT, "encoding is None"),
        ({"encoding": "gif"}, Reason.UNSUPPORTED_FORMAT, "encoding is 'gif'"),
        ({"encoding": b"jpeg"}, Reason.UNSUPPORTED_FORMAT, "encoding is b'jpeg'"),
        ({"encoding": ["jpeg"]}, Reason.UNSUPPORTED_FORMAT, "encoding is"),
        ({"deadline_us": "soon"}, Reason.INVALID_FRAME, "deadline_us is 'soon'"),
        ({"deadline_us": 0}, Reason.INVALID_FRAME, "deadline_us is 0"),
        ({"deadline_us": MAX_US}, Reason.INVALID_FRAME, "deadline_us is"),
        ({"encoding": "raw"}, Reason.INVALID_ARRAY, "shape is None"),
        ({"encoding": "raw", "shape": [2], "dtype": "uint8"}, Reason.INVALID_ARRAY, "shape is [2]"),
        ({"encoding": "raw", "shape": [2, 0], "dtype": "uint8"}, Reason.INVALID_ARRAY, "shape is [2, 0]"),
        ({"encoding": "raw", "shape": [2, True], "dtype": "uint8"}, Reason.INVALID_ARRAY, "shape is"),
        ({"encoding": "raw", "shape": [2, 2.0], "dtype": "uint8"}, Reason.INVALID_ARRAY, "shape is"),
        ({"encoding": "raw", "shape": [1, 1, 1, 1], "dtype": "uint8"}, Reason.INVALID_ARRAY, "shape is"),
        ({"encoding": "raw", "shape": [2, 2]}, Reason.INVALID_ARRAY, "dtype is None"),
        ({"encoding": "raw", "shape": [2, 2], "dtype": "int8"}, Reason.INVALID_ARRAY, "dtype is 'int8'"),
    ],
)
def test_a_wrong_frame_is_told_by_its_reason(changes: dict[str, Any], reason: Reason, said: str) -> None:
    frame = one_frame(**changes)
    assert isinstance(frame, BadFrame)
    assert frame.reason is reason
    assert said in frame.detail
    assert len(frame.detail) < 200


def test_a_wrong_frame_keeps_what_is_right_about_it() -> None:
    frame = one_frame(encoding="gif", part="A-1")
    assert frame == BadFrame(Reason.UNSUPPORTED_FORMAT, frame.detail, b"x", 5, "A-1")  # type: ignore[union-attr]
    assert one_frame(part=5, captured_us=7).captured_us == 7
    assert one_frame(captured_us=-1, part="A-1").part == "A-1"


def test_a_wrong_frame_spares_its_neighbours() -> None:
    frames = decode_batch(packed(frames=[GOOD_FRAME, "no map", {}, GOOD_FRAME])).frames
    assert [type(frame) for frame in frames] == [Frame, BadFrame, BadFrame, Frame]


def test_a_broken_trace_costs_no_part_its_verdict() -> None:
    assert one_frame(trace=5) == one_frame(trace="x" * 257) == one_frame()


@given(
    st.dictionaries(st.sampled_from(["data", "encoding", "captured_us", "part", "deadline_us", "shape", "dtype"]), JUNK)
)
def test_any_frame_is_a_frame_or_a_bad_one(changes: dict[str, Any]) -> None:
    frame = one_frame(**changes)
    if isinstance(frame, BadFrame):
        assert frame.detail
        assert isinstance(frame.data, bytes)
    else:
        assert decode_batch(encode_batch("cam1", 2, 7, [frame])).frames == (frame,)


# --- identities ------------------------------------------------------------------------------------------------------
@given(NAMES, st.integers(1, MAX_SEQUENCE), NUMBERS)
def test_identities_come_back(camera: str, epoch: int, sequence: int) -> None:
    assert parse_frame_id(frame_id(camera, epoch, sequence)) == (camera, epoch, sequence)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cam1",
        "cam1:1",
        "cam1:1:2:3",
        "cam1:0:1",
        "cam1:01:1",
        "cam1:1:-1",
        "cam1:1:1.0",
        "cam1:٣:1",
        "cam1:1:1\n",
        "a b:1:1",
        f"cam1:{MAX_SEQUENCE + 1}:0",
        f"cam1:1:{MAX_SEQUENCE + 1}",
        f"cam1:1:{10**30}",
    ],
)
def test_other_texts_are_no_identities(text: str) -> None:
    with pytest.raises(ContractError):
        parse_frame_id(text)


def test_one_text_that_is_too_long_or_no_utf8_costs_its_own_frame() -> None:
    good = {"encoding": "png", "captured_us": 1, "data": b"x"}
    for part in (b"\xa1\xff", msgpack.packb("p" * 2**20)):
        bad = msgpack.packb(good | {"part": "?"}).replace(b"\xa1?", part)
        frames = [msgpack.packb(good), bad, msgpack.packb(good | {"trace": "t" * 2**18}), msgpack.packb(good)]
        head = msgpack.packb({"v": 1, "camera": "cam1", "epoch": 1, "seq": 0})
        payload = bytes([head[0] + 1]) + head[1:] + msgpack.packb("frames") + bytes([0x94]) + b"".join(frames)
        batch = decode_batch(payload)
        assert [isinstance(frame, BadFrame) for frame in batch.frames] == [False, True, False, False]
        assert isinstance(batch.frames[1], BadFrame)
        assert batch.frames[1].reason is Reason.INVALID_FRAME
        assert batch.frames[1].part is None
        assert isinstance(batch.frames[2], Frame)
        assert batch.frames[2].trace is None
