"""Workers that break the promises on purpose: the checker must catch each of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from gaussline.worker.broker.intake import Intake, Message
from gaussline.worker.broker.settle import Settlement, Settler
from gaussline.worker.contract.keys import Keys

_GAP_S: Final = 0.3
"""Between the two halves of what should be one step."""


def _forget(settler: Settler, item: Settlement) -> int:
    """Acknowledge and delete a message with all that the ledger knows of it; 1 where it was pending."""
    keys = Keys(settler.line)
    client: Any = settler.client
    meta = client.hget(keys.index(item.camera), item.entry_id)
    together = client.pipeline(transaction=True)
    together.xack(keys.frames(item.camera), "workers", item.entry_id)
    if meta is not None:
        size = int(meta.split(b":")[3])
        together.hdel(keys.index(item.camera), item.entry_id)
        together.hincrby(keys.camera(item.camera), "bytes", -size)
        together.hincrby(keys.totals, "bytes", -size)
    together.xdel(keys.frames(item.camera), item.entry_id)
    return int(together.execute()[0])


def _publish(settler: Settler, item: Settlement) -> None:
    """Write a message's verdicts, whoever else did."""
    keys = Keys(settler.line)
    client: Any = settler.client
    seconds, micros = client.time()
    for frame_id, decision, text in item.verdicts:
        judged = f'{text},"judged_at":"{_text(seconds * 1_000_000 + micros)}"}}'
        client.xadd(
            keys.verdicts, {"id": frame_id, "camera": item.camera, "decision": decision, "json": judged.encode()}
        )
        client.hincrby(keys.camera(item.camera), decision, 1)
    for letter in item.dead:
        client.xadd(keys.dead(letter.reason), letter.to_fields())


def _text(us: int) -> str:
    from gaussline.worker.contract.clock import to_text

    return to_text(us)


class AcksFirst(Settler):
    """Acknowledges, and publishes afterwards: whoever dies in between has lost its frames."""

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """Two steps where there should be one."""
        acked = [_forget(self, item) == 1 for item in settlements]
        threading.Event().wait(_GAP_S)
        for item, mine in zip(settlements, acked, strict=True):
            if mine:
                _publish(self, item)
        return acked


class NoGuard(Settler):
    """Publishes whatever the acknowledgement says: a message that two workers had is judged twice."""

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """The verdicts first, and no look at what XACK answers."""
        for item in settlements:
            _publish(self, item)
            _forget(self, item)
        return [True] * len(settlements)


class SettlesTwice(Settler):
    """Settles as it should, and publishes once more."""

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """The product's settling, and then some of it again."""
        answers = super().settle(settlements)
        for item in settlements[:1]:
            _publish(self, item)
        return answers


class ForgetsToClaim(Intake):
    """Never looks for the messages of a dead worker."""

    def claim(self, *, max_frames: int, max_bytes: int) -> list[Message]:
        """Nothing."""
        return []


BROKEN: Final[dict[str, tuple[Callable[..., Intake], Callable[..., Settler]]]] = {
    "acks_first": (Intake, AcksFirst),
    "no_guard": (Intake, NoGuard),
    "settles_twice": (Intake, SettlesTwice),
    "forgets_to_claim": (ForgetsToClaim, Settler),
}


def parts(name: str) -> tuple[Callable[..., Intake], Callable[..., Settler]]:
    """Intake and settler of a broken worker."""
    return BROKEN[name]
