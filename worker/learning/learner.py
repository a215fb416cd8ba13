"""The learner: folds the feature log into moments, block by block. Pure: no Redis, no wall clock, no randomness.

The same entries in the same order, cut at the same places, give the same state to the bit, whoever folds them and
however often he is killed: everything it needs to go on is in its state (see `learner_state`).

Two places in the log move forward. A block is *scouted* when it is read: the gate looks at its frames, the watch looks
for drift, orders are obeyed. It *teaches* when the quarantine is over: frames that the gate let through, that nobody
objected to and that no alarm came near, are added to the moments. What lies between is held in memory and still stands
in the log.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.order import Order, OrderKind
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import SettingsError
from gaussline.worker.gaussian.density import Gaussian
from gaussline.worker.gaussian.drift import alpha_of
from gaussline.worker.gaussian.moments import Moments
from gaussline.worker.learning.alarm import Alarm
from gaussline.worker.learning.block import Block, level_slices
from gaussline.worker.learning.event_clock import EventClock
from gaussline.worker.learning.gate import Bar, Gate
from gaussline.worker.learning.notice import Notice
from gaussline.worker.learning.policy import Policy
from gaussline.worker.learning.reservoir import Page, Reservoir
from gaussline.worker.learning.spans import Spans
from gaussline.worker.learning.watch import SLOW_EVERY_S, STATISTICS, CameraWatch, Gaussians

RECENT = 65_536
"""Frames whose identity is remembered, so that one that comes again teaches nothing."""
MAX_LINEAGE = 200
MAX_CAMERAS = 1_000
"""Cameras that are watched; frames of others still teach."""
ALARMS_PER_MONTH = 1.0
FAST_SHARE = 0.5
"""Part of the false alarms that the fast tests may make; the slow one may make the rest."""


class Way(Enum):
    """How a frame comes to teach: not at all, through the gate, which truncates, or by a person's word, past it."""

    SHUT = "shut"
    GATE = "gate"
    PERSON = "person"


@dataclass(slots=True, eq=False)
class Pending:
    """A scouted block that has not taught yet.

    Attributes:
        bars: (n,) what keeps each frame from teaching, a `Bar`.
        at_us: (n,) working time of each frame.
    """

    number: int
    block: Block
    bars: NDArray[np.int8]
    at_us: NDArray[np.int64]
    end_us: int


# Every frame passes here, and a member of an Enum costs a call.
_SHUT, _GATE, _PERSON = Way.SHUT, Way.GATE, Way.PERSON
_NONE, _NEVER = Bar.NONE.value, frozenset({Bar.RESERVOIR.value, Bar.DUPLICATE.value})
_GOOD = OrderKind.GOOD.value

Obey = Callable[["Learner", Order], list[Notice]]
"""What an order does; `obedience.obey`."""


def _no_models(digest: str) -> tuple[tuple[str, ...], tuple[Gaussian, ...], int] | None:
    return None


