"""A line goes on when its master fails: one failover of each kind of set here, dozens of them in `make faults`."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from gaussline.worker.broker.admission import Admission, Request, Status
from gaussline.worker.broker.client import Redis, connect
from gaussline.worker.broker.ledger import read_ledger
from gaussline.worker.broker.replication import Waiting
from gaussline.worker.broker.script import Script
from gaussline.worker.broker.settle import Settlement, Settler
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.broker.whereabouts import slot_of
from gaussline.worker.contract.keys import Keys
from gaussline.worker.errors import BrokerUnavailable, Unreplicated
from tests.availability.conftest import LINE
from tests.contract.test_keys_and_page import all_keys
from tests.support.cli import Cli
from tests.support.replicated import DEPLOY, USERS, ClusterSet, SentinelSet, Topology
from tests.support.waiting import eventually


@pytest.fixture
def client(topology: Topology) -> Iterator[Redis]:
    """A client that asks nothing of the replicas; the line is empty."""
    made = connect(topology.url, timeout_s=2.0, line=LINE)
    for key in list(made.scan_iter("gl:*")):
        made.unlink(key)
    yield made
    made.close()


def door(client: Redis, camera: str = "cam1") -> tuple[Admission, int]:
    admission = Admission(client, LINE, camera, camera_budget_bytes=2**30, line_budget_bytes=2**30)
    return admission, admission.open()


def request_of(epoch: int, sequence: int) -> Request:
    return Request(epoch, sequence, 1, b"frame")


def take(client: Redis, worker: str = "w") -> list[Any]:
    from gaussline.worker.broker.intake import Intake

    return Intake(client, LINE, worker).take(max_frames=100, max_bytes=2**20)


def settle(client: Redis, message: Any) -> bool:
    name = f"{message.camera}:{message.epoch}:{message.first_sequence}"
    verdict = json.dumps({"id": name})[:-1]
    return Settler(client, LINE).settle([Settlement(message.camera, message.entry_id, [(name, "pass", verdict)])])[0]


def test_a_frame_goes_its_way(topology: Topology, client: Redis) -> None:
    admission, epoch = door(client)
    assert admission.admit(request_of(epoch, 0)).status is Status.ADMITTED
    (message,) = take(client)
    assert message.payload == b"frame"
    assert settle(client, message)
    assert [verdict["id"] for _, verdict in Verdicts(client, LINE).read("0-0")] == [f"cam1:{epoch}:0"]
    assert read_ledger(client, LINE).balances


def test_the_master_that_is_found_is_the_master(topology: Topology, client: Redis) -> None:
    master = topology.master()
    assert master is not None
    assert client.whereabouts.find()[1] == master.port
    assert int(client.info("replication")["connected_slaves"]) == 2
    assert client.clustered == isinstance(topology, ClusterSet)


def test_every_key_of_a_line_is_in_its_slot(topology: Topology, client: Redis) -> None:
    if not isinstance(topology, ClusterSet):
        return
    for key in all_keys(Keys(LINE)).values():
        assert client.execute_command("CLUSTER", "KEYSLOT", key) == slot_of(LINE), key


def test_a_script_that_the_new_master_never_had_is_sent_again(topology: Topology, client: Redis) -> None:
    for node in topology.shard():
        node.client().script_flush()
    admission, epoch = door(client)
    waiting = connect(topology.url, line=LINE, waiting=Waiting(1, 1.0))
    for node in topology.shard():
        node.client().script_flush()
    careful, _ = door(waiting, "cam2")
    assert careful.admit(request_of(1, 0)).replicated
    assert admission.admit(request_of(epoch, 0)).status is Status.ADMITTED
    assert Script("ledger").replicated(waiting, [f"gl:{{{LINE}}}:cameras"], [Keys(LINE).prefix])[1]


@pytest.mark.parametrize("hold", [True, False])
def test_too_few_replicas_hold_a_frame_or_are_told_of(topology: Topology, client: Redis, hold: bool) -> None:
    door(client)
    short = connect(topology.url, line=LINE, waiting=Waiting(3, 0.05, hold))  # there are two
    admission, epoch = door(short, "cam2")
    reader = Verdicts(short, LINE)
    if hold:
        with pytest.raises(Unreplicated, match=r"fewer than 3 replica\(s\) had it within 0.05 s"):
            admission.admit(request_of(epoch, 0))
        again, _ = Admission(client, LINE, "cam2", camera_budget_bytes=9, line_budget_bytes=9), None
        assert again.admit(request_of(epoch, 0)).status is Status.DUPLICATE, "it is in, and not twice"
    else:
        answer = admission.admit(request_of(epoch, 0))
        assert (answer.status, answer.replicated) == (Status.ADMITTED, False)
    (message,) = take(client)
    settler = Settler(short, LINE)
    name = f"cam2:{epoch}:0"
    assert settler.settle([Settlement("cam2", message.entry_id, [(name, "pass", json.dumps({"id": name})[:-1])])])
    assert settler.unreplicated == 1
    if hold:
        with pytest.raises(Unreplicated, match="reading verdicts"):
            reader.read("0-0")
    else:
        assert [verdict["id"] for _, verdict in reader.read("0-0")] == [name]
    enough = Verdicts(connect(topology.url, line=LINE, waiting=Waiting(2, 1.0)), LINE)
    assert [verdict["id"] for _, verdict in enough.read("0-0", block_s=1.0)] == [name]


def test_a_master_that_takes_no_writes_settles_nothing_and_says_so(topology: Topology, client: Redis) -> None:
    """Not "somebody else had settled it", after which a worker would let go of it."""
    admission, epoch = door(client)
    admission.admit(request_of(epoch, 0))
    (message,) = take(client)
    master = topology.master()
    assert master is not None
    before = master.client().config_get("min-replicas-to-write")
    master.client().config_set("min-replicas-to-write", 5)
    try:
        with pytest.raises(BrokerUnavailable, match="NOREPLICAS"):
            settle(client, message)
    finally:
        master.client().config_set("min-replicas-to-write", *before.values())
    assert settle(client, message)


def test_commands_take_such_urls_and_doctor_tells_the_topology(topology: Topology, client: Redis) -> None:
    cli = Cli(topology.url, LINE)
    door(client)
    assert json.loads(cli("ledger", "--json").stdout)["balances"]
    found = {each["what"]: each for each in json.loads(cli("doctor", "--json").stdout)}
    assert found["topology"]["level"] == "good"
    expected = "3 of 3 Sentinels answer" if isinstance(topology, SentinelSet) else f"slot {slot_of(LINE)} is held by"
    assert expected in found["topology"]["found"]
    assert "2 of 2 up to date" in found["replicas"]["found"]
    assert found["min-replicas-to-write"]["level"] == ("good" if isinstance(topology, SentinelSet) else "warning")
    assert "reliability.md" in found["wait_replicas"]["advice"]


def test_a_failover_is_followed(topology: Topology, client: Redis) -> None:
    """By idle connections, by one that blocks, and by a producer that knows nothing of it."""
    waiting = connect(topology.url, timeout_s=2.0, line=LINE, waiting=Waiting(1, 1.0))
    admission, epoch = door(waiting)
    assert admission.admit(request_of(epoch, 0)).status is Status.ADMITTED
    old = topology.master()
    assert old is not None
    old.signal(signal.SIGKILL)

    def admitted() -> bool:
        try:
            return admission.admit(request_of(epoch, 1)).status in (Status.ADMITTED, Status.DUPLICATE)
        except BrokerUnavailable:
            return False

    eventually(admitted, within_s=30.0, what="admission at a new master")
    assert topology.master() is not old
    eventually(lambda: len(take(waiting)) == 2, what="both frames at the new master")
    topology.restart()
    assert client.ping()


def test_a_demoted_master_is_left_by_those_who_are_still_connected(topology: Topology, client: Redis) -> None:
    admission, epoch = door(client)
    old = topology.master()
    assert old is not None
    topology.switch()

    def moved() -> bool:
        try:
            admission.admit(request_of(epoch, 0))
            return bool(client.whereabouts.find()[1] != old.port and topology.master() not in (None, old))
        except (BrokerUnavailable, redis.exceptions.ConnectionError):
            return False

    eventually(moved, within_s=30.0, what="a client at the new master")
    topology.restart()
    assert old.info()["role"] == "slave"


def test_the_files_of_deploy_are_what_runs(topology: Topology, client: Redis) -> None:
    for node in topology.shard():
        said = node.client().config_get("*")
        assert (said["maxmemory-policy"], said["appendonly"], said["min-replicas-max-lag"]) == (
            "noeviction",
            "yes",
            "3",
        )
        assert said["min-replicas-to-write"] == ("1" if isinstance(topology, SentinelSet) else "0")


def test_the_users_that_deploy_names_are_those_of_the_tests() -> None:
    lines = (DEPLOY / "replicated.conf").read_text("utf-8").replace("\n#     ", " ").splitlines()
    for name, rights in USERS.items():
        (line,) = [line for line in lines if line.startswith(f"#   user {name} ")]
        assert set(rights.split()) <= set(line.split()), name
