"""What the part judge knows, in Redis: open parts, decided ones, its cursor; each turn is one atomic write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgpack

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.broker.script import Script
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.part_verdict import PartFrame, PartVerdict

SUBSCRIBER = "parts"
"""The judge's name among the subscribers of verdicts, which stay until it has them."""


@dataclass(frozen=True, slots=True)
class PartState:
    """What stands in Redis.

    Attributes:
        revision: goes up with every turn; a turn is written only over the revision that it was made from.
        run: of the server that this was read of; a turn is written only to the same.
        cursor: the last verdict's entry that was taken.
        open: part -> JSON.
    """

    revision: int
    run: str
    cursor: str
    open: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class PartWrite:
    """One turn's changes.

    Attributes:
        open: (part, JSON) of parts that are open, changed.
        closed: parts that are open no more.
        late: (part, frame) of frames that came after their part was decided.
    """

    cursor: str
    open: Sequence[tuple[str, str]] = ()
    closed: Sequence[str] = ()
    decided: Sequence[PartVerdict] = ()
    late: Sequence[tuple[str, PartFrame]] = ()
    without_part: int = 0


@dataclass(slots=True)
class PartStore:
    """The parts of one line."""

    client: Redis
    line: str
    remember_s: float
    _commit: Script = field(default_factory=lambda: Script("commit_parts"), repr=False)

    def load(self) -> PartState:
        """Everything that a judge needs to go on."""
        keys = Keys(self.line)
        with translated("reading open parts"):
            # The revision first: what is written behind it makes `commit` fail, so nothing need be read as one. At a
            # full maxmemory Redis lets nobody queue commands for a transaction, not even to read.
            pipeline = self.client.pipeline(transaction=False)
            pipeline.hmget(keys.part_state, "revision", "cursor")
            pipeline.hgetall(keys.parts_open)
            pipeline.info("server")
            (revision, cursor), found, server = pipeline.execute()
        parts = {part.decode(): text for part, text in found.items()}
        at = "0-0" if cursor is None else cursor.decode()
        return PartState(int(revision or 0), str(server["run_id"]), at, parts)

    def decided(self, parts: Iterable[str]) -> set[str]:
        """Which of these parts were decided, as far as that is remembered."""
        named = sorted(set(parts))
        if not named:
            return set()
        with translated("looking for decided parts"):
            pipeline = self.client.pipeline(transaction=False)
            for part in named:
                pipeline.zscore(Keys(self.line).parts_done, part)
            scores = pipeline.execute()
        return {part for part, score in zip(named, scores, strict=True) if score is not None}

    def commit(self, revision: int, run: str, write: PartWrite, now_us: int) -> int | None:
        """Write a turn; the new revision, or None.

        None where somebody else has written since, the server is another one or was started again, or it has forgotten
        the judge.
        """
        keys = Keys(self.line)
        decided = [(done.id, done.part, done.decision.value, done.to_json()) for done in write.decided]
        late = [(part, frame.id, frame.camera, frame.decision.value) for part, frame in write.late]
        turn = {
            "open": list(write.open),
            "closed": list(write.closed),
            "decided": decided,
            "late": late,
            "without_part": write.without_part,
        }
        answer = self._commit(
            self.client,
            [
                keys.part_state,
                keys.cursor(SUBSCRIBER),
                keys.parts_open,
                keys.parts,
                keys.parts_done,
                keys.parts_late,
                keys.subscribers,
            ],
            [
                revision,
                write.cursor,
                now_us // 1000,
                (now_us - int(self.remember_s * 1e6)) // 1000,
                msgpack.packb(turn, use_bin_type=False),
                SUBSCRIBER,
                run,
            ],
        )
        return None if int(answer) < 0 else int(answer)
