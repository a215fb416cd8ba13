"""The roll-out judge: counts what a trial's verdicts say, and promotes, holds or rolls back by the trial's own rules.

It reads what any subscriber can read. A verdict carries what the model's other channels say of the same frame, so every
count is paired, and a trial's state is a function of the verdict stream from the pointer's move on: a judge that is
killed goes on where it saved, and of two judges one rules: what has ended is written over by nobody.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gaussline.worker.broker.client import Redis, time_us, translated
from gaussline.worker.broker.exactly_once import entry_order
from gaussline.worker.broker.registry import Move, Pointer, Registry
from gaussline.worker.broker.script import Script
from gaussline.worker.broker.seal import Seal
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.clock import from_text, to_text
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.trial import CANARY, STABLE
from gaussline.worker.errors import ArtefactError, Conflict, NotFound, Pinned, SettingsError
from gaussline.worker.learning.trial_record import State, TrialRecord, read_trials
from gaussline.worker.learning.trial_rules import (
    Finding,
    Outcome,
    confidence_of,
    findings,
    next_look,
    outcome,
    parse_rules,
    promotion_of,
)

PAGE: Final = 1000
"""Verdicts read at once."""
PAGES: Final = 20
"""Pages a step: a judge that comes late catches up without keeping the other trials waiting."""
KEPT_TRIALS: Final = 100
PATIENCE: Final = 4.0
"""A trial that cannot be concluded is held when it has lasted this many times as long as was asked for."""
JUMP_US: Final = 60_000_000
"""A clock that is so far from the time that passed has jumped."""
JUDGE: Final = "roll-out judge"


@dataclass(frozen=True, slots=True)
class Ruling:
    """One thing that a step did."""

    record: TrialRecord
    report: dict[str, Any]


class TrialJudge:
    """Judges every trial of one line.

    Args:
        seal: is asked before a version is promoted.
    """

    def __init__(self, client: Redis, line: str, *, seal: Seal | None = None) -> None:
        self._client = client
        self._keys = Keys(line)
        self._registry = Registry(client, line, seal=seal)
        self._verdicts = Verdicts(client, line)
        self._known: dict[tuple[str, str], TrialRecord] = {}
        self._looked = False
        self._clock = (0, 0.0)
        self._write = Script("save_trial")

    @property
    def line(self) -> str:
        """Name of the line."""
        return self._keys.line

    def step(self) -> list[Ruling]:
        """Count what has come, and rule where something is due. What was ruled. Raises BrokerError."""
        now_us = self._now_us()
        pointers = {(each.model, each.channel): each for each in self._registry.pointers()}
        rulings = self._taken_away(pointers, now_us)
        for (model, channel), pointer in pointers.items():
            stable = pointers.get((model, STABLE))
            if channel == STABLE or pointer.trial is None or stable is None:
                continue
            ruling = self._judge(pointer, stable, now_us)
            if ruling is not None:
                rulings.append(ruling)
        return rulings

    # --- one trial ---------------------------------------------------------------------------------------------------
    def _judge(self, pointer: Pointer, stable: Pointer, now_us: int) -> Ruling | None:
        record = self._record(pointer, stable, now_us)
        if record.ended:  # a judge died, or Redis went away, after this was written and before the pointer went
            return self._finish(record, pointer, [])
        if _same(stable, pointer):
            # Promoted by this judge before it died, or by a person: there is nothing left to try.
            return self._end(record, pointer, State.PROMOTED, "it is the stable version", now_us, [])
        caught_up = self._count(record)
        trial = record.trial
        try:
            rules = parse_rules(trial.abort_if)
        except SettingsError as error:
            return self._hold(record, f"its rules cannot be read: {error}", now_us, [])
        frames = record.counts.pairs.frames
        refused = self._refused(record)
        if refused:
            return self._end(record, pointer, State.ABORTED, refused, now_us, [])
        due = frames >= next_look(record.looks + 1, trial.min_frames)
        while frames >= next_look(record.looks + 1, trial.min_frames):
            record.looks += 1
        elapsed_s = (now_us - record.started_us) / 1e6
        found: list[Finding] = []
        if due:
            found = findings(rules, record.counts, confidence_of(record.looks, len(rules)))
            if outcome(found) is Outcome.ABORT:
                said = "; ".join(_say(each) for each in found if each.broken)
                return self._end(record, pointer, State.ABORTED, said, now_us, found)
        wanted = max(trial.min_frames, record.ask_at)
        if caught_up and elapsed_s >= trial.for_s and frames >= wanted and record.state is State.RUNNING:
            record.asked, record.ask_at = record.asked + 1, 2 * frames
            confidence = confidence_of(max(1, record.looks), len(rules))
            found = findings(rules, record.counts, confidence, promotion_of(record.asked))
            if all(each.kept for each in found):
                if not trial.promote:
                    return self._hold(record, "every measure is within its limit; a person promotes it", now_us, found)
                return self._promote(record, pointer, stable, now_us, found)
        if elapsed_s >= PATIENCE * max(trial.for_s, 1.0) and record.state is State.RUNNING and caught_up:
            confidence = confidence_of(max(1, record.looks), len(rules))
            found = found or findings(rules, record.counts, confidence, promotion_of(max(1, record.asked)))
            open_rules = "; ".join(_say(each) for each in found if not each.kept)
            said = (
                open_rules
                if frames >= trial.min_frames and open_rules
                else f"only {frames} of {trial.min_frames} frames were judged by both"
            )
            return self._hold(record, f"not enough is known after {elapsed_s:.0f} s: {said}", now_us, found)
        self._save(record)
        return None

    def _promote(
        self, record: TrialRecord, pointer: Pointer, stable: Pointer, now_us: int, found: Sequence[Finding]
    ) -> Ruling | None:
        note = f"trial over {record.counts.pairs.frames} frames: " + "; ".join(_say(each) for each in found)
        try:
            self._registry.promote(record.model, record.version, by=JUDGE, note=note, seen=stable)
        except (Pinned, NotFound, ArtefactError) as error:
            return self._hold(record, str(error), now_us, found)
        except Conflict:
            self._save(record)  # somebody moved stable at this moment; the next step sees where it stands
            return None
        return self._end(record, pointer, State.PROMOTED, note, now_us, found)

    def _end(
        self,
        record: TrialRecord,
        pointer: Pointer,
        state: State,
        why: str,
        now_us: int,
        found: Sequence[Finding],
    ) -> Ruling | None:
        # Forgotten first: where Redis goes away in the middle, the next step reads what of this was written.
        self._known.pop((record.model, record.channel), None)
        record.state, record.why, record.ended_us = state, why, now_us
        if not self._save(record):  # before the pointer goes: a trial that has ended has its report
            return None  # another judge was faster, and says so
        return self._finish(record, pointer, found)

    def _finish(self, record: TrialRecord, pointer: Pointer, found: Sequence[Finding]) -> Ruling:
        """Let the channel of a trial that has ended point nowhere."""
        self._known.pop((record.model, record.channel), None)
        was = record.state
        note = f"{was.value}: {record.why}"
        try:
            self._registry.remove(record.model, record.channel, by=JUDGE, note=note, seen=pointer)
        except Conflict:
            move = self._moved_away(record)
            if move is None or move.by != JUDGE:
                record.state = State.REPLACED
                record.why = f"somebody else moved {record.model}/{record.channel} when it was about to be {was.value}"
                self._save(record, over=was)
        return Ruling(record, report(record, found))

    def _taken_away(self, pointers: Mapping[tuple[str, str], Pointer], now_us: int) -> list[Ruling]:
        """End the trials whose pointer somebody moved or removed, also while no judge ran."""
        records = list(self._known.values())
        if not self._looked:
            records += [
                each for model in self._registry.models() for each in read_trials(self._client, self.line, model)
            ]
        rulings = []
        for record in records:
            pointer = pointers.get((record.model, record.channel))
            if record.ended or (pointer is not None and pointer.revision == record.revision):
                continue
            move = self._moved_away(record)
            what = "stopped" if move is None or move.after is None else f"replaced by version {move.after}"
            record.state, record.ended_us = State.REPLACED, now_us
            record.why = what if move is None else f"{what} by {move.by}" + (f": {move.note}" if move.note else "")
            if self._known.get((record.model, record.channel)) is record:
                del self._known[record.model, record.channel]
            if self._save(record):
                rulings.append(Ruling(record, report(record)))
        self._looked = True
        return rulings

    def _moved_away(self, record: TrialRecord) -> Move | None:
        """The move that took a trial's version off its channel, None where the history tells of none."""
        for move in self._registry.history(record.model):
            mine = move.channel == record.channel and move.before == record.version
            if mine and from_text(move.at) > record.started_us:
                return move
        return None

    def _hold(self, record: TrialRecord, why: str, now_us: int, found: Sequence[Finding]) -> Ruling | None:
        """Say that a person must decide; counting goes on, and a rule that breaks still aborts."""
        changed = record.state is not State.HELD
        if changed:
            record.state, record.why, record.ended_us = State.HELD, why, now_us
        return Ruling(record, report(record, found)) if self._save(record) and changed else None

    # --- counting ----------------------------------------------------------------------------------------------------
    def _count(self, record: TrialRecord) -> bool:
        """Count what came after the position; True where that was all."""
        for _ in range(PAGES):
            entries = self._verdicts.read(record.position, count=PAGE)
            for entry_id, verdict in entries:
                record.position = entry_id
                count_verdict(record, verdict)
            if len(entries) < PAGE:
                return True
        return False

    def _record(self, pointer: Pointer, stable: Pointer, now_us: int) -> TrialRecord:
        assert pointer.trial is not None
        name = (pointer.model, pointer.channel)
        record = self._known.get(name)
        if record is None or record.revision != pointer.revision:
            record = self._stored(pointer)
        against = (stable.version, stable.digest)
        anew = record is None or (record.against_version, record.against_digest) != against
        # What was counted against another stable version says nothing about this one; but what has ended stays so, and
        # where the version on trial is itself the stable one by now, there is nothing to begin.
        if record is None or (anew and not record.ended and not _same(stable, pointer)):
            since_us = min(now_us, max(from_text(pointer.moved_at), from_text(stable.moved_at)))
            record = TrialRecord(
                model=pointer.model,
                channel=pointer.channel,
                version=pointer.version,
                digest=pointer.digest,
                revision=pointer.revision,
                started_us=since_us,
                against_version=stable.version,
                against_digest=stable.digest,
                position=f"{since_us // 1000}-0",
                trial=pointer.trial,
                restarts=0 if record is None else record.restarts + 1,
            )
        if record.started_us > now_us + JUMP_US:
            self._began(record, now_us)
        self._known[name] = record
        return record

    def _now_us(self) -> int:
        """The time by Redis's clock. Where that jumps (set right, a failover), trials have lasted no longer."""
        now_us, passed_s = time_us(self._client), time.monotonic()
        before_us, before_s = self._clock
        jump_us = now_us - before_us - round((passed_s - before_s) * 1e6)
        if before_us and abs(jump_us) > JUMP_US:
            for record in self._known.values():
                self._began(record, record.started_us + jump_us)
        self._clock = (now_us, passed_s)
        return now_us

    def _began(self, record: TrialRecord, started_us: int) -> None:
        """Let a trial have begun at another time by the clock. Verdicts to come lie after the newest that is there."""
        record.started_us = started_us
        record.position = min(record.position, self._verdicts.last_id(), key=entry_order)

    def _refused(self, record: TrialRecord) -> str:
        """What a worker says that cannot load the version on trial; '' where all can."""
        place = f"{record.model}/{record.channel}"
        with translated("reading what the workers say"):
            said = self._client.hgetall(self._keys.workers)
        for name, text in said.items():
            worker = json.loads(text)
            why = worker.get("refused", {}).get(place, "")
            if why.startswith(f"version {record.version}:") and self._alive(worker.get("life", name.decode())):
                return f"worker {name.decode()} cannot use it: {why}"
        return ""

    def _alive(self, life: str) -> bool:
        with translated("looking for a worker"):
            return bool(self._client.exists(self._keys.worker(life)))

    def _stored(self, pointer: Pointer) -> TrialRecord | None:
        with translated("reading a trial"):
            text = self._client.hget(self._keys.trials(pointer.model), f"{pointer.channel}:{pointer.revision}")
        return None if text is None else TrialRecord.from_json(text)

    def _save(self, record: TrialRecord, *, over: State | None = None) -> bool:
        """Write a trial; False, and nothing written, where it has ended otherwise than with `over`."""
        key = self._keys.trials(record.model)
        done = int(self._write(self._client, [key], [record.key, record.to_json(), "" if over is None else over.value]))
        if done == 0:
            self._known.pop((record.model, record.channel), None)
        if done == 1:
            # By age: each channel has revisions of its own.
            trials = read_trials(self._client, self.line, record.model)
            for old in trials[:-KEPT_TRIALS]:
                with translated("forgetting a trial"):
                    self._client.hdel(key, old.key)
        return done != 0


