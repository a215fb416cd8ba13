"""A worker's heartbeat: a key that dies with it, so that its messages are claimed soon and a living one's are not."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from typing import Any

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.broker.script import Script
from gaussline.worker.contract.keys import Keys, check_name
from gaussline.worker.errors import BrokerError


class Heartbeat:
    """Beats in its own thread, so that a long batch does not look like a death.

    Args:
        period_s: time between beats; three missed ones are a death.
        describe: what to tell of the worker (device, model versions), JSON-able.
        on_error: told of a beat that failed.
        on_loss: told, once, where Redis has lost the line's data since the beat before, whoever beat first afterwards.
    """

    def __init__(
        self,
        client: Redis,
        line: str,
        worker: str,
        *,
        period_s: float = 1.0,
        describe: Callable[[], dict[str, Any]] = dict,
        on_error: Callable[[BrokerError], None] = lambda error: None,
        on_loss: Callable[[BrokerError], None] = lambda error: None,
    ) -> None:
        self._client = client
        self._keys = Keys(line)
        self._worker = check_name("worker", worker)
        self._period_s = period_s
        self._describe = describe
        self._on_error = on_error
        self._on_loss = on_loss
        self._born = b""
        self._beat = Script("beat")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Beat once, so that the worker is alive before it takes anything, then go on beating.

        Where Redis cannot be reached just now nothing can be taken either: `on_error` is told, and the next beat tries.
        """
        self._try()
        self._thread.start()

    def beat(self) -> None:
        """One beat."""
        keys = [self._keys.worker(self._worker), self._keys.workers, self._keys.totals]
        args = [int(3000 * self._period_s), self._worker, json.dumps(self._describe()), secrets.token_hex(8)]
        before, self._born = self._born, self._beat(self._client, keys, args)
        if before and before != self._born:
            self._on_loss(
                BrokerError(
                    f"Redis has lost all data of line {self._keys.line} (FLUSHALL, or a start without its append-only "
                    "file): frames that were admitted before and not judged are gone, and so are the models: publish "
                    "and promote them again"
                )
            )

    def stop(self) -> None:
        """Stop, and be dead at once."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        try:
            with translated("heartbeat"):
                self._client.delete(self._keys.worker(self._worker))
                self._client.hdel(self._keys.workers, self._worker)
        except BrokerError as error:
            self._on_error(error)  # the key dies by itself

    def _run(self) -> None:
        while not self._stopping.wait(self._period_s):
            self._try()

    def _try(self) -> None:
        try:
            self.beat()
        except BrokerError as error:
            self._on_error(error)
