"""Verdicts that went at the stream's bound before a bridge had them are told, whenever that happens."""

from __future__ import annotations

import threading

from gaussline.worker.bridge.delivery import Terms
from gaussline.worker.bridge.parcel import Parcel
from gaussline.worker.broker.verdicts import Verdicts, trim_verdicts
from gaussline.worker.errors import NotNow
from tests.bridge.line import check, publish, stands
from tests.bridge.test_delivery import Receiver, Told, bridge, running
from tests.broker.way import Way
from tests.support.waiting import eventually


def test_verdicts_that_were_trimmed_before_they_were_delivered_are_told(way: Way) -> None:
    publish(way, 5)
    Verdicts(way.client, way.line).register("mes")
    first = Verdicts(way.client, way.line).read("0-0")[0][0]
    Verdicts(way.client, way.line).ack("mes", first)
    trim_verdicts(way.client, way.line, min_age_s=0.0, max_bytes=0, policy="trim")
    told, receiver = Told(), Receiver()
    way.client.hset(way.keys.totals, "verdict_bytes", 10**9)
    trim_verdicts(way.client, way.line, min_age_s=0.0, max_bytes=0, policy="trim")
    with running(bridge(way, receiver, observer=told)):
        ids = publish(way, 2, first=5)
        eventually(lambda: stands(way, "mes"))
    check(receiver.got, ids)
    if way.client.info("server")["redis_version"] >= "7":
        ((after, _),) = told.gaps
        assert after == first


def test_verdicts_that_are_trimmed_while_the_receiver_is_away_are_told_too(way: Way) -> None:
    away = threading.Event()
    away.set()

    def answer(parcel: Parcel) -> None:
        if away.is_set():
            raise NotNow("away", whole=True)

    told, receiver = Told(), Receiver(answer)
    ids = publish(way, 2)
    last = Verdicts(way.client, way.line).last_id()
    delivery = bridge(way, receiver, Terms(window=2, backoff_most_s=0.02, lease_s=1.0), observer=told)
    with running(delivery):
        eventually(lambda: delivery.waiting == 2)
        publish(way, 5, first=2)
        way.client.hset(way.keys.totals, "verdict_bytes", 10**9)
        trim_verdicts(way.client, way.line, min_age_s=0.0, max_bytes=0, policy="trim")
        ids += publish(way, 3, first=7)
        away.clear()
        eventually(lambda: stands(way, "mes"))
    check(receiver.got, ids)
    if way.client.info("server")["redis_version"] >= "7":
        assert [after for after, _ in told.gaps] == [last]
