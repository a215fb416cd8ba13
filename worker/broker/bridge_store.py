"""What a bridge keeps in Redis beside its cursor: whose turn it is, and the verdicts that its receiver refuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.broker.script import Script
from gaussline.worker.contract.keys import Keys, check_name
from gaussline.worker.errors import Fenced

PAGE = 100
MAX_WHY = 500


@dataclass(frozen=True, slots=True)
class BridgeLetter:
    """A verdict that was refused.

    Attributes:
        letter_id: its place among the dead letters; its time is when it was put there.
        entry_id: its place in the stream of verdicts.
        why: what the receiver said, or how often it was tried.
        body: the verdict's JSON.
    """

    letter_id: str
    entry_id: str
    id: str
    why: str
    body: bytes


@dataclass(slots=True)
class BridgeStore:
    """One bridge's own keys.

    Attributes:
        owner: this process; of several with one bridge name one delivers.
    """

    client: Redis
    line: str
    bridge: str
    owner: str = ""
    dead_max_bytes: int = 16 * 2**20
    _lease: Script = field(default_factory=lambda: Script("bridge_lease"), repr=False)
    _bury: Script = field(default_factory=lambda: Script("bury"), repr=False)
    _unbury: Script = field(default_factory=lambda: Script("unbury"), repr=False)

    def __post_init__(self) -> None:
        check_name("subscriber", self.bridge)

    def hold(self, seconds: float, *, renew: bool = False) -> int:
        """Take the bridge's place for so long, or hold on to it; Redis's time in microseconds.

        Raises Fenced while another process has it.
        """
        keys, milliseconds = [Keys(self.line).bridge(self.bridge)], int(seconds * 1000)
        answer = self._lease(self.client, keys, [self.owner, "renew" if renew else "take", milliseconds])
        if int(answer[0]) != 1:
            raise Fenced(
                f"bridge {self.bridge} of line {self.line} runs already: {answer[1].decode() or 'nobody'} has its "
                f"place for {int(answer[2]) / 1000:.1f} s more"
            )
        return int(answer[1])

    def release(self) -> None:
        """Give the place back, if it is ours."""
        self._lease(self.client, [Keys(self.line).bridge(self.bridge)], [self.owner, "release", 0])

    # --- dead letters ------------------------------------------------------------------------------------------------
    def bury(self, entry_id: str, identity: str, why: str, body: bytes) -> int:
        """Write a dead letter, once for each entry; how many old ones were dropped for it."""
        keys = [Keys(self.line).bridge_dead(self.bridge), Keys(self.line).bridge(self.bridge)]
        arguments = [entry_id, identity, why[:MAX_WHY], body, self.dead_max_bytes]
        return int(self._bury(self.client, keys, arguments)[1])

    def letters(self) -> Iterator[BridgeLetter]:
        """Every dead letter, oldest first, a page at a time."""
        after = "-"
        while True:
            with translated("reading a bridge's dead letters"):
                entries = self.client.xrange(Keys(self.line).bridge_dead(self.bridge), min=after, count=PAGE)
            for letter_id, fields in entries:
                text = {name: fields.get(name, b"").decode("utf-8", "replace") for name in (b"entry", b"id", b"why")}
                yield BridgeLetter(letter_id.decode(), text[b"entry"], text[b"id"], text[b"why"], fields[b"json"])
            if len(entries) < PAGE:
                return
            after = f"({entries[-1][0].decode()}"

    def remove(self, letter_ids: Sequence[str]) -> int:
        """Remove dead letters; how many were still there."""
        keys = [Keys(self.line).bridge_dead(self.bridge), Keys(self.line).bridge(self.bridge)]
        pages = (letter_ids[start : start + PAGE] for start in range(0, len(letter_ids), PAGE))
        return sum(int(self._unbury(self.client, keys, list(page))) for page in pages)
