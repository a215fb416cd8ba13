"""The delivery on a real Redis, with receivers that misbehave on purpose."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from gaussline.worker.bridge.delivery import Delivery, Terms
from gaussline.worker.bridge.observer import BridgeObserver
from gaussline.worker.bridge.parcel import Parcel
from gaussline.worker.broker.bridge_store import BridgeStore
from gaussline.worker.broker.client import connect
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.verdicts import PartVerdicts, Verdicts
from gaussline.worker.errors import NotNow, Undeliverable
from tests.bridge.line import check, publish, stands
from tests.broker.way import Way
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

QUICK = Terms(backoff_most_s=0.02, lease_s=1.0)


class Receiver:
    """A transport that keeps what it gets; `answer` may raise."""

    lanes = 8
    place = "a list"

    def __init__(self, answer: Callable[[Parcel], None] = lambda parcel: None) -> None:
        self.answer = answer
        self.got: list[tuple[str, str]] = []
        self.tried: list[str] = []
        self.under_way = self.most_under_way = 0
        self._lock = threading.Lock()

    def send(self, parcel: Parcel) -> None:
        with self._lock:
            self.tried.append(parcel.id)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            self.answer(parcel)
            with self._lock:
                self.got.append((str(parcel.part), parcel.id))
        finally:
            with self._lock:
                self.under_way -= 1

    def check(self) -> str:
        return "there"

    def close(self) -> None:
        pass


class Told(BridgeObserver):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.roles: list[str] = []
        self.dead: list[tuple[str, str]] = []
        self.gaps: list[tuple[str, str]] = []

    def holding(self, said: str) -> None:
        self.roles.append(said)

    def buried(self, parcel: Parcel, said: str, dropped: int) -> None:
        self.dead.append((parcel.id, said))

    def gap(self, after: str, upto: str) -> None:
        self.gaps.append((after, upto))


def bridge(
    way: Way, receiver: Receiver, terms: Terms = QUICK, *, owner: str = "one", url: str = "", **more: Any
) -> Delivery:
    client = connect(url, timeout_s=1.0) if url else way.client
    store = BridgeStore(client, way.line, "mes", owner, more.pop("dead_max_bytes", 2**20))
    source = more.pop("source", Verdicts)(client, way.line)
    return Delivery(source, store, receiver, terms, more.pop("observer", None), **more)


@contextmanager
def running(delivery: Delivery) -> Iterator[threading.Event]:
    stopping = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            delivery.run(stopping)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield stopping
    finally:
        stopping.set()
        thread.join(20)
        assert not thread.is_alive()
        assert failed == []


def has(receiver: Receiver, least: int) -> bool:
    return len(receiver.got) >= least


def letters(way: Way) -> list[str]:
    return [letter.id for letter in BridgeStore(way.client, way.line, "mes").letters()]


def test_a_receiver_that_fails_at_random_gets_everything_in_order(way: Way) -> None:
    calls = iter(range(10**6))

    def answer(parcel: Parcel) -> None:
        number = next(calls)
        if number % 3 == 0:
            raise NotNow("busy", whole=number % 2 == 0)

    receiver = Receiver(answer)
    ids = publish(way, 120)
    with running(bridge(way, receiver, Terms(window=16, backoff_most_s=0.01, lease_s=1.0, give_up_tries=0))):
        ids += publish(way, 120, first=120)
        eventually(lambda: stands(way, "mes"))
    check(receiver.got, ids)
    assert len(receiver.got) == 240, "no crash, no repeat"
    assert letters(way) == []


def test_a_verdict_that_is_refused_for_good_goes_to_the_dead_letters_and_the_line_goes_on(way: Way) -> None:
    ids = publish(way, 30)
    bad = ids[3]
    told = Told()

    def answer(parcel: Parcel) -> None:
        if parcel.id == bad:
            raise Undeliverable("HTTP 422: no such part")

    receiver = Receiver(answer)
    with running(bridge(way, receiver, observer=told)):
        eventually(lambda: stands(way, "mes"))
    check(receiver.got, [identity for identity in ids if identity != bad])
    assert receiver.tried.count(bad) == 1
    assert told.dead == [(bad, "HTTP 422: no such part")]
    (letter,) = BridgeStore(way.client, way.line, "mes").letters()
    assert (letter.id, letter.why, json.loads(letter.body)["part"]) == (bad, "HTTP 422: no such part", "P3")


def test_a_verdict_that_the_receiver_never_takes_is_given_up_while_others_are_taken(way: Way) -> None:
    stuck = publish(way, 1, parts=1)[0]  # of part P0, before all others
    ids = [stuck]

    def answer(parcel: Parcel) -> None:
        if parcel.id == stuck:
            raise NotNow("HTTP 500")

    receiver = Receiver(answer)
    with running(bridge(way, receiver, Terms(window=8, backoff_most_s=0.02, give_up_tries=3, lease_s=1.0))):
        for first in range(1, 60, 3):
            ids += publish(way, 3, first=first)
            least = len(ids) * 5 // 7 - 3
            eventually(partial(has, receiver, least))
        eventually(lambda: stands(way, "mes"))
    assert letters(way) == [stuck]
    check(receiver.got, ids[1:])
    assert receiver.tried.count(stuck) >= 4


def test_an_outage_gives_nothing_up_however_long_it_is(way: Way) -> None:
    ids = publish(way, 40)
    up = threading.Event()

    def answer(parcel: Parcel) -> None:
        if not up.is_set():
            raise NotNow("connection refused", whole=True)

    receiver = Receiver(answer)
    delivery = bridge(way, receiver, Terms(window=16, backoff_most_s=0.01, give_up_tries=2, lease_s=1.0))
    with running(delivery):
        eventually(lambda: len(receiver.tried) > 60, what="many tries in vain")
        assert delivery.refused_why == "connection refused"
        assert delivery.waiting == 16
        assert delivery.lag_s() > 0
        up.set()
        eventually(lambda: stands(way, "mes"))
        assert delivery.refused_why == ""
        eventually(lambda: delivery.lag_s() == 0)
    assert letters(way) == []
    check(receiver.got, ids)


def test_while_one_part_waits_the_others_go_on_and_memory_is_bounded(way: Way) -> None:
    ids = publish(way, 200)
    held = threading.Event()

    def answer(parcel: Parcel) -> None:
        if parcel.part == "P2":
            held.wait(20)

    receiver = Receiver(answer)
    delivery = bridge(way, receiver, Terms(window=64, lease_s=1.0))
    with running(delivery):
        of_others = sum(number % 7 != 2 for number in range(200))
        eventually(lambda: len(receiver.got) == of_others)
        eventually(lambda: delivery.waiting == 200 - of_others)
        # Redis holds what is beyond the window; 205, 212, … are of the part that waits.
        for number in range(205, 905, 7):
            ids += publish(way, 1, first=number)
        eventually(lambda: delivery.waiting == 64)
        held.set()
        eventually(lambda: stands(way, "mes"))
    check(receiver.got, ids)


def test_what_a_process_delivered_beyond_its_cursor_is_repeated_in_order(way: Way) -> None:
    ids = publish(way, 100)
    first = Receiver(lambda parcel: (_ for _ in ()).throw(NotNow("later")) if parcel.id == ids[40] else None)
    dying = bridge(way, first, Terms(window=32, lease_s=1.0, backoff_most_s=0.02, give_up_tries=0))
    with running(dying):
        eventually(lambda: len(first.got) >= 60)
    # It stopped with everything but one verdict and its part's later ones delivered, and the cursor before that one.
    second = Receiver()
    with running(bridge(way, second, owner="two")):
        eventually(lambda: stands(way, "mes"))
    check(first.got + second.got, ids)
    assert len(first.got) + len(second.got) > 100
    assert second.got[0][1] == ids[40]


def test_of_two_processes_with_one_name_one_delivers_and_the_other_takes_over(way: Way) -> None:
    ids = publish(way, 20)
    told = Told()
    one, two = Receiver(), Receiver()
    with running(bridge(way, one, owner="one")) as stop_one:
        eventually(lambda: len(one.got) == 20)
        with running(bridge(way, two, owner="two", observer=told)):
            eventually(lambda: told.roles)
            assert "runs already: one has its place" in told.roles[0]
            ids += publish(way, 20, first=20)
            eventually(lambda: len(one.got) == 40)
            assert two.got == []
            stop_one.set()
            eventually(lambda: told.roles[-1] == "", what="the spare's turn")
            ids += publish(way, 20, first=40)
            eventually(lambda: stands(way, "mes"))
    check(one.got + two.got, ids)
    assert len(two.got) >= 20


def test_only_what_is_wanted_is_delivered_and_the_rest_counts_as_read(way: Way) -> None:
    publish(way, 20)
    wanted = publish(way, 5, first=20, decision="fail")
    publish(way, 20, first=25)
    receiver = Receiver()
    with running(bridge(way, receiver, Terms(only="fail", lease_s=1.0, window=4))):
        eventually(lambda: stands(way, "mes"))
    check(receiver.got, wanted)


def test_what_is_no_verdict_is_buried_and_stops_nothing(way: Way) -> None:
    ids = publish(way, 3)
    way.client.xadd(way.keys.verdicts, {"id": "x", "decision": "pass", "json": "{broken"})
    way.client.xadd(way.keys.verdicts, {"anything": "else"})
    ids += publish(way, 3, first=3)
    receiver = Receiver()
    with running(bridge(way, receiver)):
        eventually(lambda: stands(way, "mes"))
    check(receiver.got, ids)
    assert letters(way) == ["x", ""]


def test_what_is_under_way_is_waited_for_at_the_end(way: Way) -> None:
    publish(way, 20)
    begun, go = threading.Event(), threading.Event()

    def answer(parcel: Parcel) -> None:
        begun.set()
        go.wait(20)

    receiver = Receiver(answer)
    with running(bridge(way, receiver)) as stopping:
        begun.wait(20)
        eventually(lambda: receiver.under_way == 7)
        assert receiver.most_under_way == 7
        stopping.set()
        go.set()
    assert len(receiver.got) == 7, "a part each, and nothing new was begun"
    assert Verdicts(way.client, way.line).subscribers()["mes"] == Verdicts(way.client, way.line).read("0-0")[6][0]
    assert way.client.hget(way.keys.bridge("mes"), "owner") is None, "the place is given back"


def test_dead_letters_are_bounded_and_written_once(way: Way) -> None:
    store = BridgeStore(way.client, way.line, "mes", "one", 1100)
    dropped = [store.bury(f"{number}-0", f"id{number}", "w" * 400, b"{}") for number in range(5)]
    assert dropped == [0, 0, 1, 1, 1]
    assert store.bury("4-0", "id4", "again", b"{}") == 0
    assert letters(way) == ["id3", "id4"]
    told = {name: int(value) for name, value in way.client.hgetall(way.keys.bridge("mes")).items()}
    assert (told[b"dead_total"], told[b"dead_dropped"]) == (5, 3)
    assert store.remove([letter.letter_id for letter in store.letters()]) == 2
    assert int(way.client.hget(way.keys.bridge("mes"), "dead_bytes")) == 0


def test_redis_that_goes_away_and_loses_the_cursor_is_waited_out(way: Way, server: EmbeddedRedis) -> None:
    receiver = Receiver()
    ids = publish(way, 10)
    with (
        Proxy(server.url.removeprefix("unix://").split("?")[0]) as proxy,
        running(bridge(way, receiver, url=proxy.url)),
    ):
        eventually(lambda: len(receiver.got) == 10)
        proxy.go_away()
        ids += publish(way, 10, first=10)
        way.client.hdel(way.keys.subscribers, "mes")
        proxy.come_back()
        eventually(lambda: stands(way, "mes"))
    check(receiver.got, ids)


def test_a_new_bridge_may_begin_with_what_comes_next(way: Way) -> None:
    publish(way, 5)
    receiver = Receiver()
    with running(bridge(way, receiver, Terms(from_now=True, lease_s=1.0))):
        eventually(lambda: b"mes" in way.client.hgetall(way.keys.subscribers))
        ids = publish(way, 2, first=5)
        eventually(lambda: len(receiver.got) == 2)
    check(receiver.got, ids)


def test_part_verdicts_are_delivered_from_a_cursor_of_their_own(way: Way) -> None:
    publish(way, 3)
    said = json.dumps({"v": 1, "id": "A ä@cam1:1:0", "part": "A ä", "decision": "fail", "frames": []})
    way.client.xadd(way.keys.parts, {"id": "A ä@cam1:1:0", "part": "A ä", "decision": "fail", "json": said})
    receiver = Receiver()
    with running(bridge(way, receiver, source=PartVerdicts)):
        eventually(lambda: receiver.got)
    assert receiver.got == [("A ä", "A ä@cam1:1:0")]
    assert way.client.hkeys(way.keys.part_subscribers) == [b"mes"]


def test_a_fault_of_a_transport_costs_a_try_and_no_verdict(way: Way) -> None:
    ids, once = publish(way, 5), iter([True])

    def answer(parcel: Parcel) -> None:
        if next(once, False):
            raise ZeroDivisionError("a bug")

    receiver = Receiver(answer)
    with running(bridge(way, receiver)):
        eventually(lambda: stands(way, "mes"))
    check(receiver.got, ids)


@pytest.mark.parametrize("name", ["", "a b", "x" * 65])
def test_a_bridge_has_a_name_that_may_stand_in_a_key(way: Way, name: str) -> None:
    with pytest.raises(Exception, match="not allowed"):
        BridgeStore(way.client, way.line, name)


def test_a_dead_letter_of_the_same_place_and_another_frame_is_another_one(way: Way) -> None:
    """Places come from the clock: of two masters beside each other both may give the same."""
    store = BridgeStore(way.client, way.line, "mes", "one")
    for name in ("here", "there", "there"):
        store.bury("4-0", name, "refused", b"{}")
    assert letters(way) == ["here", "there"]