@dataclass(slots=True, eq=False)
class Learner:
    """The state of one model's learner.

    Attributes:
        moments: one a level.
        position: blocks scouted so far, and `taught` those that have taught.
        scouted_id, taught_id: last log entry of either.
        counts: what became of frames, by name.
        lineage: what the moments came from: bases, gaps, merges.
        models: Gaussians of a version that judged, for the watch.
        confirmed: versions that judged when a person confirmed a change, by digest -> who.
        anchor: the tail of the scores of normal frames that the guard holds candidates to, see `proposal.Tail`.
        since_proposal: frames taught since the last proposal; with the working time of that proposal.
    """

    spec: BackboneSpec
    policy: Policy
    moments: list[Moments]
    models: Gaussians = _no_models
    clock: EventClock = field(default_factory=EventClock)
    gate: Gate = field(init=False)
    reservoir: Reservoir = field(init=False)
    spans: Spans = field(default_factory=Spans)
    pending: deque[Pending] = field(default_factory=deque)
    cameras: dict[str, CameraWatch] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    vouched: dict[str, dict[str, Any]] = field(default_factory=dict)
    confirmed: dict[str, str] = field(default_factory=dict)
    anchor: dict[str, float] = field(default_factory=dict)
    bank: list[NDArray[np.float32]] = field(default_factory=list)
    recent: dict[bytes, None] = field(default_factory=dict)
    position: int = 0
    taught: int = 0
    scouted_id: str = "0-0"
    taught_id: str = "0-0"
    taught_us: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    lineage: list[dict[str, Any]] = field(default_factory=list)
    since_proposal: int = 0
    proposed_us: int = 0
    gated_weight: float = 0.0
    _slices: list[slice] = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate(self.policy.gate_p, self.policy.max_weight)
        policy = self.policy
        unknown = sorted(set(policy.level_half_life_frames) - set(self.spec.levels))
        if unknown:
            raise SettingsError(f"half-life of level {unknown[0]}: the levels are {', '.join(self.spec.levels)}")
        self.reservoir = Reservoir(
            policy.reservoir_frames, max_bytes=policy.reservoir_bytes, max_age_s=policy.reservoir_age_s
        )
        self._slices = level_slices(self.spec.channels)

    @classmethod
    def start(
        cls,
        spec: BackboneSpec,
        policy: Policy,
        base: tuple[Moments, ...] = (),
        models: Gaussians = _no_models,
        after: str = "0-0",
        origin: Mapping[str, Any] | None = None,
    ) -> Learner:
        """A learner before its first block, from a base's moments or from nothing."""
        moments = [level.copy() for level in base] or [Moments(width) for width in spec.channels]
        learner = cls(spec, policy, moments, models, scouted_id=after, taught_id=after)
        learner.remember({"start": after, "policy": policy.to_json(), **(origin or {})})
        return learner

    # --- the two steps of a block -------------------------------------------------------------------------------------
    def fold(self, block: Block, obey: Obey) -> list[Notice]:
        """Take the next block: scout it, and let teach what has waited long enough. What is worth telling."""
        notices = self._scout(block, obey)
        self._teach()
        return notices

    def _scout(self, block: Block, obey: Obey) -> list[Notice]:
        n = len(block)
        bars, at_us = np.zeros(n, np.int8), np.zeros(n, np.int64)
        rows: dict[str, list[int]] = {}
        entry = Pending(self.position, block, bars, at_us, self.clock.elapsed_us)
        self.pending.append(entry)
        notices: list[Notice] = []
        orders = iter(block.orders)
        due = next(orders, None)
        for row, event in enumerate(block.events):
            while due is not None and due[0] <= row:
                notices += obey(self, due[1])
                due = next(orders, None)
            entry.end_us = int(self.clock.tick(event.admitted_us))
            at_us[row] = entry.end_us
            bars[row] = self._bar(event)
            self.counts[f"seen.{Bar(bars[row]).name.lower()}"] += 1
            if bars[row] != Bar.DUPLICATE:
                rows.setdefault(event.camera, []).append(row)
        while due is not None:
            notices += obey(self, due[1])
            due = next(orders, None)
        for why, count in block.refused.items():
            self.counts[f"refused.{why}"] += count
        if self.policy.watch:
            for camera, own in rows.items():
                notices += self._watch(camera, own, entry)
        self._collect(entry)
        self.position += 1
        self.scouted_id = block.last_id
        return notices

    def _bar(self, event: FeatureEvent) -> Bar:
        key = blake2b(event.id.encode(), digest_size=8).digest()
        if key in self.recent:
            return Bar.DUPLICATE
        self.recent[key] = None
        if len(self.recent) > RECENT:
            del self.recent[next(iter(self.recent))]
        bar = self.gate.bar(event)
        return Bar.PROBATION if bar is not Bar.RESERVOIR and self._on_probation(event.camera) else bar

    def _on_probation(self, camera: str) -> bool:
        if not self.policy.watch:
            return False
        watch = self._camera(camera)
        return watch is not None and watch.on_probation

    def _camera(self, camera: str) -> CameraWatch | None:
        watch = self.cameras.get(camera)
        if watch is None and len(self.cameras) < MAX_CAMERAS:
            watch = self.cameras[camera] = self.new_watch(camera)
        return watch

    def new_watch(self, camera: str) -> CameraWatch:
        """A watch whose tests together keep to the stated false alarms a camera and month."""
        fast = 2 + len(STATISTICS) + len(self.spec.channels)
        return CameraWatch(
            camera,
            alpha_of(ALARMS_PER_MONTH * FAST_SHARE, self.policy.watch_every_s, fast),
            alpha_of(ALARMS_PER_MONTH * (1.0 - FAST_SHARE), SLOW_EVERY_S, 1),
            every_s=self.policy.watch_every_s,
        )

    def _watch(self, camera: str, rows: list[int], entry: Pending) -> list[Notice]:
        watch = self._camera(camera)
        if watch is None:
            return []
        events = [entry.block.events[row] for row in rows]
        at_us = [int(entry.at_us[row]) for row in rows]
        whole = len(rows) == len(entry.block.events)
        features = entry.block.features if whole else entry.block.features[rows]
        notices = []
        for alarm in watch.observe(events, at_us, features, self.models):
            if alarm.kind in self.policy.freeze_on:
                self._freeze(alarm)
            self.counts["alarms" if alarm.began else "alarms_ended"] += 1
            notices.append(Notice("alarm" if alarm.began else "calm", camera, self.clock.seen_us, alarm.facts, alarm))
        return notices

    def _freeze(self, alarm: Alarm) -> None:
        near_us = int(self.policy.neighbourhood_s * 1e6)
        cause = f"alarm:{alarm.test}"
        if alarm.began:
            self.spans.open(alarm.camera, alarm.since_us - near_us, cause, alarm.at_us)
        else:
            self.spans.close(alarm.camera, alarm.at_us + near_us, cause)

    def _collect(self, entry: Pending) -> None:
        """The block's reservoir frames, as one page; what is too old goes, though none came."""
        self.reservoir.age(self.clock.elapsed_us)
        rows = [row for row in np.flatnonzero(entry.bars == Bar.RESERVOIR) if not self._new(entry, int(row))]
        if not rows:
            return
        events = entry.block.events
        page = Page(
            self.position,
            tuple(events[row].id for row in rows),
            tuple(events[row].camera for row in rows),
            entry.at_us[rows],
            entry.block.features[rows],
        )
        self.reservoir.add(page)

    def _new(self, entry: Pending, row: int) -> bool:
        return self._on_probation(entry.block.events[row].camera)

    def _teach(self) -> None:
        wait_us = int(self.policy.quarantine_s * 1e6)
        while self.pending and self.pending[0].end_us + wait_us <= self.clock.elapsed_us:
            entry = self.pending.popleft()
            self._teach_block(entry)
            self.taught += 1
            self.taught_id = entry.block.last_id
        oldest = [int(self.reservoir.pages[0].at_us[0])] if self.reservoir.pages else []
        oldest += [int(self.pending[0].at_us[0])] if self.pending and len(self.pending[0].at_us) else []
        self.spans.forget(min(oldest, default=self.clock.elapsed_us))

    def _teach_block(self, entry: Pending) -> None:
        events, bars, at_us = entry.block.events, entry.bars.tolist(), entry.at_us.tolist()
        ways = [self._way(*frame) for frame in zip(events, bars, at_us, strict=True)]
        chosen = [row for row, way in enumerate(ways) if way is not _SHUT]
        self._decay(entry.end_us - self.taught_us, len(chosen))
        self.taught_us = entry.end_us
        if not chosen:
            return
        own = [events[row] for row in chosen]
        labels = self.labels
        overridden = np.array(
            [bool(labels) and bars[row] == Bar.GATE and events[row].id in labels for row in chosen], np.bool_
        )
        weights = self.gate.weights(own, overridden)
        gated = np.array([ways[row] is _GATE for row in chosen], np.bool_)
        there = weights > 0.0
        if not there.all():
            chosen = [row for row, keep in zip(chosen, there, strict=True) if keep]
            weights, gated = weights[there], gated[there]
            if not chosen:
                return
        plain = None if (weights == 1.0).all() else weights
        rows = entry.block.features if len(chosen) == len(events) else entry.block.features[chosen]
        for level, place in zip(self.moments, self._slices, strict=True):
            level.update(rows[:, place], plain)
        self.counts["taught"] += len(chosen)
        self.since_proposal += len(chosen)
        self.gated_weight += float(weights[gated].sum())

    def _way(self, event: FeatureEvent, bar: int, at_us: int) -> Way:
        if bar in _NEVER:
            return _SHUT
        label = self.labels.get(event.id)
        if label is not None:
            self.counts[f"labelled.{label}"] += 1
            return _PERSON if label == _GOOD else _SHUT
        if self.vouched and self._vouches(event, at_us):
            return _PERSON
        return _GATE if bar == _NONE and not self.spans.covered(event.camera, at_us) else _SHUT

    def _vouches(self, event: FeatureEvent, at_us: int) -> bool:
        """Whether an operator has confirmed the change that this frame is part of."""
        for camera in ("", event.camera):
            vouch = self.vouched.get(camera)
            if vouch is not None and at_us >= vouch["from_us"] and event.digest in vouch["digests"]:
                vouch["left"] -= 1
                if vouch["left"] <= 0:
                    del self.vouched[camera]
                self.counts["vouched"] += 1
                return True
        return False

    def _decay(self, hours_us: int, frames: int) -> None:
        """Forget, before a block teaches: by the frames that will teach, and by the working time since the last."""
        policy = self.policy
        for name, level in zip(self.spec.levels, self.moments, strict=True):
            exponent = 0.0
            half = policy.level_half_life_frames.get(name, policy.half_life_frames)
            if half is not None:
                exponent += frames / half
            if policy.half_life_hours is not None:
                exponent += hours_us / (policy.half_life_hours * 3.6e9)
            if exponent > 0.0 and level.weight > 0.0:
                level.decay(0.5**exponent)
        if policy.half_life_frames is not None:
            self.gated_weight *= 0.5 ** (frames / policy.half_life_frames)
        if policy.half_life_hours is not None:
            self.gated_weight *= 0.5 ** (hours_us / (policy.half_life_hours * 3.6e9))

    # --- what it came from --------------------------------------------------------------------------------------------
    def remember(self, fact: dict[str, Any]) -> None:
        """Write a fact into the lineage; beyond the bound the oldest but the first go."""
        self.lineage.append(fact)
        if len(self.lineage) > MAX_LINEAGE:
            del self.lineage[1]

    def due(self) -> bool:
        """Whether a version should be proposed now."""
        frames, minutes = self.policy.propose_frames, self.policy.propose_minutes
        if frames is not None and self.since_proposal >= frames:
            return True
        waited_us = self.clock.elapsed_us - self.proposed_us
        return minutes is not None and self.since_proposal > 0 and waited_us >= minutes * 6e7

    def proposed(self) -> None:
        """A version was proposed from here, or refused by the guard."""
        self.since_proposal, self.proposed_us = 0, self.clock.elapsed_us

    @property
    def gated_share(self) -> float:
        """Share of the moments' weight that came through the gate, and is truncated by it."""
        weight = max(level.weight for level in self.moments)
        return min(1.0, self.gated_weight / weight) if weight > 0.0 else 0.0
