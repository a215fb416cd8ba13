"""The order: a decision that is in no feature event, written into the feature log so that replaying the log repeats it.

The learner obeys an order at its place in the log, whenever it reads it: the same log gives the same moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgpack

from gaussline.worker.contract.bounded import unpack
from gaussline.worker.contract.keys import check_name
from gaussline.worker.errors import ContractError, UnknownVersion

VERSION: Final = 1
MAX_BYTES: Final = 65_536
MAX_TEXT_BYTES: Final = 500


class OrderKind(StrEnum):
    """What is ordered."""

    GOOD = "good"
    """The frame is of a good part: it teaches, though the gate refused it."""
    BAD = "bad"
    """The frame is of a bad part: neither it nor its neighbourhood teaches, and it leaves the calibration."""
    FREEZE = "freeze"
    """Nothing teaches from here on."""
    RESUME = "resume"
    """Frames teach again."""
    RELEASE = "release"
    """The alarm was nothing: frames it keeps back in quarantine may teach if the gate lets them."""
    CONFIRM = "confirm"
    """What changed is the new normal: forget the old, and learn from the frames since the alarm."""


@dataclass(frozen=True, slots=True)
class Order:
    """One decision of a person, or of a system that speaks for one.

    Attributes:
        by: who.
        frame: identity of the frame that `good` and `bad` are about.
        camera: camera that it is about; empty: all of them.
        source: id of the feedback entry that it was taken from.
    """

    kind: OrderKind
    by: str
    note: str = ""
    frame: str = ""
    camera: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if self.camera:
            check_name("camera", self.camera)
        if (self.kind in (OrderKind.GOOD, OrderKind.BAD)) != bool(self.frame):
            raise ContractError(f"an order to {self.kind.value} is about {self.frame or 'no frame'}")
        for name, text in (("by", self.by), ("note", self.note), ("frame", self.frame), ("source", self.source)):
            if len(text.encode("utf-8", "replace")) > MAX_TEXT_BYTES or not (text.isprintable()):
                raise ContractError(f"the order's {name} must be one line of at most {MAX_TEXT_BYTES} bytes")

    def encode(self) -> bytes:
        """As msgpack."""
        fields = {
            "v": VERSION,
            "kind": self.kind.value,
            "by": self.by,
            "note": self.note,
            "frame": self.frame,
            "camera": self.camera,
            "source": self.source,
        }
        result = msgpack.packb(fields, use_bin_type=True)
        assert isinstance(result, bytes)
        return result

    @classmethod
    def decode(cls, payload: bytes) -> Order:
        """Read one order; fields it does not know are ignored. Raises UnknownVersion, LimitExceeded, ContractError."""
        try:
            fields: Any = unpack(payload, max_bytes=MAX_BYTES, max_array=0, max_containers=1)
            version = fields["v"]
            if type(version) is not int or version != VERSION:
                raise UnknownVersion(f"order speaks version {version!r:.20}; this build speaks {VERSION}")
            texts = {name: fields.get(name, "") for name in ("by", "note", "frame", "camera", "source")}
            wrong = [name for name, text in texts.items() if type(text) is not str]
            if wrong:
                raise TypeError(f"{wrong[0]} is no text")
            return cls(OrderKind(fields["kind"]), **texts)
        except ContractError:
            raise
        except Exception as error:  # fields of any kind may be missing or wrong; all mean that these bytes are no order
            raise ContractError(f"bytes are no order: {type(error).__name__}: {str(error)[:200]}") from None
