"""The delivery: verdicts out of the stream into a transport, at least once, in order by part. Kill it at any instant.

The cursor in Redis moves over an entry when it and everything before it is delivered, or lies among the dead letters.
What is not delivered stays in the stream, and here are at most `window` verdicts of it. What a crash forgets, it and
everything after it comes again in the same order. One process of a name delivers at a time; others stand by.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gaussline.worker.bridge.backoff import Backoff, Gate
from gaussline.worker.bridge.observer import BridgeObserver
from gaussline.worker.bridge.outbox import Outbox, Slot
from gaussline.worker.bridge.parcel import Parcel, parcel_of
from gaussline.worker.bridge.patience import Patience
from gaussline.worker.bridge.reader import Arrived, Elsewhere, Gap, News, Reader, Unreadable, gap
from gaussline.worker.bridge.transport import Transport
from gaussline.worker.broker.bridge_store import BridgeStore
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.errors import (
    BrokerError,
    BrokerUnavailable,
    ContractError,
    DeliveryError,
    Fenced,
    NotFound,
    NotNow,
)

TURN_S = 0.5
"""Longest wait of one turn: so often the place is looked after, and the loop is seen to live."""
STAND_BY_S = 1.0


@dataclass(frozen=True, slots=True)
class Terms:
    """How a bridge delivers.

    Attributes:
        window: most verdicts in hand.
        lanes: most deliveries at a time.
        backoff_most_s: longest pause between two tries of a verdict.
        give_up_tries, give_up_s: when a verdict goes to the dead letters, see `patience.Patience`.
        lease_s: after a crash another process may go on after so long.
        drain_s: time for what is under way when the bridge is told to stop.
        only: deliver verdicts with this decision alone.
        from_now: a bridge that is new begins with what comes next, not with the oldest verdict there is.
    """

    window: int = 256
    lanes: int = 8
    backoff_most_s: float = 30.0
    give_up_tries: int = 20
    give_up_s: float = 3600.0
    lease_s: float = 5.0
    drain_s: float = 20.0
    only: str | None = None
    from_now: bool = False


@dataclass(frozen=True, slots=True)
class _Sent:
    """A transport came back."""

    slot: Slot
    error: BaseException | None
    seconds: float


class Delivery:
    """One bridge of one line.

    Args:
        source: the verdicts, or part verdicts.
        chance: a number from 0 up to 1, for the jitter of pauses.
    """

    def __init__(
        self,
        source: Verdicts,
        store: BridgeStore,
        transport: Transport,
        terms: Terms | None = None,
        observer: BridgeObserver | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._store = store
        self._transport = transport
        self._terms = terms or Terms()
        self._observer = observer or BridgeObserver()
        self._monotonic = monotonic
        self._backoff = Backoff(chance, most_s=self._terms.backoff_most_s)
        self._inbox: queue.SimpleQueue[News | _Sent] = queue.SimpleQueue()
        self._lanes = min(self._terms.lanes, transport.lanes)
        self._begin_afresh()
        self.delivered = 0
        """Parcels that the receiver took."""
        self.standing_by = "not begun"
        """Why this process does not deliver; empty where it does."""
        self.redis_trouble = ""
        """What Redis said last, where that was no answer."""
        self.waiting = 0
        """Verdicts in hand that are not delivered."""
        self._oldest: str | None = None
        self._clock_us = 0
        """Redis's clock less this machine's."""

    def _begin_afresh(self) -> None:
        self._outbox = Outbox(self._terms.window)
        self._gate = Gate(self._backoff)
        self._patience = Patience(self._terms.give_up_tries, self._terms.give_up_s)
        self._acknowledged: str | None = None
        self._moves = self._source.moves
        self._asked = False
        self._renew_at_s = 0.0

    # --- what it says of itself --------------------------------------------------------------------------------------
    @property
    def refused_why(self) -> str:
        """Why the receiver takes nothing; empty where it does."""
        return self._gate.why

    def lag_s(self) -> float:
        """Age of the oldest verdict that is not delivered, by Redis's clock; 0 where none waits. From any thread."""
        oldest = self._oldest
        if oldest is None:
            return 0.0
        now_us = time.time_ns() // 1000 + self._clock_us
        return max(0.0, now_us / 1e6 - int(oldest.split("-", 1)[0]) / 1e3)

    # --- the loop ----------------------------------------------------------------------------------------------------
    def run(self, stopping: threading.Event) -> None:
        """Deliver until told to stop; then what is under way is waited for, and the cursor moved. Waits out outages."""
        while not stopping.is_set():
            self._observer.turned()
            try:
                self._hold(renew=False)
                self._serve(stopping)
            except Fenced as error:
                self._stand_by(f"{error}")
            except BrokerError as error:
                self._trouble(error)
            else:
                break
            stopping.wait(STAND_BY_S * (0.5 + 0.5 * self._backoff.chance()))

    def _serve(self, stopping: threading.Event) -> None:
        """Deliver while this process has the place. Raises Fenced, BrokerError."""
        self._begin_afresh()
        position, gone = self._open()
        self._stand_by("")
        self._renew_at_s = self._monotonic() + self._terms.lease_s / 3
        inbox = self._inbox = queue.SimpleQueue()  # what an earlier turn of service still answers is not ours
        with (
            ThreadPoolExecutor(self._lanes, thread_name_prefix="deliver") as pool,
            Reader(self._source, position, self._moves, gone, inbox.put) as reader,
        ):
            while not stopping.is_set():
                self._turn(pool, reader)
            self._drain()
        self._store.release()

    def _turn(self, pool: ThreadPoolExecutor, reader: Reader) -> None:
        """Send what is due, wait for news, act on it."""
        self._observer.turned()
        now_s = self._monotonic()
        if now_s >= self._renew_at_s:
            self._renew(now_s)
        if not self._asked and self._outbox.room > 0:
            self._asked = True
            reader.ask(self._outbox.room)
        while self._outbox.under_way < self._lanes and self._gate.may_pass(now_s, self._outbox.under_way):
            slot = self._outbox.next(now_s)
            if slot is None:
                break
            pool.submit(self._send, slot, self._inbox)
        self._take_in(self._longest_wait_s(now_s))
        self._acknowledge()
        self.waiting, self._oldest = self._outbox.waiting, self._outbox.oldest

    def _longest_wait_s(self, now_s: float) -> float:
        """How long nothing but news can matter."""
        wake_s = self._outbox.wake_s()
        if wake_s is None or self._outbox.under_way >= self._lanes:
            return TURN_S
        if self._gate.failures:
            if self._outbox.under_way:
                return TURN_S
            wake_s = max(wake_s, self._gate.until_s)
        return min(TURN_S, max(0.0, wake_s - now_s))

    def _take_in(self, timeout_s: float) -> None:
        """Act on all news there is, waiting for some."""
        try:
            news = self._inbox.get(timeout=timeout_s) if timeout_s > 0 else self._inbox.get_nowait()
            while True:
                self._act(news)
                news = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _act(self, news: News | _Sent) -> None:
        if isinstance(news, Arrived):
            self._asked = False
            self.redis_trouble = ""
            for entry_id, fields in news.entries:
                self._add(entry_id, fields)
        elif isinstance(news, Gap):
            self._observer.gap(news.after, news.upto)
        elif isinstance(news, Unreadable):
            self._trouble(news.error)
        elif isinstance(news, Elsewhere):
            raise BrokerUnavailable("another server is Redis's master now: the bridge begins at its cursor there")
        else:
            self._answered(news)

    def _drain(self) -> None:
        """Wait for what is under way, and move the cursor; the rest stays in Redis."""
        end_s = self._monotonic() + self._terms.drain_s
        while self._outbox.under_way and (left_s := end_s - self._monotonic()) > 0:
            self._observer.turned()
            self._take_in(min(TURN_S, left_s))
        self._acknowledge()

    # --- one verdict -------------------------------------------------------------------------------------------------
    def _add(self, entry_id: str, fields: dict[bytes, bytes]) -> None:
        if self._terms.only is not None and fields.get(b"decision", b"").decode("utf-8", "replace") != self._terms.only:
            self._outbox.skip(entry_id)
            return
        try:
            self._outbox.add(parcel_of(entry_id, self._source.line, fields))
        except ContractError as error:
            # Nobody can make anything of it; it must stop neither the line nor the cursor.
            identity = fields.get(b"id", b"").decode("utf-8", "replace")[:100]
            broken = Parcel(entry_id, identity, "", self._source.line, None, None, "", fields.get(b"json", b""), {})
            self._observer.buried(broken, str(error), self._store.bury(entry_id, identity, str(error), broken.body))
            self._outbox.skip(entry_id)

    def _send(self, slot: Slot, inbox: queue.SimpleQueue[News | _Sent]) -> None:
        """In a thread of the pool: nothing but this call happens there."""
        began_s = self._monotonic()
        error: BaseException | None = None
        try:
            self._transport.send(slot.parcel)
        except BaseException as caught:  # told to the loop, which decides
            error = caught
        inbox.put(_Sent(slot, error, self._monotonic() - began_s))

    def _answered(self, sent: _Sent) -> None:
        slot, error = sent.slot, sent.error
        if error is None:
            self.delivered += 1
            self._gate.open()
            self._patience.taken(slot.place)
            self._outbox.done(slot)
            self._observer.delivered(slot.parcel, sent.seconds)
        elif isinstance(error, NotNow):
            self._not_now(slot, error)
        elif isinstance(error, DeliveryError):
            self._gate.open()  # a receiver that tells one verdict from another is there
            self._bury(slot, str(error))
        else:
            self._observer.trouble("transport", error)
            self._not_now(slot, NotNow(f"{type(error).__name__}: {error}"))

    def _not_now(self, slot: Slot, error: NotNow) -> None:
        now_s = self._monotonic()
        if error.whole:
            self._gate.shut(now_s, str(error), error.least_s)
        slot.tries += 1
        if self._patience.ended(slot.place, now_s, answered=not error.whole):
            self._bury(slot, f"given up after {slot.tries} tries; the last one: {error}")
            return
        pause_s = self._backoff.pause_s(slot.tries, error.least_s)
        self._outbox.again(slot, now_s + pause_s)
        self._observer.retried(slot.parcel, str(error), pause_s)

    def _bury(self, slot: Slot, why: str) -> None:
        parcel = slot.parcel
        try:
            dropped = self._store.bury(parcel.entry_id, parcel.id, why, parcel.body)
        except BrokerError as error:
            # It is sent once more before it is written down: rather twice refused than forgotten.
            self._trouble(error)
            self._outbox.again(slot, self._monotonic() + STAND_BY_S)
            return
        self._patience.forget(slot.place)
        self._outbox.done(slot)
        self._observer.buried(parcel, why, dropped)

    # --- Redis -------------------------------------------------------------------------------------------------------
    def _open(self) -> tuple[str, str]:
        """Where this bridge stands, and the newest entry that was trimmed; it is registered where it is new."""
        name = self._store.bridge
        self._moves = self._source.moves
        self._source.register(name, since=self._source.last_id() if self._terms.from_now else "0-0")
        position = self._source.position(name)
        gone = self._source.deleted_up_to()
        if gap(gone, position):
            self._observer.gap(position, gone)
        return position, gone

    def _acknowledge(self) -> None:
        cursor = self._outbox.cursor
        if cursor is None or cursor == self._acknowledged:
            return
        try:
            try:
                self._source.ack(self._store.bridge, cursor)
            except NotFound:  # Redis lost it, or somebody unregistered it; of another master it is said by the reader
                if self._source.moves == self._moves:
                    self._source.register(self._store.bridge, since=cursor)
        except BrokerError as error:
            self._trouble(error)  # the next one makes it good
        else:
            self._acknowledged = cursor
            self.redis_trouble = ""

    def _hold(self, *, renew: bool) -> None:
        told_us = self._store.hold(self._terms.lease_s, renew=renew)
        self._clock_us = told_us - time.time_ns() // 1000
        self.redis_trouble = ""

    def _renew(self, now_s: float) -> None:
        """Hold on to the place. Raises Fenced; an outage of Redis gives it to nobody else."""
        self._renew_at_s = now_s + self._terms.lease_s / 3
        try:
            self._hold(renew=True)
        except Fenced:
            self._hold(renew=False)  # it ran out, or Redis lost it; nobody may have taken it
        except BrokerError as error:
            self._trouble(error)

    def _stand_by(self, said: str) -> None:
        if said != self.standing_by:
            self.standing_by = said
            self._observer.holding(said)

    def _trouble(self, error: BrokerError) -> None:
        self.redis_trouble = str(error)
        self._observer.trouble("redis", error)
