"""A frame's way in a test's hands: admit, take and settle, one call each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gaussline.worker.broker.admission import Admission, Answer, Request
from gaussline.worker.broker.client import connect
from gaussline.worker.broker.intake import Intake, Message
from gaussline.worker.broker.ledger import Ledger, read_ledger
from gaussline.worker.broker.settle import SettleBounds, Settlement, Settler
from gaussline.worker.contract.frame import Frame, encode_batch, frame_id
from gaussline.worker.contract.keys import Keys

BUDGET = 10**9


class Way:
    """One line."""

    def __init__(self, url: str, line: str) -> None:
        self.client = connect(url)
        self.line = line
        self.keys = Keys(line)
        self._doors: dict[str, tuple[Admission, int, int]] = {}

    def admit(self, camera: str = "cam1", frames: int = 1, size: int = 100, deadline_us: int = 0) -> Answer:
        """Admit the camera's next message."""
        if camera not in self._doors:
            door = Admission(self.client, self.line, camera, camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
            self._doors[camera] = (door, door.open(), 0)
        door, epoch, sequence = self._doors[camera]
        self._doors[camera] = (door, epoch, sequence + frames)
        pictures = [Frame(bytes(size), "png", 1_700_000_000_000_000) for _ in range(frames)]
        payload = encode_batch(camera, epoch, sequence, pictures)
        return door.admit(Request(epoch, sequence, frames, payload, deadline_us))

    def intake(self, worker: str = "w1", **options: Any) -> Intake:
        """A worker's intake."""
        return Intake(self.client, self.line, worker, **options)

    def take(self, worker: str = "w1", frames: int = 1000) -> list[Message]:
        """Take what there is."""
        return self.intake(worker).take(max_frames=frames, max_bytes=10**9)

    def settle(self, messages: Sequence[Message], decision: str = "pass", **bounds: Any) -> list[bool]:
        """Settle messages, every frame with the same decision."""
        return self.settler(**bounds).settle([settlement(message, decision) for message in messages])

    def settler(self, **bounds: Any) -> Settler:
        """What settles."""
        return Settler(self.client, self.line, SettleBounds(**bounds))

    def ledger(self) -> Ledger:
        """The ledger now."""
        return read_ledger(self.client, self.line)

    def verdict_ids(self) -> list[str]:
        """Frame ids on the verdict stream, oldest first."""
        return [fields[b"id"].decode() for _, fields in self.client.xrange(self.keys.verdicts)]

    def keys_of(self, kind: str) -> list[bytes]:
        """The line's keys of one kind."""
        return list(self.client.scan_iter(f"gl:\\{{{self.line}\\}}:{kind}:*"))

    def dump(self) -> dict[bytes, bytes]:
        """Everything this line holds, key by key, but for payloads that end by themselves."""
        keys = sorted(self.client.scan_iter(f"gl:\\{{{self.line}\\}}:*"))
        keys = [key for key in keys if b":incoming:" not in key]
        return {key: self.client.dump(key) for key in keys}

    def close(self) -> None:
        """Let go of the connection."""
        self.client.close()


def settlement(message: Message, decision: str = "pass", frames: int | None = None) -> Settlement:
    """A message's settlement with open-ended verdict texts."""
    count = message.frame_count if frames is None else frames
    ids = [frame_id(message.camera, message.epoch, message.first_sequence + offset) for offset in range(count)]
    return Settlement(message.camera, message.entry_id, [(name, decision, '{"v":1') for name in ids])
