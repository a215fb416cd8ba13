"""Where the master of a line is just now: asked of Sentinels, or of the nodes of a Cluster, at every connection.

Nothing is remembered that could be wrong for long: a new connection asks, one that has been open for a while asks
again, a hint (MOVED) is used once, and who has answered last is asked first.
"""

from __future__ import annotations

import binascii
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import redis

from gaussline.worker.broker.address import Node

SLOTS: Final = 16384
ASK_S: Final = 1.0
"""Longest wait for one Sentinel or node to say where the master is: there are others to ask."""

LOOK_AGAIN_S: Final = 5.0
"""So often an open connection asks whether its server is still the master."""

Client = Any
Open = Callable[[str, int], Client]
"""Makes a client of one Sentinel, or of one node."""


def slot_of(line: str) -> int:
    """The slot of every key of a line: CRC-16 (XMODEM) of its hash tag modulo 16384, by the Cluster specification."""
    return binascii.crc_hqx(line.encode(), 0) % SLOTS


class Whereabouts(ABC):
    """Finds the master. Thread-safe."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._last: Node | None = None
        self._master: Node | None = None
        self._hint: Node | None = None
        self._look_at_s = 0.0
        self.generation = 0
        """Grows whenever the master may have moved: connections of an earlier one are closed before they are used."""
        self.moves = 0
        """Grows whenever another server is the master than before."""

    def find(self) -> Node:
        """Host and port of the master now. Raises redis-py's ConnectionError where nobody knows of one."""
        with self._lock:
            hint, self._hint = self._hint, None
            found = hint or self._ask()
            self._found(found)
            self._look_at_s = self._monotonic() + LOOK_AGAIN_S
            return found

    def _found(self, found: Node) -> None:
        if found != self._last:
            self._last = found
            self.generation += 1
        self.moves += self._master not in (None, found)
        self._master = found

    def look_again(self) -> None:
        """Whether the master is another one by now, asked every few seconds; never raises.

        An old master that is cut off from everybody but us answers whoever only reads, and has nothing new to say.
        """
        if self._monotonic() < self._look_at_s or not self._lock.acquire(blocking=False):
            return
        began_s = self._monotonic()
        try:
            self._found(self._ask_again())
        except (redis.exceptions.RedisError, OSError):
            pass  # nobody knows of a better one
        finally:
            now_s = self._monotonic()
            # Where nobody answers, asking must not become what we do all day.
            self._look_at_s = now_s + max(LOOK_AGAIN_S, 30 * (now_s - began_s))
            self._lock.release()

    def forget(self, hint: Node | None = None) -> None:
        """The one that was found is no master any more, or does not answer; `hint` is where it is said to be now."""
        with self._lock:
            self._last = None
            self._hint = hint
            self.generation += 1

    @abstractmethod
    def _ask(self) -> Node:
        """Ask until somebody knows."""

    def _ask_again(self) -> Node:
        """The same, of somebody who is connected."""
        return self._ask()


class Sentinels(Whereabouts):
    """Asks Sentinels: as many as are needed for a majority, and believes the one with the newest configuration.

    One Sentinel alone may be cut off together with an old master, and know of no failover.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        service: str,
        open_: Open,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(monotonic=monotonic)
        self.service = service
        self._nodes = list(nodes)
        self._open = open_
        self._epoch = -1
        self._clients: dict[Node, Client] = {}

    def _ask(self) -> Node:
        answers: list[Mapping[str, Any]] = []
        silent: list[Node] = []
        why = ""
        for node in list(self._nodes):
            try:
                answers.append(self._client(node).sentinel_master(self.service))
            except redis.exceptions.ResponseError as error:
                why = f"Sentinel {node[0]}:{node[1]}: {error}"
            except (redis.exceptions.RedisError, OSError) as error:
                silent.append(node)
                why = f"Sentinel {node[0]}:{node[1]}: {error}"
            if 2 * len(answers) > max((int(answer["num-other-sentinels"]) + 1 for answer in answers), default=0):
                break
        self._nodes = [node for node in self._nodes if node not in silent] + silent
        if not answers:
            raise redis.exceptions.ConnectionError(f"no Sentinel knows the master {self.service!r} ({why})")
        newest = self._epoch = max(int(answer["config-epoch"]) for answer in answers)
        best = [answer for answer in answers if int(answer["config-epoch"]) == newest]
        if 2 * sum(bool(answer["is_sdown"]) for answer in best) > len(best):
            raise redis.exceptions.ConnectionError(
                f"the master {self.service!r} is down, say its Sentinels; they have not chosen another yet"
            )
        return str(best[0]["ip"]), int(best[0]["port"])

    def _ask_again(self) -> Node:
        before = self._epoch
        found = self._ask()
        if self._epoch < before:  # one that is cut off with an old master; whoever knows better is silent
            self._epoch = before
            raise redis.exceptions.ConnectionError("the Sentinels that answer know of no newer master")
        return found

    def _client(self, node: Node) -> Client:
        if node not in self._clients:
            self._clients[node] = self._open(*node)
        return self._clients[node]

    def states(self) -> list[Mapping[str, Any]]:
        """What each Sentinel that answers says of the master, for `gaussline doctor`."""
        said = []
        for node in list(self._nodes):
            try:
                said.append(self._client(node).sentinel_master(self.service))
            except (redis.exceptions.RedisError, OSError):
                continue
        return said


class SlotOwner(Whereabouts):
    """Asks nodes of a Cluster who holds the line's slot."""

    def __init__(self, nodes: Iterable[Node], line: str, open_: Open) -> None:
        super().__init__()
        self.slot = slot_of(line)
        self._seeds = list(nodes)
        self._nodes = list(self._seeds)
        self._open = open_

    def _ask(self) -> Node:
        why = ""
        for node in list(self._nodes):
            client = self._open(*node)
            try:
                table = client.execute_command("CLUSTER", "SLOTS")
            except (redis.exceptions.RedisError, OSError) as error:
                why = f"{node[0]}:{node[1]}: {error}"
                self._doubt()
                continue
            finally:
                client.close()
            found = self._learn(node, table)
            if found is not None:
                return found
            why = f"{node[0]}:{node[1]}: slot {self.slot} has no owner"
            self._doubt()
        raise redis.exceptions.ConnectionError(f"no node of the Cluster knows who holds the line's slot ({why})")

    def _learn(self, asked: Node, table: Any) -> Node | None:
        """The owner of our slot; every node that is named is one to ask next time."""
        owner = None
        known = [asked]
        for first, last, *nodes in table:
            places = [(_host(node[0]) or asked[0], int(node[1])) for node in nodes]
            known += [place for place in places if place not in known]
            if int(first) <= self.slot <= int(last) and places:
                owner = places[0]
        self._nodes = known + [node for node in self._seeds if node not in known]
        return owner

    def look_again(self) -> None:
        """Not needed: a node that is cut off from the others refuses to be read, and the others name the owner."""

    def forget(self, hint: Node | None = None) -> None:
        """Besides: whoever was believed last may be wrong, so another one is asked first."""
        super().forget(hint)
        with self._lock:
            self._doubt()

    def _doubt(self) -> None:
        self._nodes = self._nodes[1:] + self._nodes[:1]


def _host(raw: Any) -> str:
    """A node's endpoint; empty where it is not known, which means the host that was asked."""
    text = raw.decode() if isinstance(raw, bytes) else str(raw or "")
    return "" if text == "?" else text