def count_verdict(record: TrialRecord, verdict: Mapping[str, Any]) -> None:
    """Count one verdict where it belongs to the trial; all others change nothing."""
    model = verdict.get("model")
    if model is None or model["name"] != record.model:
        return
    said = {model["channel"]: (model["digest"], verdict["decision"] == "fail", verdict["p_value"])}
    for opinion in verdict.get("opinions") or ():
        said.setdefault(opinion["channel"], (opinion["digest"], opinion["decision"] == "fail", opinion["p_value"]))
    old, new = said.get(STABLE), said.get(record.channel)
    if old is not None and new is not None and (old[0], new[0]) == (record.against_digest, record.digest):
        record.counts.compare(old[1], old[2], new[1], new[2])
    decided = model["digest"]
    if record.channel == CANARY and decided in (record.digest, record.against_digest):
        seconds = (from_text(verdict["judged_at"]) - from_text(verdict["admitted_at"])) / 1e6
        record.counts.took(seconds, new=decided == record.digest)


def report(record: TrialRecord, found: Sequence[Finding] = ()) -> dict[str, Any]:
    """All that is known of a trial, JSON-able."""
    if not found:
        try:
            rules = parse_rules(record.trial.abort_if)
        except SettingsError:
            rules = ()
        confidence = confidence_of(max(1, record.looks), len(rules))
        found = findings(rules, record.counts, confidence, promotion_of(max(1, record.asked)))
    pairs = record.counts.pairs
    return {
        "model": record.model,
        "channel": record.channel,
        "version": record.version,
        "digest": record.digest,
        "against": record.against_version,
        "state": record.state.value,
        "why": record.why,
        "started_at": to_text(record.started_us),
        "ended_at": to_text(record.ended_us) if record.ended_us else None,
        "asked_for_s": record.trial.for_s,
        "frames": pairs.frames,
        "both_pass": pairs.both_pass,
        "both_fail": pairs.both_fail,
        "failed_by_new_only": pairs.only_new,
        "failed_by_stable_only": pairs.only_old,
        "looks": record.looks,
        "restarts": record.restarts,
        "rules": [
            {
                "rule": str(each.rule),
                "value": _finite(each.estimate.value),
                "low": _finite(each.estimate.low),
                "high": _finite(each.estimate.high),
                "limit": each.rule.limit,
                "broken": each.broken,
                "kept": each.kept,
            }
            for each in found
        ],
        "p99_stable_s": record.counts.p99_s(new=False),
        "p99_new_s": record.counts.p99_s(new=True),
        "p_values_stable": record.counts.old_p_values,
        "p_values_new": record.counts.new_p_values,
    }


def _same(one: Pointer, other: Pointer) -> bool:
    return (one.version, one.digest) == (other.version, other.digest)


def _finite(value: float) -> float | None:
    return value if abs(value) < 1e300 else None


def _say(found: Finding) -> str:
    estimate = found.estimate
    return f"{found.rule.measure} {estimate.value:.3g} ({estimate.low:.3g} … {estimate.high:.3g}), rule {found.rule}"
