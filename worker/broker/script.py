"""One Lua script: loaded from the package, called by its digest, sent again where the server has forgotten it.

In a Cluster a slot moves to another node key by key, and a script that ran meanwhile could see half of a line, or fail
between two of its writes. So there every call declares one key more, that never exists: while the slot moves, the
node that gives it away misses that key and refuses the script before it begins (ASK, TRYAGAIN), and the node that
takes it refuses it too. The line waits until the slot has moved, and nothing is half done.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

import redis

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.broker.replication import Waiting, waiting_of
from gaussline.worker.contract.keys import ABSENT


class Script:
    """A script by the name of its file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = _source(name)
        self._sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Redis, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run it. Raises BrokerUnavailable, BrokerError."""
        keys = _guarded(client, keys)
        with translated(self.name):
            try:
                return client.evalsha(self._sha, len(keys), *keys, *args)
            except redis.exceptions.NoScriptError:
                return client.eval(self.source, len(keys), *keys, *args)

    def replicated(self, client: Redis, keys: Sequence[str], args: Sequence[Any]) -> tuple[Any, bool]:
        """Run it, and wait for the replicas that the client asks for: the answer, and whether they have it.

        Raises like a plain call.
        """
        waiting = waiting_of(client)
        if not waiting:
            return self(client, keys, args), True
        keys = _guarded(client, keys)
        with translated(self.name):
            try:
                return self._waited(client, waiting, "EVALSHA", self._sha, len(keys), *keys, *args)
            except redis.exceptions.NoScriptError:
                return self._waited(client, waiting, "EVAL", self.source, len(keys), *keys, *args)

    def _waited(self, client: Redis, waiting: Waiting, *command: Any) -> tuple[Any, bool]:
        # One pipeline is one connection, and WAIT is about the writes of its own connection.
        pipeline = client.pipeline(transaction=False)
        pipeline.execute_command(*command)
        pipeline.execute_command(*waiting.command)
        answer, replicas = pipeline.execute(raise_on_error=False)
        for item in (answer, replicas):
            if isinstance(item, Exception):
                raise item
        return answer, int(replicas) >= waiting.replicas

    def queue(
        self, pipeline: Redis, client: Redis, keys: Sequence[str], args: Sequence[Any], *, whole: bool = False
    ) -> None:
        """Put a call into a pipeline of the client's: by digest, or the `whole` text, which nobody can forget."""
        keys = _guarded(client, keys)
        if whole:
            pipeline.eval(self.source, len(keys), *keys, *args)
        else:
            pipeline.evalsha(self._sha, len(keys), *keys, *args)


def _guarded(client: Redis, keys: Sequence[str]) -> Sequence[str]:
    """The keys, and in a Cluster the one that never exists."""
    if not getattr(client, "clustered", False):
        return keys
    tag = keys[0][: keys[0].index("}") + 1]
    return [*keys, f"{tag}:{ABSENT}"]


_INCLUDE = re.compile(r"^-- include: (\w+)$", re.MULTILINE)


def _source(name: str) -> str:
    """A script's text; one that it includes stands before it, as a function of KEYS and ARGV by its own name."""
    text = (resources.files("gaussline.worker.broker.scripts") / f"{name}.lua").read_text("utf-8")
    inner = [f"local function {other}(KEYS, ARGV)\n{_source(other)}\nend\n" for other in _INCLUDE.findall(text)]
    return "".join([*inner, text])
