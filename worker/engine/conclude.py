"""From decided frames to what is published: verdicts, kept frames, dead letters and feature events of one message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gaussline.worker.contract.dead_letter import METADATA_ONLY, DeadLetter
from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.frame import BadFrame, Frame, encode_batch, frame_id
from gaussline.worker.contract.trace import checked
from gaussline.worker.contract.verdict import Decision, Reason, Verdict
from gaussline.worker.engine.draw import Draw
from gaussline.worker.engine.judgement import Judgement
from gaussline.worker.engine.prepare import MessageWork, Refusal


@dataclass(frozen=True, slots=True, eq=False)
class FrameConclusion:
    """Everything that one frame's settling writes.

    Attributes:
        kept: a frame batch of that one frame, where its bytes are to be kept.
        event: an encoded feature event, and the model whose stream it goes to.
    """

    verdict: Verdict
    kept: bytes | None = None
    dead: DeadLetter | None = None
    event: tuple[str, bytes] | None = None


class Concluder:
    """Pure: the same work gives the same conclusion on every worker, so that a doubled attempt changes nothing.

    Args:
        keep_pass_share: share of passed frames that are kept.
        reservoir_share: share of frames whose feature events are marked for calibration.
        features_share: share of the other frames whose feature events are written.
    """

    def __init__(
        self,
        line: str,
        worker: str,
        keep_pass_share: float,
        *,
        reservoir_share: float = 0.0,
        features_share: float = 1.0,
    ) -> None:
        self._line = line
        self._worker = worker
        self._kept = Draw("kept", keep_pass_share)
        self._reservoir = Draw("reservoir", reservoir_share)
        self._teaching = Draw("features", features_share)

    def conclude(self, work: MessageWork[Any]) -> list[FrameConclusion]:
        """One conclusion a frame, in the message's order."""
        return [self._frame(work, offset, outcome) for offset, outcome in enumerate(work.outcomes)]

    def unadmitted(self, work: MessageWork[Any]) -> DeadLetter:
        """The dead letter of an entry that came without admission: it gets no verdict."""
        message = work.message
        return DeadLetter(
            id=message.entry_id,
            camera=message.camera,
            reason=Reason.UNADMITTED,
            detail=f"entry {message.entry_id} came without admission",
            frames=max(1, message.frame_count),
            deliveries=message.deliveries,
            data=message.payload or b"",
        )

    def _frame(self, work: MessageWork[Any], offset: int, outcome: object) -> FrameConclusion:
        if isinstance(outcome, Judgement):
            return self._judged(work, offset, outcome)
        assert isinstance(outcome, Refusal), f"frame {offset} of {work.message.entry_id} is undecided"
        return self._refused(work, offset, outcome)

    def _judged(self, work: MessageWork[Any], offset: int, judgement: Judgement) -> FrameConclusion:
        message = work.message
        assert work.batch is not None
        source = work.batch.frames[offset]
        assert isinstance(source, Frame)
        sequence = message.first_sequence + offset
        identity = frame_id(message.camera, message.epoch, sequence)
        decision = Decision.FAIL if judgement.failed else Decision.PASS
        keep = judgement.failed or identity in self._kept
        verdict = Verdict(
            id=identity,
            line=self._line,
            camera=message.camera,
            epoch=message.epoch,
            sequence=sequence,
            decision=decision,
            worker=self._worker,
            admitted_us=message.admitted_us,
            captured_us=source.captured_us,
            part=source.part,
            score=judgement.score,
            threshold=judgement.threshold,
            p_value=judgement.p_value,
            level_scores=judgement.level_scores,
            model=judgement.model,
            backbone=judgement.backbone,
            kept=keep,
            heat_map=judgement.heat_map,
            device=judgement.device,
            random_weights=judgement.random_weights,
            retry_of=source.retry_of,
            opinions=judgement.opinions,
            traceparent=checked(source.trace),
        )
        event = self._event(identity, source, message.admitted_us, judgement)
        return FrameConclusion(verdict, self._bytes(work, offset, source) if keep else None, None, event)

    def _event(self, identity: str, source: Frame, admitted_us: int, judgement: Judgement) -> tuple[str, bytes] | None:
        """The frame's feature event and its model; None where none is to be written."""
        if judgement.features is None:
            return None
        reservoir = identity in self._reservoir
        if not reservoir and identity not in self._teaching:
            return None
        event = FeatureEvent(
            id=identity,
            camera=identity.split(":", 1)[0],
            captured_us=source.captured_us,
            admitted_us=admitted_us,
            decision=Decision.FAIL if judgement.failed else Decision.PASS,
            model=judgement.model.name,
            version=judgement.model.version,
            digest=judgement.model.digest,
            spec_digest=judgement.spec_digest,
            score=judgement.score,
            p_value=judgement.p_value,
            features=judgement.features,
            reservoir=reservoir,
            weight=1.0 if reservoir else 1.0 / self._teaching.share,
            statistics=judgement.statistics,
        )
        return judgement.model.name, event.encode()

    def _refused(self, work: MessageWork[Any], offset: int, refusal: Refusal) -> FrameConclusion:
        message = work.message
        sequence = message.first_sequence + offset
        identity = frame_id(message.camera, message.epoch, sequence)
        source = refusal.source
        data = b""
        if refusal.reason not in METADATA_ONLY:
            if isinstance(source, Frame):
                data = self._bytes(work, offset, source)
            elif isinstance(source, BadFrame):
                data = source.data
            elif offset == 0:
                data = message.payload or b""  # the whole message, once: its frames cannot be told apart
        verdict = Verdict(
            id=identity,
            line=self._line,
            camera=message.camera,
            epoch=message.epoch,
            sequence=sequence,
            decision=Decision.NOT_JUDGED,
            worker=self._worker,
            admitted_us=message.admitted_us,
            captured_us=None if source is None else source.captured_us,
            part=None if source is None else source.part,
            reason=refusal.reason,
            detail=refusal.detail[:500],
            retry_of=source.retry_of if isinstance(source, Frame) else None,
            traceparent=checked(source.trace) if isinstance(source, Frame) else None,
        )
        dead = DeadLetter(
            id=identity,
            camera=message.camera,
            reason=refusal.reason,
            detail=refusal.detail,
            deliveries=message.deliveries,
            data=data,
        )
        return FrameConclusion(verdict, None, dead)

    def _bytes(self, work: MessageWork[Any], offset: int, source: Frame) -> bytes:
        message = work.message
        if message.frame_count == 1 and message.payload is not None:
            return message.payload
        return encode_batch(message.camera, message.epoch, message.first_sequence + offset, [source])
