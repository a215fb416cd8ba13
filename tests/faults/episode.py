"""One episode: a plan carried out on a stage, and the checker's findings over it."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gaussline.worker.broker.dead_letters import DeadLetters
from gaussline.worker.broker.exactly_once import entry_order
from gaussline.worker.contract.clock import from_text
from gaussline.worker.contract.dead_letter import DeadLetter
from gaussline.worker.contract.verdict import Reason
from tests.faults.catalogue import CATALOGUE, Undo
from tests.faults.checker import Fault, Finding, History, Offer, check
from tests.faults.frames import Kind
from tests.faults.plan import Plan
from tests.faults.power_cut import Taken, explain
from tests.faults.stage import PARTS, SUBSCRIBER, Stage

SETTLE_S: Final = 30.0
"""Everything must be judged so long after the last fault was undone."""
LOOK_S: Final = 0.05
ROUGH: Final = frozenset(
    {
        "kill_worker",
        "restart_worker",
        "stop_worker",
        "kill_redis",
        "stop_redis",
        "pause_clients",
        "full_disk",
        "mute",
        "delay",
        "throttle",
    }
)
"""After several of these a message may look as if its workers had died over it."""


@dataclass(frozen=True, slots=True)
class Result:
    """What an episode came to.

    Attributes:
        findings: everything that is not as it should be.
        taken: what of it a power cut explains; `taken.broken` is what breaks a promise.
        recovered_s: from the SIGKILL of a worker to the verdict of the last frame that it held, one a kill.
        restarted_s: from Redis being ready again to the first verdict, one a restart with frames waiting.
        settled_s: from the last fault's end to the last verdict.
    """

    plan: Plan
    findings: tuple[Finding, ...]
    taken: Taken
    admitted: int
    verdicts: int
    duplicates: int
    seconds: float
    settled_s: float
    recovered_s: tuple[float, ...] = ()
    restarted_s: tuple[float, ...] = ()
    logs: str = ""
    reasons: Mapping[str, int] = field(default_factory=dict)


def run(stage: Stage, settle_s: float = SETTLE_S) -> Result:
    """Carry the plan out, heal, wait until all is settled, and check."""
    begin = time.monotonic()
    imbalances: list[str] = []
    _break(stage, begin, imbalances)
    stage.heal()
    healed = time.monotonic()
    stuck = _settle(stage, imbalances, settle_s)
    settled = time.monotonic()
    history = gather(stage, imbalances)
    findings = (*stuck, *check(history))
    taken = explain(history, findings, stage.cuts_us)
    ledger = history.ledger
    return Result(
        plan=stage.plan,
        findings=findings,
        taken=taken,
        admitted=sum(row.admitted for row in ledger),
        verdicts=len(history.verdicts),
        duplicates=sum(row.duplicates for row in ledger),
        seconds=settled - begin,
        settled_s=settled - healed,
        recovered_s=_recovered(stage, history),
        restarted_s=_restarted(stage, history),
        logs=stage.logs() if taken.broken else "",
        reasons=_reasons(history),
    )


def _break(stage: Stage, begin: float, imbalances: list[str]) -> None:
    """Begin every fault at its time and undo it at its own; the ledger is looked at in between."""
    pause = threading.Event()
    todo: list[tuple[float, int, Any]] = [(step.at_s, number, step) for number, step in enumerate(stage.plan.steps)]
    heapq.heapify(todo)
    serial = len(todo)
    while todo:
        at_s, _, what = heapq.heappop(todo)
        while (wait_s := begin + at_s - time.monotonic()) > 0:
            pause.wait(min(wait_s, LOOK_S))
        if callable(what):
            what()
        else:
            undo: Undo = CATALOGUE[what.fault](stage, what)
            serial += 1
            heapq.heappush(todo, (at_s + what.for_s, serial, undo))
        _look(stage, imbalances)


def _look(stage: Stage, imbalances: list[str]) -> bool:
    """Whether the ledger says that nothing is in flight; what is wrong with it is written down."""
    if not stage.server.up or stage.server.stopped:
        return False
    ledger = stage.ledger()
    if ledger is None:
        return False
    imbalances += [f"on the way: {row}" for row in ledger.rows if not row.balances]
    return ledger.in_flight == 0


def _settle(stage: Stage, imbalances: list[str], within_s: float) -> list[Finding]:
    """Wait until producers are done, all is judged and the subscribers have it; what did not come to that."""
    pause = threading.Event()
    end = time.monotonic() + within_s
    waiting = ""
    while time.monotonic() < end:
        stage.replace_dead()
        waiting = _waiting_for(stage, imbalances)
        if not waiting:
            return []
        pause.wait(LOOK_S)
    return [Finding(Fault.STUCK, f"after {within_s:g} s without faults: {waiting}")]


def _waiting_for(stage: Stage, imbalances: list[str]) -> str:
    for camera in range(stage.plan.cameras):
        if not any("done" in line for line in stage.journal(f"cam{camera}", "produce")):
            return f"the producer of cam{camera} is not done"
    if not _look(stage, imbalances):
        return "frames are in flight"
    last = stage.last_verdict()
    if last is None:
        return "Redis does not answer"
    # Not "at" it: a power cut may have taken the stream's end, which both have seen.
    if entry_order(stage.collector.position) < entry_order(last):
        return f"the checker's collector stands at {stage.collector.position}, the stream at {last}"
    for name in (SUBSCRIBER, PARTS):
        cursor = stage.cursor(name)
        if cursor is None or entry_order(cursor) < entry_order(last):
            return f"the cursor of {name} stands at {cursor}, the stream at {last}"
    if stage.open_parts() != 0:
        return "parts are open"
    return ""


def gather(stage: Stage, imbalances: list[str]) -> History:
    """The history of what was said and seen."""
    offered: dict[int, Offer] = {}
    told: dict[int, str] = {}
    told_at: dict[int, int] = {}
    dropped: set[int] = set()
    kinds_at: dict[int, int] = {}
    for camera, line in stage.journals("produce"):
        if "offer" in line:
            kinds_at[line["offer"]] = len(line["kinds"])
            for place, kind in enumerate(line["kinds"]):
                offered[line["offer"] + place] = Offer(camera, Kind(kind))
        elif "told" in line and line["status"] == "admitted":
            told |= {line["told"] + place: name for place, name in enumerate(line["ids"])}
            told_at |= {line["told"] + place: line["at_us"] for place in range(len(line["ids"]))}
        elif "told" in line:
            dropped |= set(range(line["told"], line["told"] + kinds_at[line["told"]]))
    seen: dict[str, list[tuple[str, str]]] = {}
    for name, line in stage.journals("subscribe"):
        if "read" in line:
            seen.setdefault(name, []).append((line["read"], line["id"]))
    surprises = [
        f"{name}: {line['surprise']}"
        for role in ("judge", "parts")
        for name, line in stage.journals(role)
        if "surprise" in line
    ]
    ledger = stage.ledger()
    excused: set[Reason] = set()
    if sum(step.fault in ROUGH for step in stage.plan.steps) >= 3:
        excused.add(Reason.POISON)
    if "delete_entries" in stage.plan.faults:
        excused.add(Reason.LOST)
    return History(
        offered=offered,
        told=told,
        told_at=told_at,
        dropped=frozenset(dropped),
        verdicts=list(stage.collector.entries),
        letters=_letters(stage),
        parts=stage.part_verdicts(),
        ledger=() if ledger is None else ledger.rows,
        imbalances=imbalances,
        seen=seen,
        surprises=[*surprises, *stage.crashes],
        excused=frozenset(excused),
        lax_late=bool(stage.plan.clock_jumps_s),
    )


def _letters(stage: Stage) -> list[DeadLetter]:
    reader = DeadLetters(stage.client, stage.line)
    return [letter for reason in Reason for _, letter in reader.list(reason, count=100_000)]


def _recovered(stage: Stage, history: History) -> tuple[float, ...]:
    judged = {verdict["id"]: from_text(verdict["judged_at"]) for _, verdict in history.verdicts}
    times = []
    for killed_us, held in stage.kills:
        after = [judged[name] - killed_us for name in held if judged.get(name, 0) > killed_us]
        if after:
            times.append(max(after) / 1e6)
    return tuple(times)


def _restarted(stage: Stage, history: History) -> tuple[float, ...]:
    judged = sorted(from_text(verdict["judged_at"]) for _, verdict in history.verdicts)
    return tuple(
        (next((at for at in judged if at > ready_us), ready_us) - ready_us) / 1e6 for ready_us in stage.restarts
    )


def _reasons(history: History) -> dict[str, int]:
    counts: dict[str, int] = {}
    for _, verdict in history.verdicts:
        key = verdict["reason"] or verdict["decision"]
        counts[key] = counts.get(key, 0) + 1
    return counts
