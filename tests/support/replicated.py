"""Redis servers that replace each other: a master with replicas under Sentinels, and a Cluster. On loopback.

They run with the files of deploy/redis, but for ports, names and shorter times.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import redis

from gaussline.worker.broker.whereabouts import SLOTS, slot_of
from tests.support.proxy import Proxy
from tests.support.redis_node import Node, Secure
from tests.support.repository import ROOT
from tests.support.waiting import eventually

DEPLOY: Final = ROOT / "deploy" / "redis"
NAME: Final = "gaussline"
"""What the Sentinels call the master."""
DOWN_MS: Final = 600
"""Silence after which a master counts as down."""


def free_ports(count: int) -> list[int]:
    """So many ports of 127.0.0.1 that nobody listens on."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(listener.getsockname()[1]) for listener in listeners]


class Topology:
    """What both have in common: servers of which one is the line's master."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._others: list[Node] = []
        self.url = ""

    def master(self) -> Node | None:
        """The line's master as everybody sees it, None while there is none."""
        raise NotImplementedError

    def shard(self) -> list[Node]:
        """The servers that may be the line's master."""
        return self.nodes

    def replicas(self) -> list[Node]:
        """Those of them that are not."""
        master = self.master()
        return [node for node in self.shard() if node is not master]

    def whole(self) -> bool:
        """There is a master, and every other server of the shard follows it and is up to date."""
        master = self.master()
        if master is None:
            return False
        info = master.info()
        online = [info.get(f"slave{place}", {}) for place in range(len(self.shard()))]
        return (
            info.get("role") == "master"
            and sum(one.get("state") == "online" for one in online) == len(self.shard()) - 1
        )

    def await_whole(self) -> None:
        """Until it is."""
        eventually(self.whole, within_s=40.0, what="a master with all its replicas")

    def restart(self) -> None:
        """Start every server that was killed, let every stopped one go on, and wait until all is as it should be."""
        for node in [*self.nodes, *self._others]:
            node.signal(signal.SIGCONT)
            node.start()
        self._rejoin()
        self.await_whole()

    def _rejoin(self) -> None:
        """What an old master is told, where it would take long to find out by itself."""

    def switch(self) -> None:
        """Begin a failover on purpose; a refusal (one is just ending, say) is asked again."""

        def begun() -> bool:
            try:
                self._switch()
            except redis.exceptions.ResponseError:
                return False
            return True

        eventually(begun, within_s=20.0, what="a failover on purpose")

    def _switch(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """End every process."""
        for node in [*self._others, *self.nodes]:
            node.signal(signal.SIGKILL)

    def __enter__(self) -> Topology:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


USERS: Final = {
    "replica": "+psync +replconf +ping",
    "sentinel": "allchannels +multi +exec +slaveof +ping +subscribe +config|rewrite +role +publish +info "
    "+client|setname +client|kill +script|kill",
}
"""What deploy/redis/replicated.conf says that these two need."""


class SentinelSet(Topology):
    """A master, replicas, and three Sentinels, with users of their own.

    Args:
        secure: they speak TLS.
    """

    def __init__(self, folder: Path, *, replicas: int = 2, secure: Secure | None = None) -> None:
        super().__init__()
        ports = free_ports(4 + replicas)
        first = f"127.0.0.1 {ports[3]}"
        users = [f"user {name} on >word resetkeys -@all {rights}" for name, rights in USERS.items()]
        users += ["user default off", "user line on >word ~* &* +@all"]
        lines = [*users, "masteruser replica", "masterauth word"]
        login = {"username": "line", "password": "word"}
        for place, port in enumerate(ports[3:]):
            follows = [f"replicaof {first}"] if place else []
            conf, own = DEPLOY / "replicated.conf", [*lines, *follows]
            self.nodes.append(Node(folder / f"redis{place}", port, conf, own, secure=secure, login=login))
        watch = [line.replace("10.0.0.5 6379", first) for line in _sentinel_lines()]
        watch += [f"sentinel down-after-milliseconds {NAME} {DOWN_MS}", f"sentinel failover-timeout {NAME} 4000"]
        watch += [f"sentinel auth-user {NAME} sentinel", f"sentinel auth-pass {NAME} word"]
        for place, port in enumerate(ports[:3]):
            conf = DEPLOY / "sentinel.conf"
            self._others.append(Node(folder / f"sentinel{place}", port, conf, watch, sentinel=True, secure=secure))
        places = ",".join(node.address for node in self._others)
        self.url = f"redis{'s' if secure else ''}+sentinel://line:word@{places}/{NAME}"
        try:
            for node in self.nodes:
                node.start()
            eventually(lambda: self.nodes[0].info().get("connected_slaves") == replicas, what="replicas")
            for node in self._others:
                node.start()
            eventually(self._acquainted, what="Sentinels that know each other and the replicas")
            self.await_whole()
        except BaseException:
            self.close()
            raise

    @property
    def sentinels(self) -> list[Node]:
        """The Sentinels."""
        return self._others

    @contextlib.contextmanager
    def lossy(self, master: Node) -> Iterator[Proxy]:
        """Replicas that follow their master through what a test may make swallow bytes, for some seconds.

        Then Sentinels lead them past it. What it has swallowed is gone, as in a network that failed.
        """
        with Proxy(("127.0.0.1", master.port)) as proxy:
            replicas = self.replicas()
            for replica in replicas:
                replica.client().execute_command("REPLICAOF", "127.0.0.1", proxy.port)

            def led() -> bool:
                told = [replica.info() for replica in replicas]
                return all(one.get("master_port") == proxy.port and one["master_link_status"] == "up" for one in told)

            eventually(led, what="replicas behind the proxy")
            self.await_whole()
            yield proxy

    def lose_sight(self, master: Node) -> Callable[[], None]:
        """Sentinels cannot reach a master any more, its clients can; what is returned undoes it."""
        admin = master.client()
        admin.acl_setuser("sentinel", enabled=False)
        admin.client_kill_filter(user="sentinel")
        return lambda: admin.acl_setuser("sentinel", enabled=True)

    def _switch(self) -> None:
        self._others[0].client().execute_command("SENTINEL", "FAILOVER", NAME)

    def _acquainted(self) -> bool:
        said = [node.client().sentinel_master(NAME) for node in self._others]
        return all(
            one["num-other-sentinels"] == len(said) - 1 and one["num-slaves"] == len(self.nodes) - 1 for one in said
        )

    def _rejoin(self) -> None:
        # Sentinels do the same, after some eight seconds.
        master = eventually(self.master, within_s=30.0, what="a master")
        assert master is not None
        for node in self.nodes:
            if node is not master and node.info().get("role") == "master":
                node.client().execute_command("REPLICAOF", "127.0.0.1", master.port)

    def master(self) -> Node | None:
        """As a majority of the Sentinels sees it."""
        ports = []
        for node in self._others:
            with contextlib.suppress(redis.exceptions.RedisError, OSError):
                ports.append(int(node.client().sentinel_master(NAME)["port"]))
        found = max(set(ports), key=ports.count, default=0)
        if 2 * ports.count(found) <= len(self._others):
            return None
        master = next(node for node in self.nodes if node.port == found)
        return master if master.up and master.info().get("role") == "master" else None


def _sentinel_lines() -> list[str]:
    """What the deployed file says of the master."""
    text = (DEPLOY / "sentinel.conf").read_text("utf-8")
    return [line for line in text.splitlines() if line.startswith("sentinel ")]


class ClusterSet(Topology):
    """Three masters with a third of the slots each; the line's one has replicas.

    Redis 7: the Cluster's own port and whole ranges of slots.
    """

    def __init__(self, folder: Path, line: str, *, replicas: int = 2, secure: Secure | None = None) -> None:
        super().__init__()
        self.slot = slot_of(line)
        ports, buses = free_ports(3 + replicas), free_ports(3 + replicas)
        # A replica that leaves for a master of other slots would be missed in this shard, after a few failovers.
        short = [f"cluster-node-timeout {DOWN_MS}", "cluster-allow-replica-migration no"]
        short += ["tls-cluster yes"] if secure else []
        for place, (port, bus) in enumerate(zip(ports, buses, strict=True)):
            own = [f"cluster-port {bus}", "cluster-announce-ip 127.0.0.1", *short]
            self.nodes.append(Node(folder / f"node{place}", port, DEPLOY / "cluster.conf", own, secure=secure))
        self.url = f"redis{'s' if secure else ''}+cluster://{','.join(node.address for node in self.nodes[:3])}"
        try:
            self._found(replicas, buses)
        except BaseException:
            self.close()
            raise

    def _found(self, replicas: int, buses: list[int]) -> None:
        """Make a Cluster of the nodes."""
        for node in self.nodes:
            node.start()
        third = SLOTS // 3
        for place, master in enumerate(self.nodes[:3]):
            last = SLOTS - 1 if place == 2 else (place + 1) * third - 1
            master.client().execute_command("CLUSTER", "ADDSLOTSRANGE", place * third, last)
            master.client().execute_command("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
        for node, bus in zip(self.nodes[1:], buses[1:], strict=True):
            self.nodes[0].client().execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        eventually(lambda: all(self._known(node) == len(self.nodes) for node in self.nodes), what="nodes that know all")
        owner = self.nodes[min(2, self.slot // third)]
        name = owner.client().execute_command("CLUSTER", "MYID")
        for node in self.nodes[3:]:
            node.client().execute_command("CLUSTER", "REPLICATE", name)
        eventually(lambda: all(self._ok(node) for node in self.nodes), what="a Cluster whose state is ok")
        self.await_whole()

    @staticmethod
    def _known(node: Node) -> int:
        text: str = node.client().execute_command("CLUSTER", "NODES", NEVER_DECODE=True).decode()
        return sum("handshake" not in line for line in text.splitlines())

    @staticmethod
    def _ok(node: Node) -> bool:
        return b"cluster_state:ok" in node.client().execute_command("CLUSTER", "INFO", NEVER_DECODE=True)

    def owners(self) -> Iterator[int]:
        """The port of the line's master, as each node that answers sees it."""
        for node in self.nodes:
            with contextlib.suppress(redis.exceptions.RedisError, OSError):
                for first, last, master, *_ in node.client().execute_command("CLUSTER", "SLOTS"):
                    if first <= self.slot <= last:
                        yield int(master[1])

    def master(self) -> Node | None:
        """As most nodes see it."""
        ports = list(self.owners())
        found = max(set(ports), key=ports.count, default=0)
        if 2 * ports.count(found) <= len(self.nodes):
            return None
        master = next(node for node in self.nodes if node.port == found)
        return master if master.up and master.info().get("role") == "master" else None

    def shard(self) -> list[Node]:
        """The masters of the other slots do not count."""
        master = self.master()
        names = {node.port for node in self.nodes[3:]}
        return [node for node in self.nodes if node.port in names or node is master or node is self._first()]

    def _first(self) -> Node:
        return self.nodes[min(2, self.slot // (SLOTS // 3))]

    def refuse_replicas(self, master: Node) -> None:
        """A master of a Cluster loses its replicas, and goes on without: until it is started again."""
        admin = master.client()
        admin.acl_setuser("default", commands=["-psync", "-sync"])
        admin.client_kill_filter(_type="replica")

    def _switch(self) -> None:
        self.replicas()[-1].client().execute_command("CLUSTER", "FAILOVER")

    def move_slot(self, pause: Callable[[], object]) -> Node:
        """Move the line's slot to a master of other slots, key by key, with a pause after each; the new owner."""
        source = self.master()
        assert source is not None
        target = next(node for node in self.nodes[:3] if node is not self._first())
        ids = {node: node.client().execute_command("CLUSTER", "MYID") for node in (source, target)}
        target.client().execute_command("CLUSTER", "SETSLOT", self.slot, "IMPORTING", ids[source])
        source.client().execute_command("CLUSTER", "SETSLOT", self.slot, "MIGRATING", ids[target])
        while keys := source.client().execute_command("CLUSTER", "GETKEYSINSLOT", self.slot, 1):
            source.client().execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            pause()
        for node in (target, source, *self.nodes):
            with contextlib.suppress(redis.exceptions.ResponseError):  # replicas are told by their masters
                node.client().execute_command("CLUSTER", "SETSLOT", self.slot, "NODE", ids[target])
        return target
