"""A shot: one image with what is known of it, before it has a place in the camera's sequence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from gaussline.worker.contract.clock import MAX_US
from gaussline.worker.errors import ContractError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One image to send.

    Attributes:
        image: bytes of an image file, the path of one, a numpy array or a Pillow image; see `producer.image`.
        part_id: part or serial id, where the line knows it.
        captured_at: an aware datetime, or microseconds since the Unix epoch; None takes the moment of sending.
        deadline: an aware datetime, or a timedelta from the capture; after it nobody needs the verdict.
        encoding: of bytes: what they are; of pixels: what to send them as (`raw`, `png`, `jpeg`). None finds out.
        label: what a source knows of the image (`good`, or a defect's name). It is not sent.
        name: what a source calls the image, such as the path inside its folder. It is not sent.
    """

    image: Any
    part_id: str | None = None
    captured_at: datetime | int | None = None
    deadline: datetime | timedelta | None = None
    encoding: str | None = None
    label: str | None = None
    name: str | None = None


def to_us(what: str, moment: datetime | int) -> int:
    """A moment as microseconds since the Unix epoch. Raises ContractError for a datetime without a zone."""
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise ContractError(f"{what} {moment.isoformat()} has no time zone: use datetime.now(UTC)")
        us = (moment - _EPOCH) // timedelta(microseconds=1)
    elif isinstance(moment, int) and not isinstance(moment, bool):
        us = moment
    else:
        raise ContractError(f"{what} is a {type(moment).__name__}, neither a datetime nor microseconds as an int")
    if not 0 < us < MAX_US:
        raise ContractError(f"{what} of {us} microseconds since the Unix epoch lies outside 1970 to 2100")
    return us


def deadline_us(deadline: datetime | timedelta | None, captured_us: int) -> int | None:
    """A deadline as microseconds since the Unix epoch; a timedelta counts from the capture. Raises ContractError."""
    if deadline is None:
        return None
    if isinstance(deadline, timedelta):
        return to_us("deadline", captured_us + deadline // timedelta(microseconds=1))
    if isinstance(deadline, datetime):
        return to_us("deadline", deadline)
    raise ContractError(f"deadline is a {type(deadline).__name__}, neither a datetime nor a timedelta")
