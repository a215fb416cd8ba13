"""What a producer knows of what it sent: a receipt a message, and running totals."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Status(StrEnum):
    """What became of a message at the door."""

    ADMITTED = "admitted"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one message.

    Attributes:
        ids: identities of its frames, camera:epoch:sequence: the ids of their verdicts.
        status: admitted, exactly once however often it was sent; or dropped by the producer's policy, for certain.
        entry_id: entry of the frames stream; empty where it was dropped.
        attempts: how often it was sent.
        why: which budget was full where it was dropped: camera, line, memory or verdicts.
        replicated: as many replicas had it as `wait_replicas` asks for; False only with `wait_policy=go_on`.
    """

    ids: tuple[str, ...]
    status: Status
    entry_id: str = ""
    attempts: int = 1
    why: str = ""
    replicated: bool = True

    @property
    def id(self) -> str:
        """Identity of the first frame."""
        return self.ids[0]

    @property
    def admitted(self) -> bool:
        """Every frame of the message will get its verdict."""
        return self.status is Status.ADMITTED


@dataclass(slots=True)
class Stats:
    """Totals of one producer since its start; frames unless the name says otherwise.

    offered = admitted + dropped + refused + unanswered, once no call is running.

    Attributes:
        dropped: by policy, on a full backlog.
        refused: an error told the caller that they did not go in (fenced off, busy for too long).
        unanswered: Redis had not answered when the producer gave up; a frame may have gone in.
        messages: messages admitted.
        bytes: of the messages admitted.
        busy: answers `busy`.
        retries: messages sent again.
        duplicates: of these, the ones that had been admitted before: their first answer was lost.
        reconnects: outages of Redis that were outlasted.
        reopened: epochs taken because Redis had forgotten the camera's.
        unreplicated: how often too few replicas had a frame in time, where `wait_replicas` asks for any.
    """

    offered: int = 0
    admitted: int = 0
    dropped: int = 0
    refused: int = 0
    unanswered: int = 0
    messages: int = 0
    bytes: int = 0
    busy: int = 0
    retries: int = 0
    duplicates: int = 0
    reconnects: int = 0
    reopened: int = 0
    unreplicated: int = 0

    def to_dict(self) -> dict[str, int]:
        """All of them by name."""
        return asdict(self)
