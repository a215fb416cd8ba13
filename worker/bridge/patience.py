"""When a verdict that its receiver does not take is given up: when it is this verdict, and not the receiver. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Case:
    """One verdict that failed.

    Attributes:
        strikes: failures that speak against the verdict.
        taken, tried: what the receiver had taken, and what had been tried, of all verdicts at the last failure.
        since_s: when the receiver first answered for it, since it last was away.
    """

    strikes: int = 0
    taken: int = -1
    tried: int = 0
    since_s: float | None = None


class Patience:
    """Tells a verdict that can never be delivered from a receiver that takes none.

    A failure is a strike against the verdict where the receiver took another one since the failure before; and, once it
    has a strike, where nothing else was tried in between, as when all that is in hand waits for this one. While
    everything that is tried fails there are no strikes, however long it lasts. Where nobody else can bear witness (one
    camera, no parts), a verdict that is answered and not taken for `most_s` is given up too.

    Args:
        strikes: as many end it; 0: none do.
        most_s: 0: no time ends it.
    """

    def __init__(self, strikes: int, most_s: float) -> None:
        self._strikes = strikes
        self._most_s = most_s
        self._taken = 0
        self._tried = 0
        self._cases: dict[int, _Case] = {}

    def taken(self, verdict: int) -> None:
        """The receiver took one."""
        self._taken += 1
        self._tried += 1
        self.forget(verdict)

    def forget(self, verdict: int) -> None:
        """It is out of hand."""
        self._cases.pop(verdict, None)

    def ended(self, verdict: int, now_s: float, *, answered: bool) -> bool:
        """It failed; whether it is to be given up. `answered`: the receiver spoke of it, and was not away or shut."""
        case = self._cases.setdefault(verdict, _Case())
        again = case.taken >= 0
        if again and (self._taken > case.taken or (case.strikes and self._tried == case.tried)):
            case.strikes += 1
        self._tried += 1
        case.taken, case.tried = self._taken, self._tried
        if not answered:
            case.since_s = None
        elif case.since_s is None:
            case.since_s = now_s
        struck_out = bool(self._strikes) and case.strikes >= self._strikes
        too_long = bool(self._most_s) and case.since_s is not None and now_s - case.since_s >= self._most_s
        return struck_out or too_long
