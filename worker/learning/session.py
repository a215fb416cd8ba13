"""A learner at work on a line: `step` reads a block, folds it, says what is to be said, and checkpoints when it is due.

Everything that decides is in `Learner`; here is what touches Redis. All writes go through the lease: a learner that was
superseded finds out at its next write, and has written nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from gaussline.worker.broker.checkpoints import Checkpoint, CheckpointStore
from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.feature_log import Entry, FeatureLog, later
from gaussline.worker.broker.feedback import FeedbackLog
from gaussline.worker.broker.lease import Lease
from gaussline.worker.broker.registry import Registry
from gaussline.worker.broker.seal import Seal
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.clock import to_text
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.order import Order, OrderKind
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import ArtefactError, BackboneMismatch, NotFound
from gaussline.worker.learning.alarm import sentence
from gaussline.worker.learning.block import Block, read_block
from gaussline.worker.learning.learner import Learner
from gaussline.worker.learning.learner_state import about, pack_moments, pack_state, restore
from gaussline.worker.learning.notice import Notice
from gaussline.worker.learning.obedience import obey
from gaussline.worker.learning.policy import Policy

FEEDBACK_ENTRIES = 500
MODELS = 4
"""Versions whose Gaussians are held for the watch."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When a session does what; by its own clock, which decides nothing that is learnt.

    Attributes:
        checkpoint_s: least time between two checkpoints.
        lease_s: how long the lease holds without being renewed.
    """

    checkpoint_s: float = 30.0
    lease_s: float = 10.0


class Session:
    """One learner of one model, holding its lease from `open` to `close`.

    Args:
        owner: name of this process.
        from_base: begin with the moments of the stable version where there is no checkpoint.
        seal: signs checkpoints and proposals, and is asked before any is loaded.
        on_notice: is told of everything worth telling.
    """

    def __init__(
        self,
        client: Redis,
        line: str,
        model: str,
        policy: Policy,
        *,
        owner: str,
        rhythm: Rhythm | None = None,
        from_base: bool = True,
        seal: Seal | None = None,
        on_notice: Callable[[Notice], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.model = model
        self.policy = policy
        self.rhythm = rhythm or Rhythm()
        self.registry = Registry(client, line, seal=seal, sleep=sleep)
        self.lease = Lease(client, line, model, owner, self.rhythm.lease_s)
        self._client, self._line = client, line
        self._log = FeatureLog(client, line, model, sleep=sleep)
        self._store = CheckpointStore(client, line, model, seal=seal, sleep=sleep)
        self._feedback = FeedbackLog(client, line)
        self._from_base = from_base
        self._on_notice = on_notice or (lambda notice: None)
        self._monotonic = monotonic
        self._models: dict[str, Model] = {}
        self._learner: Learner | None = None
        self._judging_spec: BackboneSpec
        self._pages: dict[int, tuple[object, dict[str, Any]]] = {}
        self._kept: list[tuple[str, int]] = []
        self._unsaid: list[tuple[str, str, str, str]] = []
        self._buffer: list[Entry] = []
        self._cursor = self._feedback_seen = "0-0"
        self._next: Future[tuple[dict[str, Any] | None, Block | None]] | None = None
        self._pool = ThreadPoolExecutor(1, "learner-read")
        self._renewed_s = self._saved_s = 0.0
        self._saved_position = 0
        self._caught_up = False
        self._dropped = 0

    @property
    def learner(self) -> Learner:
        """The learner, once the session is open."""
        assert self._learner is not None, "the session is not open"
        return self._learner

    # --- life --------------------------------------------------------------------------------------------------------
    def open(self, *, restart: bool = False) -> Learner:
        """Take the lease and go on from the checkpoint, or begin; with `restart`, whatever checkpoint there is.

        Raises Fenced where another learner is at work; ArtefactError for a checkpoint that is torn, tampered with or of
        another backbone; NotFound where the model has no stable version to learn for. Nothing is written then.
        """
        self.lease.take()
        try:
            self._learner = (None if restart else self._restored()) or self._begun()
            self._buffer, self._unsaid = [], []
            self._cursor = self.learner.scouted_id
            self._feedback_seen = self._log.feedback_cursor()
            # Killed between its checkpoint and their deletion, a learner leaves entries behind that were passed.
            self._kept = self._log.sizes(self.learner.taught_id)
            self._kept += [entry for waiting in self.learner.pending for entry in waiting.block.entries]
            self._dropped = self._log.gap().dropped
        except BaseException:
            self.lease.stale = True  # what is half made must not go on
            self.lease.release()
            raise
        self._renewed_s = self._saved_s = self._monotonic()
        self._saved_position, self._caught_up = self.learner.position, False
        return self.learner

    def abandon(self) -> None:
        """End the reading thread; nothing is written."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """Checkpoint, and give the lease back. Raises Fenced, AnotherRun where it is no longer ours."""
        self.abandon()
        if self._learner is not None:
            self.checkpoint()
            self.lease.release()

    def _restored(self) -> Learner | None:
        checkpoint = self._store.latest()
        if checkpoint is None:
            return None
        _, model = self.stable()
        self._judging_spec = model.spec
        parts = {name: self._store.load(checkpoint, name) for name in checkpoint.parts}
        try:
            learner = restore(model.spec, self.policy, parts, self._reread, self._gaussians)
        except BackboneMismatch as error:
            raise ArtefactError(
                f"the checkpoint of model {self.model!r} was learnt from another backbone: {error}; begin anew with "
                "'gaussline learn --restart'"
            ) from None
        self._remember_pages(learner, checkpoint)
        return learner

    def _begun(self) -> Learner:
        digest, model = self.stable()
        self._judging_spec = model.spec
        base = model.moments if self._from_base else ()
        origin = {"base": digest} if base else {}
        return Learner.start(model.spec, self.policy, base, self._gaussians, origin=origin)

    def stable(self) -> tuple[str, Model]:
        """The version that judges now, with its digest. Raises NotFound."""
        pointer = self.registry.pointer(self.model)
        if pointer is None:
            raise NotFound(f"model {self.model!r} has no stable version to learn for: 'gaussline fit' makes one")
        return pointer.digest, self._load(pointer.digest)

    # --- one turn ----------------------------------------------------------------------------------------------------
    def step(self, now_s: float) -> bool:
        """One turn, at `now_s` by its clock; whether a block was folded. Raises BrokerError, Fenced.

        Where Redis was started again, or another server is the master, AnotherRun is raised and nothing was written.
        What was read before may be forgotten there, or stand otherwise: the next turn begins with the checkpoint that
        is there.
        """
        if self.lease.stale:
            ahead, self._next = self._next, None
            if ahead is not None:
                wait([ahead])
            self.open()
        if now_s - self._renewed_s >= self.rhythm.lease_s / 3.0:
            self.lease.renew(caught_up=self._caught_up)
            self._renewed_s = now_s
        self._flush()
        self._take_feedback()
        block = self._take_block()
        if block is None:
            self._save(now_s)
            self._caught_up = self.learner.position == self._saved_position
            return False
        self._caught_up = False
        notices = self.learner.fold(block, obey)
        self._kept += block.entries
        self._say(block.last_id, notices)
        self._save(now_s)
        return True

    def _save(self, now_s: float) -> None:
        """Checkpoint where one is due and something was folded since the last; on an idle line too."""
        if now_s - self._saved_s >= self.rhythm.checkpoint_s and self.learner.position != self._saved_position:
            self.checkpoint()
            self._saved_s, self._saved_position = now_s, self.learner.position

    def checkpoint(self) -> Checkpoint:
        """Publish the state by one flip of the pointer, and let go of the log entries it has passed."""
        learner = self.learner
        self._flush()  # what a checkpoint has passed is not folded again, and would stay unsaid
        parts: dict[str, bytes | dict[str, Any]] = {"moments": pack_moments(learner), "state": pack_state(learner)}
        for page in learner.reservoir.pages:
            known = self._pages.get(page.number)
            parts[f"page.{page.number}"] = known[1] if known is not None and known[0] is page else page.pack()
        checkpoint = self._store.save(self.lease, about(learner, self.model), parts)
        self._remember_pages(learner, checkpoint)
        done = len(self._kept) - sum(len(entry.block.entries) for entry in learner.pending)
        self._log.passed(self.lease, self._kept[:done])  # what is gone already may be asked for again
        del self._kept[:done]
        return checkpoint

    def say(self, notice: Notice, entry_id: str) -> None:
        """Put something on the drift stream that was found at a log entry; what was said before is not said again."""
        self._say(entry_id, [notice], 500)

    # --- reading -----------------------------------------------------------------------------------------------------
    def _take_block(self) -> Block | None:
        """The next block where the log holds all of its entries; the one after it is being read meanwhile."""
        ahead, self._next = self._next, None
        gap, block = self._read_next() if ahead is None else ahead.result()
        if gap is not None:
            self.learner.remember(gap)
        if block is not None:
            self._next = self._pool.submit(self._read_next)
        return block

    def _read_next(self) -> tuple[dict[str, Any] | None, Block | None]:
        """What the log lost before it was read, where it did, and the next block; in the reading thread, or instead."""
        entries, lost = self._log.read(self._cursor, self.policy.block - len(self._buffer)), None
        # Looked at afterwards, so that nothing can go unseen between the two; what goes after it was read is no loss.
        gap = self._log.gap()
        unread = later(gap.until, self._cursor) and (not entries or later(entries[0].id, gap.until))
        if gap.dropped > self._dropped and unread:
            lost = {"gap": [self._cursor, gap.until], "dropped": gap.dropped - self._dropped}
        self._dropped = gap.dropped
        self._buffer += entries
        if self._buffer:
            self._cursor = self._buffer[-1].id
        if len(self._buffer) < self.policy.block:
            return lost, None
        whole, self._buffer = self._buffer, []
        return lost, read_block(whole, self._judging_spec)

    def _reread(self, first: str, last: str) -> Block:
        """The block of a checkpoint between two ids, as the log still holds it."""
        return read_block(self._log.between(first, last), self._judging_spec)

    def _take_feedback(self) -> None:
        """What people said of frames becomes orders in the log, each once, by a cursor that moves with the write."""
        entries = self._feedback.read(self._feedback_seen, count=FEEDBACK_ENTRIES)
        if not entries:
            return
        orders = [
            Order(OrderKind(said.label.value), said.by, said.note, said.id, source=entry.id)
            for entry in entries
            if (said := entry.feedback) is not None
        ]
        self._feedback_seen = self._log.order(self.lease, self._feedback_seen, entries[-1].id, orders)

    # --- speaking ----------------------------------------------------------------------------------------------------
    def _say(self, entry_id: str, notices: Sequence[Notice], first: int = 0) -> None:
        milliseconds = entry_id.partition("-")[0]
        for number, notice in enumerate(notices, 1 + first):
            self._on_notice(notice)
            said = {"at_us": notice.at_us, **notice.facts}
            if notice.alarm is not None:
                text = sentence(notice.alarm, to_text(notice.at_us)[11:16])
                said |= {"alarm": notice.alarm.kind, "test": notice.alarm.test, "text": text}
            line = json.dumps(said, allow_nan=False)
            self._unsaid.append((f"{milliseconds}-{number}", notice.kind, notice.camera, line))
        self._flush()

    def _flush(self) -> None:
        """Write what is to be said; where Redis is away it waits for the next turn."""
        while self._unsaid:
            self.lease.write("say", *self._unsaid[0])
            del self._unsaid[0]

    # --- models ------------------------------------------------------------------------------------------------------
    def _load(self, digest: str) -> Model:
        model = self._models.get(digest)
        if model is None:
            model = Model.from_artefact(Artefact.unpack(self.registry.fetch(digest), digest))
            self._models[digest] = model
            while len(self._models) > MODELS:
                del self._models[next(iter(self._models))]
        return model

    def _gaussians(self, digest: str) -> Any:
        try:
            model = self._load(digest)
        except (NotFound, ArtefactError):
            return None  # collected since: the watch goes on without means
        if model.spec.digest != self.learner.spec.digest:
            return None
        return model.spec.levels, model.gaussians, len(model.working_point.scores)

    def _remember_pages(self, learner: Learner, checkpoint: Checkpoint) -> None:
        self._pages = {page.number: (page, checkpoint.parts[f"page.{page.number}"]) for page in learner.reservoir.pages}
