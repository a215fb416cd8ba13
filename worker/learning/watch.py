"""The watch over one camera: block means of its newest frames against those of its reference.

Two speeds. Fast, on blocks of 50 frames: the distribution of p-values, the whitened mean of each level, and the image's
own statistics, each by the median of the newest three blocks. Slow, on blocks of 250: the share of failures, by the
mean of the newest twenty square roots (a share's root has nearly the same spread whatever the share). And where a
quarter of each of three fast blocks fails, on a line on which that is not usual, it is told at once, however restless
the reference was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.gaussian import drift
from gaussline.worker.gaussian.density import Gaussian
from gaussline.worker.learning.alarm import Alarm
from gaussline.worker.learning.block import passed

Array = NDArray[np.float64]
FAST, SLOW = 50, 250
FAST_REFERENCE, SLOW_REFERENCE = (20, 100), (20, 60)
"""Blocks of a reference: from the first number on it is compared with, at the second it is full."""
MEAN_REFERENCE = 20
FAST_NEWEST, SLOW_NEWEST = 3, 20
BURST, USUAL = 0.25, 0.125
"""A burst: over this share of each of the newest fast blocks fails, where at most that share usually does. By chance
alone that is less than once in 10⁶ blocks at a usual share of 12.5 %, and practically never at 5 %."""
BURSTING = "failures:burst"
WAITING = 3
"""Blocks between the newest and the reference, so that a change does not enter what it is compared with."""
FAST_EVERY_S, SLOW_EVERY_S = 60.0, 600.0
PROBATION_FRAMES = FAST * FAST_REFERENCE[0]
"""Frames of a camera that is new to the learner: they neither teach nor calibrate, they are its reference."""
STATISTICS = {"exposure": 0.03, "contrast": 0.05, "sharpness": 0.10, "red": 0.02, "blue": 0.02}
"""Image statistics, and the relative change from which one is worth an alarm."""
CALM = 0.5
QUIET_BLOCKS = 6
Gaussians = Callable[[str], "tuple[tuple[str, ...], tuple[Gaussian, ...], int] | None"]
"""From a version's digest to its levels, its Gaussians and its number of calibration frames; None: not to be had."""


@dataclass(slots=True, eq=False)
class _Sums:
    count: int = 0
    since_us: int = 0
    low: list[int] = field(default_factory=lambda: [0] * len(drift.LEVELS))
    failed: int = 0
    features: Array | None = None
    statistics: dict[str, float] = field(default_factory=dict)
    told: int = 0


