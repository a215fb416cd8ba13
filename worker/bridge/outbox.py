"""The outbox: which parcel goes next, and how far the cursor may move. Pure: no clock, no Redis, no thread."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

from gaussline.worker.bridge.parcel import Parcel


@dataclass(slots=True)
class Slot:
    """A parcel in hand.

    Attributes:
        place: rises with every parcel.
        upto: the entry that the cursor may stand at once this and everything before it is done: what lies between this
            and the next parcel in hand is done already.
        tries: deliveries that were begun and failed.
        not_before_s: by the caller's clock.
    """

    parcel: Parcel
    place: int
    upto: str
    tries: int = 0
    not_before_s: float = 0.0
    under_way: bool = False


class Outbox:
    """Parcels in hand, at most `window` of them. Of those with the same `order` one is under way at a time, the oldest.

    One that is done takes no room, even where the cursor has to wait for one before it.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._slots: list[Slot] = []
        self._lines: dict[str, deque[Slot]] = {}
        self._places = 0
        self._cursor: str | None = None
        self.under_way = 0
        """Parcels handed out and not answered yet."""

    @property
    def room(self) -> int:
        """Parcels that it may still take."""
        return self._window - len(self._slots)

    @property
    def waiting(self) -> int:
        """Parcels in hand: those that are not delivered yet."""
        return len(self._slots)

    @property
    def cursor(self) -> str | None:
        """The newest entry of which is known that it and everything before it is done; None before the first."""
        return self._cursor

    @property
    def oldest(self) -> str | None:
        """The oldest entry that is not done."""
        return self._slots[0].parcel.entry_id if self._slots else None

    def add(self, parcel: Parcel) -> None:
        """Take the stream's next parcel."""
        slot = Slot(parcel, self._places, parcel.entry_id)
        self._places += 1
        self._slots.append(slot)
        self._lines.setdefault(parcel.order, deque()).append(slot)

    def skip(self, entry_id: str) -> None:
        """The stream's next entry is for nobody here: it is done, and takes no room."""
        if self._slots:
            self._slots[-1].upto = entry_id
        else:
            self._cursor = entry_id

    def next(self, now_s: float) -> Slot | None:
        """The parcel to send now, if there is one: the least tried first, so that none that fails stands before others.

        It is under way until `done` or `again`.
        """
        heads = (line[0] for line in self._lines.values())
        due = [slot for slot in heads if not slot.under_way and slot.not_before_s <= now_s]
        if not due:
            return None
        slot = min(due, key=lambda each: (each.tries, each.place))
        slot.under_way = True
        self.under_way += 1
        return slot

    def wake_s(self) -> float | None:
        """When the next pause of a parcel ends; None where none waits for its time."""
        return min(
            (line[0].not_before_s for line in self._lines.values() if not line[0].under_way),
            default=None,
        )

    def done(self, slot: Slot) -> None:
        """Delivered, or given up: the next of its order may go, and the cursor may move."""
        self._back(slot)
        line = self._lines[slot.parcel.order]
        line.popleft()
        if not line:
            del self._lines[slot.parcel.order]
        index = bisect_left(self._slots, slot.place, key=lambda each: each.place)
        del self._slots[index]
        if index:
            self._slots[index - 1].upto = slot.upto
        else:
            self._cursor = slot.upto

    def again(self, slot: Slot, not_before_s: float) -> None:
        """It could not be delivered, and is tried again from then on."""
        self._back(slot)
        slot.not_before_s = not_before_s

    def _back(self, slot: Slot) -> None:
        assert slot.under_way
        slot.under_way = False
        self.under_way -= 1
