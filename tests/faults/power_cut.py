"""What a power cut may take, with `appendfsync everysec`: a bound in seconds, and not a licence.

Pure, as the checker is. A cut takes the newest end of the append-only file: what was admitted, settled or written down
in the last second or two. So a lost frame was admitted shortly before a cut, and of a frame with two verdicts all but
the last were written so. Whatever else is wrong is as wrong as ever.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gaussline.worker.contract.clock import from_text
from tests.faults.checker import Fault, Finding, History

WINDOW_S: Final = 2.0
"""What docs/reliability.md states."""
_FOLLOWS: Final = frozenset({Fault.LOST, Fault.DOUBLED, Fault.SUBSCRIBER, Fault.DEAD_LETTER, Fault.PART})
"""What follows from a cut: besides lost and doubled frames, what was seen and is not there any more."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What the cuts of an episode took.

    Attributes:
        cuts: how many there were.
        lost_within_s: from a cut to the admission of a lost frame: the longest; None where none was lost.
        doubled_within_s: from a cut to the first verdict of a doubled frame: the longest; None where none was doubled.
        broken: findings that no cut explains.
    """

    cuts: int
    lost_within_s: float | None
    doubled_within_s: float | None
    broken: tuple[Finding, ...]


def explain(history: History, findings: Sequence[Finding], cuts_us: Sequence[int]) -> Taken:
    """Which of the findings a power cut explains, and how far from it they reach."""
    if not cuts_us:
        return Taken(0, None, None, tuple(findings))
    judged = {verdict["id"] for _, verdict in history.verdicts}
    lost = [_distance_s(history.told_at[token], cuts_us) for token, name in history.told.items() if name not in judged]
    doubled = [_distance_s(at_us, cuts_us) for at_us in _superseded_us(history)]
    broken = [finding for finding in findings if not _follows(finding)]
    for fault, distances in ((Fault.LOST, lost), (Fault.DOUBLED, doubled)):
        far = max(distances, default=0.0)
        if far > WINDOW_S:
            broken.append(Finding(fault, f"{far:.2f} s from a power cut, which may take {WINDOW_S:g} s"))
    return Taken(len(cuts_us), max(lost, default=None), max(doubled, default=None), tuple(broken))


def _follows(finding: Finding) -> bool:
    """A ledger that does not balance is no consequence; one that counts other verdicts than were seen is."""
    if finding.fault is Fault.LEDGER:
        return "says pass, fail" in finding.text or "producers were told" in finding.text
    return finding.fault in _FOLLOWS


def _superseded_us(history: History) -> Iterable[int]:
    """When those verdicts were written whose frame got a later one."""
    times: dict[str, list[int]] = defaultdict(list)
    for _, verdict in history.verdicts:
        # A frame whose epoch was forgotten too is sent again under a new id; its part says that it is the same one.
        times[verdict["part"] or verdict["id"]].append(from_text(verdict["judged_at"]))
    for same in times.values():
        yield from sorted(same)[:-1]


def _distance_s(at_us: int, cuts_us: Sequence[int]) -> float:
    return min(abs(cut - at_us) for cut in cuts_us) / 1e6