@dataclass(slots=True, eq=False)
class CameraWatch:
    """What is remembered of one camera.

    Args:
        alpha_fast, alpha_slow: level of one test.
        every_s: least working time between two evaluations of the fast tests.
        entering: blocks of the last evaluation that have not moved on to the reference yet.
        turns, root_turns: how often another version began to judge; and how often by the end of each slow block.
        fail_limit: share of failures of a new camera over which the model does not fit it.
    """

    camera: str
    alpha_fast: float
    alpha_slow: float
    fail_limit: float = BURST
    every_s: float = FAST_EVERY_S
    frames: int = 0
    digest: str = ""
    calibration: int = 0
    shares: list[list[float]] = field(default_factory=list)
    images: dict[str, list[float]] = field(default_factory=dict)
    means: list[NDArray[np.float32]] = field(default_factory=list)
    roots: list[float] = field(default_factory=list)
    root_turns: list[int] = field(default_factory=list)
    turns: int = 0
    starts: list[int] = field(default_factory=list)
    slow_starts: list[int] = field(default_factory=list)
    failures: list[float] = field(default_factory=list)
    alarms: dict[str, int] = field(default_factory=dict)
    evaluated_us: list[int] = field(default_factory=lambda: [-(10**15), -(10**15)])
    entering: int = 0
    slow_failed: int = 0
    slow_count: int = 0
    early_failed: int = 0
    met: bool = False
    turned: bool = False
    block: _Sums = field(default_factory=_Sums)
    _white: dict[str, list[Array]] = field(default_factory=dict)

    @property
    def on_probation(self) -> bool:
        """New here: its frames are its reference, and nothing else yet."""
        return self.frames < PROBATION_FRAMES

    def observe(
        self, events: Sequence[FeatureEvent], at_us: Sequence[int], features: NDArray[np.float32], models: Gaussians
    ) -> list[Alarm]:
        """The camera's next frames, in order; what began or ended with them."""
        found: list[Alarm] = []
        start = 0
        while start < len(events):
            if events[start].digest != self.digest:
                found += self._turn(events[start].digest, at_us[start], models)
            end = start
            room = FAST - self.block.count
            while end < len(events) and end - start < room and events[end].digest == self.digest:
                end += 1
            self._add(events[start:end], at_us[start:end], features[start:end])
            if self.block.count == FAST:
                found += self._close(at_us[end - 1], models)
            start = end
        return found

    # --- storing -----------------------------------------------------------------------------------------------------
    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """JSON-able facts and arrays; exact."""
        facts: dict[str, Any] = {name: getattr(self, name) for name in (*_FACTS, "turned")}
        facts["block"] = {name: getattr(self.block, name) for name in _BLOCK_FACTS}
        arrays: dict[str, NDArray[Any]] = {}
        if self.means:
            arrays["means"] = np.stack(self.means)
        if self.block.features is not None:
            arrays["block"] = self.block.features
        return facts, arrays

    def restore(self, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> CameraWatch:
        """From `to_state`. Returns self."""
        for name in _FACTS:
            setattr(self, name, facts.get(name, getattr(self, name)))  # a fact of a later build may be missing
        # Of blocks that an earlier build wrote down it is not known: they count as one version's.
        self.root_turns = [0] * (len(self.roots) - len(self.root_turns)) + self.root_turns
        self.block = _Sums(**facts["block"])
        if "block" in arrays:
            self.block.features = np.array(arrays["block"], np.float64)
        self.means = [np.array(row, np.float32) for row in arrays.get("means", ())]
        return self

    # --- gathering ---------------------------------------------------------------------------------------------------
    def _turn(self, digest: str, now_us: int, models: Gaussians) -> list[Alarm]:
        """Another version judges: means are compared within a version's life only, and alarms of them end."""
        found = models(digest)
        self.turned = self.turned or bool(self.digest)
        self.turns += 1
        self.digest, self.calibration = digest, 0 if found is None else found[2]
        self.means, self.block = [], _Sums()
        self._white = {}
        over = [test for test in self.alarms if test.startswith("mean:")]
        for test in over:
            del self.alarms[test]
        facts = {"what": "another version judges", "turned": True}
        return [self._alarm("mean", test, False, now_us, dict(facts)) for test in over]

    def _add(self, events: Sequence[FeatureEvent], at_us: Sequence[int], features: NDArray[np.float32]) -> None:
        block = self.block
        if block.count == 0:
            block.since_us = at_us[0]
        block.count += len(events)
        self.frames += len(events)
        failed = sum(not passed(event) for event in events)
        block.failed += failed
        if self.frames <= PROBATION_FRAMES:
            self.early_failed += failed
        if self.slow_count == 0:
            self.slow_starts = [*self.slow_starts[-(SLOW_NEWEST - 1) :], at_us[0]]
        self.slow_failed += failed
        self.slow_count += len(events)
        for index, level in enumerate(drift.LEVELS):
            block.low[index] += sum(event.p_value <= level for event in events)
        total = features.sum(axis=0, dtype=np.float64)
        block.features = total if block.features is None else block.features + total
        for event in events:
            if event.statistics:
                block.told += 1
                for name in STATISTICS:
                    block.statistics[name] = block.statistics.get(name, 0.0) + event.statistics.get(name, 0.0)

    def _close(self, now_us: int, models: Gaussians) -> list[Alarm]:
        """A block is full: it is compared, and becomes part of the reference when it is no longer among the newest."""
        block, self.block = self.block, _Sums()
        assert block.features is not None
        self.starts = [*self.starts[-(FAST_NEWEST - 1) :], block.since_us]
        # A fast camera fills many blocks between two evaluations: those that none sees never become what is usual.
        unseen = self.entering == 0 and len(self.shares) >= FAST_REFERENCE[0] + WAITING + FAST_NEWEST
        self.entering = max(0, self.entering - 1)
        hold = unseen or self._held("scores")
        _push(self.shares, [low / FAST for low in block.low], FAST_REFERENCE[1], FAST_NEWEST, WAITING, hold=hold)
        if block.told == FAST:
            for name, total in block.statistics.items():
                hold = unseen or self._held(f"image:{name}")
                held = self.images.setdefault(name, [])
                _push(held, total / FAST, FAST_REFERENCE[1], FAST_NEWEST, WAITING, hold=hold)
        _push(self.means, (block.features / FAST).astype(np.float32), MEAN_REFERENCE, FAST_NEWEST, hold=False)
        self.failures = [*self.failures[-(FAST_NEWEST - 1) :], block.failed / FAST]
        found = self._burst(now_us)
        if now_us - self.evaluated_us[0] >= self.every_s * 1e6:
            self.evaluated_us[0] = now_us
            self.entering = FAST_NEWEST
            found += self._scores(now_us) + self._image(now_us) + self._means(now_us, models)
        if self.slow_count >= SLOW:
            root = float(np.sqrt(self.slow_failed / self.slow_count))
            self.slow_failed = self.slow_count = 0
            hold = self._held("failures")
            _push(self.roots, root, SLOW_REFERENCE[1], SLOW_NEWEST, hold=hold)
            _push(self.root_turns, self.turns, SLOW_REFERENCE[1], SLOW_NEWEST, hold=hold)
            if now_us - self.evaluated_us[1] >= SLOW_EVERY_S * 1e6:
                self.evaluated_us[1] = now_us
                found += self._failures(now_us)
        if self.met or self.frames < PROBATION_FRAMES:
            return found
        self.met = True
        if self.early_failed > self.fail_limit * PROBATION_FRAMES:
            self.alarms["new_camera"] = 0
            share = self.early_failed / PROBATION_FRAMES
            found.append(self._alarm("new_camera", "new_camera", True, now_us, {"after": share, "before": None}))
        return found

    def _held(self, kind: str) -> bool:
        return any(test.startswith(kind) for test in self.alarms)

    # --- comparing ---------------------------------------------------------------------------------------------------
    def _scores(self, now_us: int) -> list[Alarm]:
        old, new = _split(self.shares, FAST_NEWEST, WAITING)
        if len(old) < FAST_REFERENCE[0]:
            return []
        found = []
        for index, level in enumerate(drift.LEVELS):
            reference = [shares[index] for shares in old]
            newest = [shares[index] for shares in new]
            mean = float(np.mean(reference))
            # Either side may have been judged by another calibration set: its error is added twice.
            error = 2.0 * drift.calibration_variance(level, self.calibration) if self.calibration else 0.0
            t, dof = drift.shift_t(reference, newest, floor=drift.indicator_floor(mean, FAST), extra_variance=error)
            facts = {"before": mean, "after": float(np.median(newest)), "what": f"share of p-values up to {level:g}"}
            found += self._judge("scores", f"scores:{level:g}", t, dof, self.alpha_fast, now_us, facts)
        return found

    def _image(self, now_us: int) -> list[Alarm]:
        found = []
        for name, values in self.images.items():
            old, new = _split(values, FAST_NEWEST, WAITING)
            if len(old) < FAST_REFERENCE[0]:
                continue
            before, after = float(np.mean(old)), float(np.median(new))
            change = drift.relative_change(before, after)
            t, dof = drift.shift_t(old, new, floor=1e-4 * abs(before))
            if abs(change) < STATISTICS[name] * (CALM if f"image:{name}" in self.alarms else 1.0):
                t = 0.0
            facts = {"before": before, "after": after, "change": change, "what": name}
            found += self._judge("image", f"image:{name}", t, dof, self.alpha_fast, now_us, facts)
        return found

    def _means(self, now_us: int, models: Gaussians) -> list[Alarm]:
        old, new = _split(self.means, FAST_NEWEST)
        model = models(self.digest) if len(old) >= MEAN_REFERENCE else None
        if model is None:
            return []
        levels, gaussians, _ = model
        if not self._white:
            reference = np.stack(old).astype(np.float64)
            self._white = {"reference": _whitened(gaussians, reference)}
        newest = np.stack(new).astype(np.float64)
        found = []
        ends = np.cumsum([gaussian.dimension for gaussian in gaussians])
        for index, (level, gaussian) in enumerate(zip(levels, gaussians, strict=True)):
            place = slice(int(ends[index]) - gaussian.dimension, int(ends[index]))
            white = self._white["reference"][index]
            before, after = drift.mean_shifts(white, gaussian.whiten(newest[:, place]))
            t, dof = drift.shift_t(before, after, floor=float(np.sqrt(2.0 / gaussian.rank)))
            size = float(np.sqrt(np.exp(np.median(after)) / gaussian.rank))
            facts: dict[str, Any] = {"before": 0.0, "after": size, "what": f"mean of level {level}, whitened"}
            test = f"mean:{level}"
            alarms = self._judge("mean", test, max(t, 0.0), dof, self.alpha_fast, now_us, facts)
            if alarms and alarms[0].began:
                was = np.stack(old).mean(axis=0, dtype=np.float64)[place]
                top = drift.top_directions(gaussian, was, newest[:, place].mean(axis=0))
                alarms[0].facts["directions"] = [[channel, change] for channel, change in top]
            found += alarms
        return found

    def _burst(self, now_us: int) -> list[Alarm]:
        newest = self.failures
        usual = float(np.median(np.square(self.roots))) if len(self.roots) > FAST_NEWEST else 1.0
        facts = {"before": usual, "after": float(np.mean(newest)), "what": "share of failures"}
        if BURSTING in self.alarms:
            if max(newest) > USUAL:
                return []
            del self.alarms[BURSTING]
            return [self._alarm("failures", BURSTING, False, now_us, facts)]
        if len(newest) < FAST_NEWEST or min(newest) <= BURST or usual > USUAL:
            return []
        self.alarms[BURSTING] = 0
        return [self._alarm("failures", BURSTING, True, now_us, facts)]

    def _failures(self, now_us: int) -> list[Alarm]:
        old, new = _split(self.roots, SLOW_NEWEST)
        if len(old) < SLOW_REFERENCE[0]:
            return []
        facts: dict[str, Any] = {
            "before": float(np.mean(np.square(old))),
            "after": float(np.mean(np.square(new))),
            "what": "share of failures",
        }
        # Each version's working point has an error of its own. It is known: so it is taken out of the old ones' spread,
        # where it would look like blocks that resemble each other, and added; of the newest blocks, whose versions are
        # calibrated on much the same frames, as that of one version.
        level, of_old = drift.without_levels(old, _split(self.root_turns, SLOW_NEWEST)[0])
        extra = drift.root_variance(facts["before"], self.calibration) * (1.0 + of_old) if self.turned else 0.0
        t, dof = drift.shift_t(level, new, floor=0.5 / np.sqrt(SLOW), extra_variance=extra, robust=False)
        return self._judge("failures", "failures", t, dof, self.alpha_slow, now_us, facts)

    def _judge(
        self, kind: str, test: str, t: float, dof: float, alpha: float, now_us: int, facts: dict[str, Any]
    ) -> list[Alarm]:
        limit = drift.quantile_t(alpha, dof)
        facts |= {"t": float(np.clip(t, -1e9, 1e9)), "limit": limit}
        if abs(t) > limit:
            began = test not in self.alarms
            self.alarms[test] = 0
            return [self._alarm(kind, test, True, now_us, facts)] if began else []
        if test in self.alarms:
            self.alarms[test] = self.alarms[test] + 1 if abs(t) < CALM * limit else 0
            if self.alarms[test] >= QUIET_BLOCKS:
                del self.alarms[test]
                return [self._alarm(kind, test, False, now_us, facts)]
        return []

    def _alarm(self, kind: str, test: str, began: bool, now_us: int, facts: dict[str, Any]) -> Alarm:
        starts = self.slow_starts if test == "failures" else self.starts
        return Alarm(kind, self.camera, test, began, now_us, starts[0], facts)


_FACTS = (
    *("frames", "digest", "calibration", "shares", "images", "roots", "starts", "slow_starts", "failures", "alarms"),
    *("evaluated_us", "entering", "root_turns", "turns", "slow_failed", "slow_count", "early_failed", "met"),
)
_BLOCK_FACTS = ("count", "since_us", "low", "failed", "statistics", "told")


def _push(values: list[Any], value: Any, reference: int, newest: int, waiting: int = 0, *, hold: bool) -> None:
    """Append. A full reference stays as it is: what would move on to it goes; and held, nothing leaves the newest."""
    values.append(value)
    if hold and len(values) > newest + 1:
        del values[-newest - 1]
    elif len(values) > reference + waiting + newest:
        del values[-newest - waiting - 1]


def _split(values: list[Any], newest: int, waiting: int = 0) -> tuple[list[Any], list[Any]]:
    """The reference and the newest."""
    return values[: -newest - waiting], values[-newest:]


def _whitened(gaussians: Sequence[Gaussian], rows: Array) -> list[Array]:
    ends = np.cumsum([gaussian.dimension for gaussian in gaussians])
    return [
        gaussian.whiten(rows[:, int(end) - gaussian.dimension : int(end)])
        for gaussian, end in zip(gaussians, ends, strict=True)
    ]
