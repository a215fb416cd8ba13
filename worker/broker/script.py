"""One Lua script: loaded from the package, called by its digest, sent again where the server has forgotten it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import redis

from gaussline.worker.broker.client import Redis, translated


class Script:
    """A script by the name of its file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = _source(name)
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


_INCLUDE = re.compile(r"^-- include: (\w+)$", re.MULTILINE)


def _source(name: str) -> str:
    """A script's text; one that it includes stands before it, as a function of KEYS and ARGV by its own name."""
    text = (resources.files("gaussline.worker.broker.scripts") / f"{name}.lua").read_text("utf-8")
    inner = [f"local function {other}(KEYS, ARGV)\n{_source(other)}\nend\n" for other in _INCLUDE.findall(text)]
    return "".join([*inner, text])
