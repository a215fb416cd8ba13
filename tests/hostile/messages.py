"""Hostile messages: what a client may send through the door although it is no frame batch, or holds a bad frame."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

import msgpack

from gaussline.worker.contract.clock import MAX_US
from tests.hostile.pictures import PICTURES, Picture
from tests.vision.images import encoded, scene

MESSAGE: Final = frozenset({"undecodable_message", "too_large", "unknown_version"})
INVALID: Final = frozenset({"invalid_frame"})
GOOD: Final = {"encoding": "png", "captured_us": 1_700_000_000_000_000, "data": encoded(scene(8, 8), "png")}


class Hostile(NamedTuple):
    """One message.

    Attributes:
        frames: how many it is admitted with.
        reasons: what each of them may be refused for; empty where it must be judged.
        judged: places of frames that may be judged too: damage need not show.
    """

    name: str
    payload: bytes
    frames: int
    reasons: list[frozenset[str]]
    judged: frozenset[int] = frozenset()


def _packed(value: object) -> bytes:
    data = msgpack.packb(value, use_bin_type=True)
    assert isinstance(data, bytes)
    return data


def _envelope(camera: str, epoch: int, seq: int, frames: object) -> dict[str, Any]:
    return {"v": 1, "camera": camera, "epoch": epoch, "seq": seq, "frames": frames}


def whole(random: Random, camera: str, epoch: int, seq: int) -> Hostile:
    """An envelope that is wrong: every frame it was admitted with is refused."""
    count = random.randint(1, 4)
    frames: list[Any] = [GOOD] * count
    right = _packed(_envelope(camera, epoch, seq, frames))
    change: dict[str, Any] = random.choice(
        (
            {"v": random.choice(("1", 0, -1, None, 1.0, True, [], 2, 2**63))},
            {"camera": random.choice(("cam\x00", "a\nb", "", "x" * 2**20, 7, None, b"cam1", "otherCamera", "\x1b[2J"))},
            {"epoch": random.choice((0, -1, 2**63, 1.5, "1", None, epoch + 1))},
            {"seq": random.choice((-1, -(2**62), 2**63, 0.5, True, seq + 1))},
            {"frames": random.choice((None, [], {}, "frames", [GOOD] * 65, [[]] * 2**15, {"a": GOOD}))},
        )
    )
    kinds: tuple[tuple[str, Callable[[], bytes]], ...] = (
        ("changed", lambda: _packed(_envelope(camera, epoch, seq, frames) | change)),
        ("cut", lambda: right[: random.randrange(len(right))]),
        ("noise", lambda: random.randbytes(random.randrange(1, 300))),
        ("two values", lambda: right + right),
        ("huge array", lambda: b"\xdd\xff\xff\xff\xff" + random.randbytes(20)),
        ("huge map", lambda: b"\xdf\xff\xff\xff\xff" + random.randbytes(20)),
        ("huge bytes", lambda: b"\xc6\xff\xff\xff\xff" + random.randbytes(20)),
        ("huge text", lambda: b"\xdb\xff\xff\xff\xff" + random.randbytes(20)),
        ("deep", lambda: b"\x91" * random.choice((100, 2000, 100_000)) + b"\x00"),
        ("wide", lambda: _packed([[[] for _ in range(60)] for _ in range(60)])),
        ("extension", lambda: msgpack.packb(msgpack.ExtType(5, b"x" * 10))),
        ("time", lambda: _packed(_envelope(camera, epoch, seq, msgpack.Timestamp(2**33, 5)))),
        ("number keys", lambda: _packed({1: 2, 3: 4})),
        ("list", lambda: _packed(frames)),
        ("one more", lambda: _packed(_envelope(camera, epoch, seq, [GOOD] * (count + 1)))),
    )
    name, make = random.choice(kinds)
    return Hostile(f"whole: {name} {change if name == 'changed' else ''}"[:80], make(), count, [MESSAGE] * count)


def one_field(random: Random, camera: str, epoch: int, seq: int) -> Hostile:
    """Good frames, and one with a field that is wrong."""
    times: tuple[object, ...] = (-1, 0, -(2**62), 2**63, MAX_US, 1.5, float("nan"), "now", None, True, [])
    changes: tuple[tuple[dict[str, Any], frozenset[str]], ...] = (
        ({"captured_us": random.choice(times)}, INVALID),
        ({"deadline_us": random.choice((-1, 0, -(2**62), 2**63, MAX_US, float("inf"), "soon", []))}, INVALID),
        ({"data": random.choice(("text", None, 5, [1], {}))}, INVALID),
        ({"part": random.choice((5, "p" * 257, "p" * 2**20, [], {"a": 1}, b"bytes"))}, INVALID),
        (
            {"encoding": random.choice(("gif", "exe", "", 5, None, "PNG", "\x00", "j" * 2**17))},
            frozenset({"unsupported_format"}),
        ),
        (
            {
                "encoding": "raw",
                "shape": random.choice((None, [], [0, 4], [-1, -4], [2.0, 2], ["2", "2"], [1] * 60, 4)),
            },
            frozenset({"invalid_array"}),
        ),
        (
            {"encoding": "raw", "shape": [2, 2], "dtype": random.choice((None, "object", "O", "complex64", 5))},
            frozenset({"invalid_array"}),
        ),
    )
    change, reasons = random.choice(changes)
    return _among(random, camera, epoch, seq, GOOD | change, reasons, judged=False, name=f"field: {change}"[:80])


def no_map(random: Random, camera: str, epoch: int, seq: int) -> Hostile:
    """Good frames, and one that is no map."""
    bad = random.choice((None, 5, "frame", [1, 2], b"frame", True))
    return _among(random, camera, epoch, seq, bad, INVALID, judged=False, name="no map")


def picture(random: Random, camera: str, epoch: int, seq: int) -> Hostile:
    """Good frames, and one whose image is hostile."""
    make = random.choice(PICTURES)
    drawn: Picture = make(random)
    fields: dict[str, Any] = GOOD | {"encoding": drawn.encoding, "data": drawn.data}
    if drawn.shape is not None:
        fields |= {"shape": list(drawn.shape), "dtype": drawn.dtype}
    return _among(random, camera, epoch, seq, fields, drawn.reasons, judged=drawn.judged, name=make.__name__)


def _among(
    random: Random, camera: str, epoch: int, seq: int, bad: object, reasons: frozenset[str], *, judged: bool, name: str
) -> Hostile:
    count = random.randint(1, 5)
    place = random.randrange(count)
    frames: list[Any] = [GOOD] * count
    frames[place] = bad
    expected: list[frozenset[str]] = [frozenset()] * count
    expected[place] = reasons
    payload = _packed(_envelope(camera, epoch, seq, frames))
    return Hostile(name, payload, count, expected, frozenset({place} if judged else ()))


def hostile(random: Random, camera: str, epoch: int, seq: int) -> Hostile:
    """One message of any kind."""
    return random.choice((whole, one_field, no_map, picture, picture, picture))(random, camera, epoch, seq)
