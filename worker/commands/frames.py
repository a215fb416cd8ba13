"""What commands share that look at one judged frame: its verdict and its bytes, or plainly why they are gone."""

from __future__ import annotations

import json

from gaussline.worker.broker.kept import KeptFrames
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.commands.options import Connection
from gaussline.worker.contract.frame import BadFrame, Frame, parse_frame_id
from gaussline.worker.contract.verdict import Verdict
from gaussline.worker.errors import NotFound


def verdict_of(opened: Connection, frame_id: str) -> Verdict:
    """The verdict of a frame: kept with the frame, else still on the verdict stream. Raises NotFound."""
    parse_frame_id(frame_id)
    (kept,) = KeptFrames(opened.client, opened.line).verdicts([frame_id])
    if kept is not None:
        return kept
    found = Verdicts(opened.client, opened.line).find(frame_id)
    if found is None:
        raise NotFound(
            f"no verdict of frame {frame_id} on line {opened.line}: the frame is unknown or still in flight, or it is "
            "kept no more and its verdict has left the stream (GAUSSLINE_KEPT_MAX_AGE_S, GAUSSLINE_VERDICT_MIN_AGE_S)"
        )
    return Verdict.from_json(json.dumps(found))


def bytes_of(opened: Connection, verdict: Verdict) -> Frame | BadFrame:
    """The kept frame of a verdict. Raises NotFound, saying whether it was never kept or has expired."""
    if not verdict.kept:
        raise NotFound(f"frame {verdict.id} was not kept: it passed, and was not in the kept share")
    try:
        return KeptFrames.of(opened.settings, opened.client).get(verdict.id).frames[0]
    except NotFound:
        raise NotFound(
            f"frame {verdict.id} has expired: it was kept, and has gone by age or for space (GAUSSLINE_KEPT_MAX_AGE_S, "
            "GAUSSLINE_KEPT_MAX_BYTES)"
        ) from None
