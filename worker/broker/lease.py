"""The lease of a learner: one process a model writes, and a fencing token keeps everybody else's late writes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.script import Script
from gaussline.worker.contract.keys import Keys, check_name
from gaussline.worker.errors import AnotherRun, Fenced


@dataclass(slots=True)
class Lease:
    """The lease of one model's learner, by Redis's clock.

    Attributes:
        seconds: how long it holds without being renewed.
        token: rises with every holder; 0 before it was taken.
        stale: it was taken of another run of the server than the one that is there now; to be taken anew.
    """

    client: Redis
    line: str
    model: str
    owner: str
    seconds: float = 10.0
    token: int = 0
    stale: bool = False
    _lease: Script = field(default_factory=lambda: Script("learner_lease"), repr=False)
    _write: Script = field(default_factory=lambda: Script("learner_write"), repr=False)

    def __post_init__(self) -> None:
        check_name("model", self.model)

    def take(self) -> int:
        """Take it; the token. Raises Fenced while another process holds it."""
        answer = self._call("take")
        self.token, self.stale = int(answer[1]), False
        return self.token

    def renew(self, *, caught_up: bool = False) -> None:
        """Hold on to it. Raises Fenced where another process has it, AnotherRun where it was taken of another.

        Args:
            caught_up: all that makes whole blocks of the log is in a checkpoint; what has come since waits for company.
        """
        self._call("renew", caught_up)

    def release(self) -> None:
        """Give it back, if it is still ours."""
        self._lease(self.client, [Keys(self.line).learner(self.model)], [self.owner, "release", 0, self.token])
        self.token = 0

    def write(self, what: str, *args: Any) -> list[Any]:
        """One write of `learner_write`, made only if our token is still the last one.

        Raises Fenced, AnotherRun.
        """
        keys = Keys(self.line)
        names = [
            keys.learner(self.model),
            keys.features(self.model),
            keys.totals,
            keys.drift(self.model),
            keys.learned(self.model),
        ]
        answer: list[Any] = self._write(self.client, names, [self.token, what, *args])
        self._check_run(answer)
        if answer[0] == 0:
            raise Fenced(
                f"the learner of model {self.model!r} on line {self.line} lost its lease: token {answer[1]} has it, "
                f"ours is {self.token}; nothing was written"
            )
        return answer

    def _call(self, what: str, caught_up: bool = False) -> list[Any]:
        keys, milliseconds = [Keys(self.line).learner(self.model)], int(self.seconds * 1000)
        answer: list[Any] = self._lease(self.client, keys, [self.owner, what, milliseconds, self.token, int(caught_up)])
        self._check_run(answer)
        if answer[0] != 1:
            raise Fenced(
                f"model {self.model!r} on line {self.line} has a learner already: {answer[1].decode() or 'nobody'} "
                f"holds the lease for {int(answer[2]) / 1000:.1f} s more"
            )
        return answer

    def _check_run(self, answer: list[Any]) -> None:
        if answer[0] < 0:
            self.stale = True
            raise AnotherRun(
                f"Redis was started again, or another server is the master: the learner of model {self.model!r} on "
                f"line {self.line} goes on from the checkpoint that is there"
            )
