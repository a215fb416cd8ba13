"""A worker's heartbeat: a key that dies with it, so that its messages are claimed soon and a living one's are not.

What beats is one life of a worker. A name may have several, one after the other: a supervisor, systemd and containers
start a worker that died again under the same name. The new one must not pass for the old one: what that had in its
hands would be thought to be in good ones, and a frame that kills would kill again and again.
"""

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

NAME_LETTERS = 53
"""Letters of a worker's name that stand in the name of its life, so that this is a name too."""


def life_of(worker: str) -> str:
    """A name for one life of a worker: what it takes messages by, and what its heart beats as."""
    return f"{worker[:NAME_LETTERS]}.{secrets.token_hex(5)}"


class Heartbeat:
    """Beats in its own thread, so that a long batch does not look like a death.

    Args:
        life: of the worker, see `life_of`; None for a worker whose name is never used again.
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
        life: str | None = None,
        period_s: float = 1.0,
        describe: Callable[[], dict[str, Any]] = dict,
        on_error: Callable[[BrokerError], None] = lambda error: None,
        on_loss: Callable[[BrokerError], None] = lambda error: None,
    ) -> None:
        self._client = client
        self._keys = Keys(line)
        self._worker = check_name("worker", worker)
        self._life = check_name("worker", life or worker)
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
        keys = [self._keys.worker(self._life), self._keys.workers, self._keys.totals]
        said, name = json.dumps(self._describe()), secrets.token_hex(8)
        args = [int(3000 * self._period_s), self._worker, said, name, self._life]
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
                self._client.delete(self._keys.worker(self._life))
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
        except Exception as error:  # the heart must outlive what nobody expected, or a living worker looks dead
            self._on_error(BrokerError(f"heartbeat: {type(error).__name__}: {error}"))
