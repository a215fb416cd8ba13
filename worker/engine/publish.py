"""The last step of a message: its conclusion, settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gaussline.worker.broker.settle import Settlement, Settler
from gaussline.worker.contract.verdict import Reason, Verdict
from gaussline.worker.engine.conclude import Concluder, FrameConclusion
from gaussline.worker.engine.kept_outlet import KeptOutlet
from gaussline.worker.engine.prepare import MessageWork, Refusal


def publish(
    settler: Settler, concluder: Concluder, works: Sequence[MessageWork[Any]], outlet: KeptOutlet | None = None
) -> tuple[list[Verdict], int]:
    """Settle decided messages in one call: the verdicts that became public, and how many messages others had settled.

    Kept frames go into `outlet` where one is given, else into Redis with the settlement; their verdicts into Redis
    either way. They are stored before they are settled: a verdict that says kept must be right.

    A repeated call may find its own earlier success as "settled by somebody": the verdicts are public all the same.
    """
    settlements = []
    verdicts: list[list[Verdict]] = []
    for work in works:
        message = work.message
        if not message.admitted:
            verdicts.append([])
            settlements.append(
                Settlement(message.camera, message.entry_id, (), dead=[concluder.unadmitted(work)], unadmitted=True)
            )
            continue
        frames = concluder.conclude(work)
        if outlet is not None:
            frames = [_stored(frame, outlet) for frame in frames]
        verdicts.append([frame.verdict for frame in frames])
        first = work.outcomes[0]
        kept = [(frame.verdict.id, frame.kept) for frame in frames if frame.kept is not None]
        if outlet is not None:
            kept = [(frame_id, b"") for frame_id, _ in kept]
        settlements.append(
            Settlement(
                message.camera,
                message.entry_id,
                [(frame.verdict.id, frame.verdict.decision.value, frame.verdict.to_open_json()) for frame in frames],
                kept=kept,
                dead=[frame.dead for frame in frames if frame.dead is not None],
                events=[frame.event for frame in frames if frame.event is not None],
                lost=isinstance(first, Refusal) and first.reason is Reason.LOST,
            )
        )
    won = settler.settle(settlements)
    public = [verdict for mine, ours in zip(verdicts, won, strict=True) if ours for verdict in mine]
    return public, len(won) - sum(won)


def _stored(frame: FrameConclusion, outlet: KeptOutlet) -> FrameConclusion:
    """The conclusion, its frame in its own store; or without it, where that cannot be."""
    if frame.kept is None or outlet.put(frame.verdict.id, frame.kept):
        return frame
    return replace(frame, verdict=replace(frame.verdict, kept=False), kept=None)
