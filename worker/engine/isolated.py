"""The isolated process: it judges, frame by frame and alone, the messages over which a worker may have died.

Whatever kills it, parsing, a codec, the backbone, is the fault of the one frame that it had said to begin. It speaks
on two pipes, in pieces with a length before each: a message in; then for every frame its number out, and its outcome.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, BinaryIO, Final

import msgpack

from gaussline.worker.broker.intake import Message
from gaussline.worker.contract.limits import MessageLimits
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.engine.judgement import Judge, Judgement
from gaussline.worker.engine.outcome_wire import pack_outcome
from gaussline.worker.engine.prepare import PreparedFrame, Preparer, Refusal

LENGTH: Final = struct.Struct("<I")
WHOLE: Final = -1
"""In the place of a frame's number: the message itself is read now."""
_PR_SET_PDEATHSIG: Final = 1
READY: Final = b"ready"


def send(stream: BinaryIO, data: bytes) -> None:
    """One piece."""
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def receive(stream: BinaryIO) -> bytes | None:
    """One piece; None at the end, or where it is torn."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    data = stream.read(size)
    return data if len(data) == size else None


def pack_order(message: Message, skip: set[int], limits: MessageLimits, now_us: int) -> bytes:
    """What is asked of the process: the frames of a message, some of them left out."""
    order = {"message": asdict(message), "skip": sorted(skip), "limits": asdict(limits), "now_us": now_us}
    packed = msgpack.packb(order, use_bin_type=True)
    assert isinstance(packed, bytes)
    return packed


def serve(make_judge: Callable[[dict[str, Any]], Judge[Any]]) -> None:
    """Body of the process: a first piece says how to make the judge, every other one is an order."""
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not be taken for an answer
    die_with_parent()
    about = receive(source)
    if about is None:
        return
    judge = make_judge(msgpack.unpackb(about, raw=False))
    judge.begin_thread(computes=True)
    send(sink, READY)
    while (order := receive(source)) is not None:
        _judge_all(judge, msgpack.unpackb(order, raw=False), sink)


def die_with_parent() -> None:
    """End when the thread does that started this process: an orphan would judge for nobody."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _judge_all(judge: Judge[Any], order: dict[str, Any], sink: BinaryIO) -> None:
    message = Message(**order["message"])
    _begin(sink, WHOLE)
    now_us, limits = order["now_us"], MessageLimits(**order["limits"])
    preparer = Preparer(judge.to_image, limits=limits, now_us=lambda: now_us, max_crashes=sys.maxsize)
    work = preparer.parse(message)
    for offset in range(message.frame_count):
        if offset in order["skip"]:
            continue
        _begin(sink, offset)
        outcome = work.outcomes[offset]
        if outcome is None:
            begun = preparer.begin_frame(work, offset, now_us)
            if isinstance(begun, PreparedFrame):
                preparer.decode(begun)
                outcome = begun.refusal or _judged(judge, begun)
            else:
                outcome = begun
        assert isinstance(outcome, Judgement | Refusal)
        send(sink, pack_outcome(outcome))
    send(sink, b"")


def _judged(judge: Judge[Any], frame: PreparedFrame[Any]) -> Judgement | Refusal:
    try:
        return judge.judge([frame.image], [frame.work.message.camera], [frame.identity])[0][0]
    except Exception as error:  # as in the compute stage: it costs one frame
        return Refusal(Reason.INTERNAL, f"{type(error).__name__}: {str(error)[:200]}")


def _begin(sink: BinaryIO, offset: int) -> None:
    send(sink, struct.pack("<i", offset))
