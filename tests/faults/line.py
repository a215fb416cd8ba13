"""A line for one test: a server, worker processes, and messages of the test's own making."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from gaussline.worker.broker.admission import Admission, Answer, Request
from gaussline.worker.broker.client import connect
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.ledger import Ledger, read_ledger
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.frame import Frame, encode_batch
from gaussline.worker.contract.keys import Keys
from tests.faults.frames import Kind, broken_png, pixels
from tests.faults.zygote import Process, Zygote
from tests.support.waiting import eventually

BUDGET: Final = 2**30
CAPTURED_US: Final = 1_700_000_000_000_000


class HarnessLine:
    """Opens with its server; ends every process with the test."""

    def __init__(self, folder: Path, name: str = "hard") -> None:
        self.name = name
        self.keys = Keys(name)
        self._folder = folder
        self._stack = ExitStack()
        self._doors: dict[str, tuple[Admission, int]] = {}
        self._next: defaultdict[str, int] = defaultdict(int)

    def __enter__(self) -> HarnessLine:
        self.server = self._stack.enter_context(EmbeddedRedis(appendfsync="always"))
        self._zygote = self._stack.enter_context(Zygote())
        self.client = connect(self.server.url)
        self._stack.callback(self.client.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def worker(self, name: str, **options: Any) -> Process:
        """A worker process that has begun."""
        journal = self._folder / f"{name}.judge"
        process = self._zygote.spawn(
            "judge", name, self.log(name), url=self.server.url, line=self.name, journal=str(journal), **options
        )
        self._stack.callback(process.close)
        eventually(lambda: journal.exists() and b"ready" in journal.read_bytes(), what=f"worker {name}")
        return process

    def log(self, name: str) -> Path:
        """What a worker says on its standard error."""
        return self._folder / f"{name}.log"

    def notes(self, name: str) -> list[dict[str, Any]]:
        """What a worker wrote down."""
        return [json.loads(line) for line in (self._folder / f"{name}.judge").read_bytes().split(b"\n")[:-1]]

    def admit(self, payload: Callable[[int, int], bytes], frames: int, camera: str = "cam1") -> Answer:
        """Admit a message of the test's own making: `payload(epoch, first sequence)`."""
        if camera not in self._doors:
            door = Admission(self.client, self.name, camera, camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
            self._doors[camera] = (door, door.open())
        door, epoch = self._doors[camera]
        first = self._next[camera]
        self._next[camera] += frames
        return door.admit(Request(epoch, first, frames, payload(epoch, first)))

    def reopen(self, camera: str) -> None:
        """Take the camera anew, as a producer does that is told that its epoch is unknown."""
        door, epoch = self._doors[camera]
        now = 0
        while now <= epoch:
            now = door.open()
        self._doors[camera] = (door, now)

    def admit_again(self, camera: str, first: int, frames: int, payload: bytes) -> Answer:
        """Knock with a message of any sequence."""
        door, epoch = self._doors[camera]
        return door.admit(Request(epoch, first, frames, payload))

    def next_sequence(self, camera: str) -> int:
        """What the camera's next message begins with."""
        return self._next[camera]

    def send(self, kinds: Sequence[Kind], camera: str = "cam1") -> None:
        """Admit one message of frames of these kinds; the part of each is its token, from 1 on."""

        def payload(epoch: int, first: int) -> bytes:
            frames = [_frame(first + place + 1, kind) for place, kind in enumerate(kinds)]
            return encode_batch(camera, epoch, first, frames)

        self.admit(payload, len(kinds), camera)

    def verdicts(self, count: int, within_s: float = 30.0) -> list[dict[str, Any]]:
        """All verdicts, once there are so many: by camera and sequence."""
        reader = Verdicts(self.client, self.name)
        eventually(lambda: self.client.xlen(self.keys.verdicts) >= count, within_s=within_s, what=f"{count} verdicts")
        found = [verdict for _, verdict in reader.read("0-0", count=10**6)]
        assert len(found) == count
        return sorted(found, key=lambda one: (one["camera"], one["sequence"]))

    def held(self, worker: str, camera: str = "cam1") -> int:
        """Messages that are in a worker's hands."""
        owners = self.client.xpending(self.keys.frames(camera), "workers")["consumers"]
        return sum(int(owner["pending"]) for owner in owners if owner["name"] == worker.encode())

    def ledger(self) -> Ledger:
        """The ledger now."""
        return read_ledger(self.client, self.name)


def _frame(token: int, kind: Kind) -> Frame:
    if kind is Kind.BROKEN:
        return Frame(broken_png(token), "png", CAPTURED_US, str(token))
    image = pixels(token, kind)
    deadline_us = CAPTURED_US + 1 if kind is Kind.LATE else None
    return Frame(image.tobytes(), "raw", CAPTURED_US, str(token), deadline_us, image.shape, "uint8")
