"""What `gaussline doctor` says of replicas: where the master is, who would take its place, and what that would lose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gaussline.worker.broker.client import Redis, translated
from gaussline.worker.broker.whereabouts import Sentinels, SlotOwner
from gaussline.worker.commands.finding import Finding, Level
from gaussline.worker.errors import BrokerError
from gaussline.worker.settings import Settings

LAG_S = 3
"""Seconds since a replica was heard of, beyond which it counts as away."""


def replication(client: Redis, settings: Settings) -> Iterator[Finding]:
    """The topology, its replicas, and whether the settings fit them."""
    where = getattr(client, "whereabouts", None)
    info = _ask(lambda: client.info("replication"))
    if isinstance(info, str):
        yield Finding("replicas", Level.WARNING, info, "let this user run INFO, to be told more")
        return
    followers = [info[f"slave{place}"] for place in range(int(info.get("connected_slaves", 0)))]
    online = [one for one in followers if one.get("state") == "online" and int(one.get("lag", 0)) <= LAG_S]
    if isinstance(where, Sentinels):
        yield from _sentinels(where)
    elif isinstance(where, SlotOwner):
        yield from _cluster(client, where)
    else:
        found = "one server" if not online else f"one server, with {len(online)} replica(s)"
        advice = "redis+sentinel://… follows the master when a replica takes its place; this URL does not"
        yield Finding("topology", Level.WARNING if online else Level.GOOD, found, advice if online else "")
    if where is None and not online and not settings.wait_replicas:
        return  # a server alone, and nobody asks for more
    names = ", ".join(f"{one.get('ip')}:{one.get('port')} ({one.get('lag')} s behind)" for one in followers)
    yield Finding(
        "replicas",
        Level.GOOD if len(online) > 1 else Level.WARNING if online else Level.FAULT,
        f"{len(online)} of {len(followers)} up to date" + (f": {names}" if names else ""),
        {0: "there is nobody to take the master's place: start a replica", 1: "with two, one may be down"}.get(
            len(online), ""
        ),
    )
    yield from _minimum(client, len(online))
    yield _waiting(settings, len(online))


def _sentinels(where: Sentinels) -> Iterator[Finding]:
    said = where.states()
    places = sorted({f"{one['ip']}:{one['port']}" for one in said})
    total = max((int(one["num-other-sentinels"]) + 1 for one in said), default=0)
    quorum = int(said[0]["quorum"]) if said else 0
    found = f"{len(said)} of {total} Sentinels answer (quorum {quorum}); {where.service!r} is {' or '.join(places)}"
    if len(places) > 1:
        yield Finding(
            "topology", Level.FAULT, found, "Sentinels disagree: a failover is under way, or they are cut off"
        )
    elif total < 3 or 2 * len(said) <= total:
        advice = "three on machines of their own: a majority must live to choose a master"
        yield Finding("topology", Level.WARNING, found, advice)
    else:
        yield Finding("topology", Level.GOOD, found)


def _cluster(client: Redis, where: SlotOwner) -> Iterator[Finding]:
    host, port = where.find()
    state = _ask(lambda: client.execute_command("CLUSTER", "INFO"))
    text = state.decode() if isinstance(state, bytes) else str(state)
    known = dict(line.split(":", 1) for line in text.splitlines() if ":" in line) if "cluster_state" in text else {}
    found = f"Cluster: the line's slot {where.slot} is held by {host}:{port}"
    if known:
        found += f"; state {known['cluster_state']}, {known.get('cluster_size', '?')} masters"
    good = known.get("cluster_state", "ok") == "ok"
    yield Finding(
        "topology",
        Level.GOOD if good else Level.FAULT,
        found,
        "" if good else "redis-cli --cluster check says which slots",
    )


def _minimum(client: Redis, online: int) -> Iterator[Finding]:
    read = _ask(lambda: client.config_get("min-replicas-*"))
    if not isinstance(read, Mapping) or "min-replicas-to-write" not in read:
        return  # not every user may ask
    least, lag_s = int(read["min-replicas-to-write"]), int(read.get("min-replicas-max-lag", 10))
    if least == 0:
        yield Finding(
            "min-replicas-to-write",
            Level.WARNING,
            "0: a master that was cut off goes on admitting frames, which are lost when it comes back",
            "with two replicas: config set min-replicas-to-write 1 and min-replicas-max-lag 3, on every server",
        )
    elif online <= least:
        advice = (
            "one replica more, or writes stop when one is down"
            if online == least
            else "start replicas: nothing is written"
        )
        level = Level.WARNING if online == least else Level.FAULT
        yield Finding("min-replicas-to-write", level, f"{least}, and {online} up to date", advice)
    else:
        yield Finding(
            "min-replicas-to-write", Level.GOOD, f"{least} within {lag_s} s: a master that was cut off stops then"
        )


def _waiting(settings: Settings, online: int) -> Finding:
    asked = settings.wait_replicas
    if asked == 0:
        found = "0: at a failover frames may be lost, and verdicts come twice, that no replica had yet"
        return Finding(
            "wait_replicas", Level.GOOD, found, "1 makes both rare; see docs/reliability.md, High availability"
        )
    if asked > online:
        held = settings.wait_policy == "hold"
        return Finding(
            "wait_replicas",
            Level.FAULT if held else Level.WARNING,
            f"{asked}, and {online} up to date",
            "producers and subscribers wait for replicas: start them, or set GAUSSLINE_WAIT_POLICY=go_on"
            if held
            else "every frame is counted as unreplicated: start replicas",
        )
    return Finding(
        "wait_replicas", Level.GOOD, f"{asked} of {online} replicas, for {settings.wait_timeout_s:g} s a time"
    )


def _ask(call: Callable[[], Any]) -> Any:
    try:
        with translated("asking Redis about itself"):
            return call()
    except BrokerError as error:
        return str(error)
