"""What an order does to a learner, at its place in the log."""

from __future__ import annotations

from typing import Any

from gaussline.worker.contract.order import Order, OrderKind
from gaussline.worker.gaussian.moments import Moments
from gaussline.worker.learning.gate import MAX_EDGES
from gaussline.worker.learning.learner import Learner
from gaussline.worker.learning.notice import Notice
from gaussline.worker.learning.spans import Span

MAX_LABELS = 10_000
STAYS = frozenset({"freeze", "confirmed"})
"""Causes of spans that releasing an alarm does not lift."""


def obey(learner: Learner, order: Order) -> list[Notice]:
    """Obey one order; what is to be said of it."""
    now_us = learner.clock.elapsed_us
    facts: dict[str, Any] = {"by": order.by, "note": order.note, "order": order.kind.value}
    learner.counts[f"orders.{order.kind.value}"] += 1
    if order.kind in (OrderKind.GOOD, OrderKind.BAD):
        return _label(learner, order, facts)
    if order.kind is OrderKind.FREEZE:
        learner.spans.open(order.camera, now_us, "freeze", now_us)
    elif order.kind is OrderKind.RESUME:
        learner.spans.close(order.camera, now_us, "freeze")
    elif order.kind is OrderKind.RELEASE:
        facts["lifted"] = _lift(learner, order.camera)
        for camera in _cameras(learner, order.camera):
            learner.cameras[camera].alarms.clear()
    else:
        _confirm(learner, order.camera, facts)
    return [Notice("order", order.camera, learner.clock.seen_us, facts)]


def _cameras(learner: Learner, camera: str) -> list[str]:
    return [name for name in learner.cameras if camera in ("", name)]


def _lift(learner: Learner, camera: str) -> int:
    causes = {span[3] for span in learner.spans.to_json()} - STAYS
    return learner.spans.lift(camera, tuple(sorted(causes)))


def _label(learner: Learner, order: Order, facts: dict[str, Any]) -> list[Notice]:
    facts = facts | {"frame": order.frame}
    waiting = (
        (entry, row)
        for entry in learner.pending
        for row, event in enumerate(entry.block.events)
        if event.id == order.frame
    )
    found = next(waiting, None)
    if found is None and not learner.reservoir.holds(order.frame):
        # What has taught cannot be taken back frame by frame: its features are gone.
        learner.counts["orders.too_late"] += 1
        return [Notice("too_late", "", learner.clock.seen_us, facts)]
    learner.labels.pop(order.frame, None)
    learner.labels[order.frame] = order.kind.value
    if len(learner.labels) > MAX_LABELS:
        del learner.labels[next(iter(learner.labels))]
    if found is not None and order.kind is OrderKind.BAD:
        entry, row = found
        at_us, near_us = int(entry.at_us[row]), int(learner.policy.neighbourhood_s * 1e6)
        learner.spans.add(Span(entry.block.events[row].camera, at_us - near_us, at_us + near_us, "objection"))
        learner.bank.append(entry.block.features[row].copy())
        del learner.bank[: -learner.policy.bank_frames]
    return [Notice("order", "", learner.clock.seen_us, facts)]


def _confirm(learner: Learner, camera: str, facts: dict[str, Any]) -> None:
    """What changed is normal: the old is forgotten, and frames since the change teach past the gate."""
    now_us = learner.clock.elapsed_us
    # Not from the start of its span, which reaches back beyond the change: those frames are a mixture of both looks.
    told_us = learner.spans.told_of(camera)
    from_us = now_us if told_us is None else min(told_us, now_us)
    cameras = _cameras(learner, camera)
    digests = sorted({learner.cameras[name].digest for name in cameras})
    facts |= {"lifted": _lift(learner, camera), "from_us": from_us}
    learner.vouched[camera] = {"from_us": from_us, "left": learner.policy.vouched_frames, "digests": digests}
    learner.confirmed |= dict.fromkeys(digests, str(facts["by"]))
    while len(learner.confirmed) > MAX_EDGES:
        del learner.confirmed[next(iter(learner.confirmed))]
    learner.spans.add(Span(camera, 0, from_us - 1, "confirmed"))
    learner.reservoir.forget(camera, from_us)
    learner.moments = [Moments(width) for width in learner.spec.channels]
    learner.gated_weight, learner.since_proposal = 0.0, 0
    learner.anchor = {}
    learner.remember({"confirmed": camera or "all cameras", "after": learner.scouted_id, "by": facts["by"]})
    for name in cameras:
        fresh = learner.new_watch(name)
        fresh.frames, fresh.met = learner.cameras[name].frames, True  # it is known here: no probation
        learner.cameras[name] = fresh
