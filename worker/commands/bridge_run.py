"""One bridge at work: what `gaussline bridge webhook | mqtt | opcua` do when their transport is made."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from signal import Signals
from typing import TYPE_CHECKING, Any

import typer

from gaussline.worker.bridge.backoff import Backoff
from gaussline.worker.bridge.delivery import Delivery, Terms
from gaussline.worker.bridge.parcel import parcel_of
from gaussline.worker.bridge.transport import Transport
from gaussline.worker.broker.bridge_store import BridgeStore
from gaussline.worker.broker.client import open_redis, time_us
from gaussline.worker.broker.verdicts import PartVerdicts, Verdicts
from gaussline.worker.commands.console import err, out, progress
from gaussline.worker.commands.mistakes import tell
from gaussline.worker.commands.options import secrets_of
from gaussline.worker.commands.signals import on_signals
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.errors import ContractError, DeliveryError, GausslineError, NotFound, NotNow
from gaussline.worker.settings import Settings

if TYPE_CHECKING:
    from gaussline.worker.telemetry.server import HealthServer

LIBRARIES = ("asyncua", "paho", "urllib3")
RETRY_TRIES = 5
NOT_ALL = 1


@dataclass(frozen=True, slots=True)
class Errand:
    """What a bridge was asked to do.

    Attributes:
        kind: the transport's name; the bridge's own where it was given none.
        secrets: words that are never written into a log.
    """

    kind: str
    settings: Settings
    http_port: int
    only: Decision | None
    parts: bool
    from_now: bool
    secrets: tuple[str | None, ...]

    @property
    def name(self) -> str:
        """The bridge's name."""
        return self.settings.bridge_name or self.kind

    def run(self, transport: Transport, *, check: bool, retry_dead: bool) -> None:
        """Deliver until told to stop; or only check, or only deliver the dead letters again."""
        for library in LIBRARIES:
            # What they have to say is said in our own log; a line for each lost connection would flood it.
            logger = logging.getLogger(library)
            logger.addHandler(logging.NullHandler())
            logger.propagate = False
        try:
            if check:
                self._check(transport)
            elif retry_dead:
                self._retry_dead(transport)
            else:
                self._deliver(transport)
        finally:
            transport.close()

    def _store(self) -> BridgeStore:
        settings = self.settings
        client = open_redis(settings)
        # Containers that share a host's network share its name, and each is process 1.
        owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        return BridgeStore(client, settings.line, self.name, owner, settings.bridge_dead_max_bytes)

    def _check(self, transport: Transport) -> None:
        """Try everything that a start needs, and say everything that is wrong at once."""

        def line() -> str:
            store = self._store()
            time_us(store.client)
            source = (PartVerdicts if self.parts else Verdicts)(store.client, store.line)
            where = "is new"
            with contextlib.suppress(NotFound):
                where = f"stands at {source.position(self.name)}"
            return f"line {store.line}: Redis answers; bridge {self.name} {where}"

        def port() -> str:
            from prometheus_client import CollectorRegistry

            server = self._server(CollectorRegistry(), None)
            server.close()
            return f"{self.settings.http_host}:{server.port} is free"

        codes = []
        for look in (port, line, transport.check):
            try:
                typer.echo(look())
            except GausslineError as error:
                codes.append(tell(error))
        if codes:
            raise typer.Exit(codes[0])

    def _retry_dead(self, transport: Transport) -> None:
        """Each letter once more, the oldest first; what is taken leaves the dead letters, what is refused stays."""
        store = self._store()
        letters = list(store.letters())
        taken = 0
        backoff = Backoff(lambda: 1.0, most_s=self.settings.bridge_backoff_max_s)
        with progress("dead letters") as bar:
            for letter in bar.track(letters, description=self.name):
                try:
                    parcel = parcel_of(letter.entry_id, store.line, {b"json": letter.body})
                    for tries in range(1, RETRY_TRIES + 1):
                        try:
                            transport.send(parcel)
                            break
                        except NotNow as error:
                            if tries == RETRY_TRIES:
                                raise
                            time.sleep(backoff.pause_s(tries, error.least_s))
                except (DeliveryError, ContractError) as error:
                    err().print(f"{letter.id}: {error}", highlight=False, markup=False, soft_wrap=True)
                    continue
                taken += store.remove([letter.letter_id])
        out().print(f"{taken} of {len(letters)} dead letters of bridge {self.name} were taken", highlight=False)
        if taken < len(letters):
            raise typer.Exit(NOT_ALL)

    def _deliver(self, transport: Transport) -> None:
        import prometheus_client as prometheus

        from gaussline.worker.bridge.observer import BridgeObserver, BridgeObservers
        from gaussline.worker.telemetry.bridges import STAGE, BridgeHealth, BridgeLog, BridgeMetrics
        from gaussline.worker.telemetry.health import Health
        from gaussline.worker.telemetry.logs import configure
        from gaussline.worker.tracing import open_spans

        settings = self.settings
        words = (*secrets_of(settings), *(word for word in self.secrets if word))
        logger = configure(settings.log_level, settings.log_format, secrets=words)
        prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = prometheus.CollectorRegistry()
        metrics, health = BridgeMetrics(registry, settings.line, self.name), Health(stages=(STAGE,))
        observers: list[BridgeObserver] = [metrics, BridgeHealth(health), BridgeLog(logger, self.name)]

        def trouble(error: Exception) -> None:
            for each in observers:
                each.trouble("trace", error)

        spans = open_spans(settings, "gaussline-bridge", self.name, on_trouble=trouble)
        if spans is not None:
            from gaussline.worker.telemetry.traces import BridgeTraces

            observers.append(BridgeTraces(spans))
        store = self._store()
        time_us(store.client)  # a Redis that is away, or refuses the login, is said at once
        delivery = Delivery(
            (PartVerdicts if self.parts else Verdicts)(store.client, store.line),
            store,
            transport,
            self._terms(),
            BridgeObservers(*observers),
        )
        metrics.watch(delivery.lag_s, lambda: delivery.waiting)
        stopping = threading.Event()

        def say(event: str, **fields: Any) -> None:
            logger.info(event, extra={"bridge": self.name, **fields})

        def stop(number: Signals) -> None:
            say("draining", signal=number.name, within_s=settings.drain_s)
            stopping.set()

        def quit_at_once(number: Signals) -> None:
            os._exit(128 + number)

        def reasons() -> tuple[str, ...]:
            return tuple(filter(None, (delivery.standing_by, delivery.redis_trouble, delivery.refused_why)))

        with self._server(registry, health, reasons) as server, on_signals(stop, quit_at_once):
            port = server.port
            say("started", line=settings.line, to=transport.place, http_host=settings.http_host, http_port=port)
            delivery.run(stopping)
        if spans is not None:
            spans.close()
        say("stopped", delivered=delivery.delivered)

    def _server(self, registry: Any, health: Any, reasons: Any = tuple) -> HealthServer:
        from gaussline.worker.telemetry.health import Health
        from gaussline.worker.telemetry.server import HealthServer

        return HealthServer(self.settings.http_host, self.http_port, registry, health or Health(), reasons)

    def _terms(self) -> Terms:
        settings = self.settings
        return Terms(
            window=settings.bridge_window,
            lanes=settings.bridge_lanes,
            backoff_most_s=settings.bridge_backoff_max_s,
            give_up_tries=settings.bridge_give_up_tries,
            give_up_s=settings.bridge_give_up_s,
            lease_s=settings.bridge_lease_s,
            drain_s=settings.drain_s,
            only=None if self.only is None else self.only.value,
            from_now=self.from_now,
        )
