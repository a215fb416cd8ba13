"""One Lua script: loaded from the package, called by its digest, sent again where the server has forgotten it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

import redis

from gaussline.worker.broker.client import Redis, translated


class Script:
    """A script by the name of its file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = (resources.files("gaussline.worker.broker.scripts") / f"{name}.lua").read_text("utf-8")
        self._sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Redis, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run it. Raises BrokerUnavailable, BrokerError."""
        with translated(self.name):
            try:
                return client.evalsha(self._sha, len(keys), *keys, *args)
            except redis.exceptions.NoScriptError:
                return client.eval(self.source, len(keys), *keys, *args)

    def queue(self, pipeline: Redis, keys: Sequence[str], args: Sequence[Any]) -> None:
        """Put a call into a pipeline; `ensure` must have been called on this connection's server."""
        pipeline.evalsha(self._sha, len(keys), *keys, *args)

    def ensure(self, client: Redis) -> None:
        """Load the script, so that pipelined calls by digest find it."""
        with translated(self.name):
            client.script_load(self.source)
