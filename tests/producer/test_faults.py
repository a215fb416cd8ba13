"""What goes wrong between a producer and its Redis loses no frame and doubles none."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path
from random import Random
from typing import Literal

import pytest

from gaussline.producer.delivery import OUTAGE_CAP_S
from gaussline.producer.producer import Producer
from gaussline.worker.broker.admission import Admission
from gaussline.worker.broker.client import connect
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.errors import BrokerUnavailable
from gaussline.worker.settings import Settings
from tests.producer.line import LINE, Line
from tests.producer.times import HandClock
from tests.support.proxy import Proxy

JPEG = b"\xff\xd8\xff\xe0" + bytes(96)
SENDER = """
import sys
from gaussline import Producer
with Producer("cam1", redis_url=sys.argv[1]) as producer:
    for number in range(int(sys.argv[2])):
        receipt = producer.send(b"\\xff\\xd8\\xff" + b"%d" % number)
        print(receipt.id, receipt.attempts, flush=True)
"""


def test_a_lost_answer_never_doubles_a_frame(line: Line, proxy: Proxy) -> None:
    clock = HandClock()
    with Producer("cam1", redis_url=proxy.url, clock=clock, random=Random(0)) as producer:
        producer.send(JPEG, part_id="0")  # Redis has the script from here on
        loses = itertools.cycle([True, False])
        proxy.lose_reply = lambda: next(loses)
        receipts = [producer.send(JPEG, part_id=str(number)) for number in range(1, 21)]
        proxy.lose_reply = lambda: False
    assert proxy.lost == 20
    assert [receipt.attempts for receipt in receipts] == [2] * 20
    assert all(receipt.admitted and receipt.entry_id for receipt in receipts)
    assert {identity: frame.part for identity, frame in line.admitted().items()} == {
        f"cam1:1:{number}": str(number) for number in range(21)
    }
    stats = producer.stats
    assert (stats.admitted, stats.duplicates, stats.retries, stats.reconnects) == (21, 20, 20, 20)
    assert line.ledger().admitted == 21
    assert line.ledger().duplicates == 20


def test_drops_are_counted_once_though_the_answer_is_lost(line: Line, proxy: Proxy) -> None:
    client = connect(proxy.url)
    door = Admission(client, LINE, "cam1", camera_budget_bytes=1, line_budget_bytes=1)
    door.open()
    door.count_dropped(1)
    proxy.lose_reply = lambda: True
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            door.count_dropped(3)
    proxy.lose_reply = lambda: False
    door.count_dropped(5)
    door.count_dropped(2)
    client.close()
    assert line.ledger().dropped == 1 + 5 + 2


def test_a_torn_request_is_sent_again(line: Line, proxy: Proxy) -> None:
    with Producer("cam1", redis_url=proxy.url, clock=HandClock(), random=Random(0)) as producer:
        first = producer.send(JPEG)
        tears = iter([70])
        proxy.tear_request = lambda size: next(tears, None)
        receipt = producer.send(JPEG)
    assert proxy.torn == 1
    assert receipt.attempts == 2
    assert producer.stats.duplicates == 0
    assert list(line.admitted()) == [first.id, receipt.id]


def test_random_faults_keep_every_frame_exactly_once(line: Line, proxy: Proxy) -> None:
    """Answers are lost and requests torn at random; the stream holds what the producer was told, frame for frame."""
    draw = Random(4)
    settings = Settings.load({}, redis_url=proxy.url)
    with Producer("cam1", settings=settings, clock=HandClock(), random=Random(5), batch_frames=3) as producer:
        proxy.lose_reply = lambda: draw.random() < 0.2
        proxy.tear_request = lambda size: draw.randrange(size) if draw.random() < 0.2 else None
        ids: list[str] = []
        for number in range(150):
            for receipt in producer.send_many([JPEG + b"%d" % number] * draw.randint(1, 4)):
                ids += receipt.ids
        proxy.lose_reply = lambda: False
        proxy.tear_request = lambda size: None
    assert proxy.lost > 20
    assert proxy.torn > 20
    assert producer.stats.duplicates > 10
    assert list(line.admitted()) == ids
    assert producer.stats.admitted == len(ids) == line.ledger().admitted


def test_an_outage_is_sat_out_with_jittered_waits(line: Line, proxy: Proxy) -> None:
    clock = HandClock()
    with Producer("cam1", redis_url=proxy.url, clock=clock, random=Random(3)) as producer:
        proxy.go_away()

        def mend_after_the_twelfth() -> None:
            if len(clock.waits) == 12:
                proxy.come_back()

        clock.on_wait = mend_after_the_twelfth
        receipt = producer.send(JPEG)
        assert receipt.attempts == 13
        ceilings = [min(OUTAGE_CAP_S, 0.05 * 2**attempt) for attempt in range(12)]
        draw = Random(3)
        assert clock.waits == [draw.uniform(0, ceiling) for ceiling in ceilings]
        # The next outage begins with short waits again.
        proxy.go_away()
        clock.waits.clear()
        clock.on_wait = proxy.come_back
        producer.send(JPEG)
        assert len(clock.waits) == 1
        assert clock.waits[0] <= 0.05
    assert producer.stats.reconnects == 2
    assert list(line.admitted()) == ["cam1:1:0", "cam1:1:1"]


@pytest.mark.parametrize("lost", [False, True])
def test_a_frame_without_an_answer_goes_first_when_redis_is_back(line: Line, proxy: Proxy, lost: bool) -> None:
    clock = HandClock()
    with Producer("cam1", redis_url=proxy.url, clock=clock, random=Random(3), retry_for_s=10.0) as producer:
        if lost:

            def lose_and_leave() -> bool:
                threading.Thread(target=proxy.go_away).start()
                return True

            proxy.lose_reply = lose_and_leave
        else:
            proxy.go_away()
        with pytest.raises(BrokerUnavailable, match="do not send them again"):
            producer.send(JPEG, part_id="first")
        assert sum(clock.waits) >= 10.0
        proxy.lose_reply = lambda: False
        proxy.come_back()
        assert producer.send(JPEG, part_id="second").id == "cam1:1:1"
    assert [frame.part for frame in line.admitted().values()] == ["first", "second"]
    assert (producer.stats.admitted, producer.stats.unanswered, producer.stats.duplicates) == (2, 0, int(lost))


@pytest.mark.parametrize("back", ["the call", "closing"])
def test_closing_sends_what_is_pending_once_more(line: Line, proxy: Proxy, back: str) -> None:
    producer = Producer("cam1", redis_url=proxy.url, clock=HandClock(), retry_for_s=1.0).start()
    proxy.go_away()
    with pytest.raises(BrokerUnavailable):
        producer.send(JPEG)
    proxy.come_back()
    if back == "the call":
        receipt = producer.retry()
        assert receipt is not None
        assert receipt.id == "cam1:1:0"
        assert producer.retry() is None
    producer.close()
    assert (producer.stats.admitted, producer.stats.unanswered) == (1, 0)
    assert list(line.admitted()) == ["cam1:1:0"]


@pytest.mark.parametrize("full", ["block", "drop"])
def test_a_full_memory_hides_no_admitted_frame(line: Line, proxy: Proxy, full: Literal["block", "drop"]) -> None:
    """The answer is lost and the memory fills up: Redis refuses the script, but the frame may be in, and it is."""
    clock = HandClock()
    memory = line.client.info("memory")["used_memory"]
    loses = iter([True])

    def lose_and_fill() -> bool:
        if next(loses, False):
            line.client.config_set("maxmemory", memory // 2)
            return True
        return False

    def free_later() -> None:
        if len(clock.waits) == 9:
            line.client.config_set("maxmemory", 0)

    clock.on_wait = free_later
    with Producer("cam1", redis_url=proxy.url, full=full, clock=clock, random=Random(1)) as producer:
        producer.send(JPEG)
        proxy.lose_reply = lose_and_fill
        try:
            receipt = producer.send(JPEG)
        finally:
            line.client.config_set("maxmemory", 0)
        assert receipt.admitted
        assert (producer.stats.duplicates, producer.stats.dropped) == (1, 0)
    assert list(line.admitted()) == ["cam1:1:0", "cam1:1:1"]


def test_closing_in_an_outage_tells_what_is_not_known(line: Line, proxy: Proxy) -> None:
    producer = Producer("cam1", redis_url=proxy.url, clock=HandClock(), retry_for_s=1.0).start()
    proxy.go_away()
    with pytest.raises(BrokerUnavailable):
        producer.send_many([JPEG, JPEG])
    producer.close()
    stats = producer.stats
    assert (stats.offered, stats.unanswered, stats.admitted) == (2, 2, 0)
    assert line.admitted() == {}


def test_a_redis_that_forgot_the_camera_is_gone_on_with_beyond_the_old_epoch(line: Line) -> None:
    for _ in range(3):
        with Producer("cam1", redis_url=line.server.url) as producer:
            pass
    with Producer("cam1", redis_url=line.server.url) as producer:
        assert producer.send(JPEG).id == "cam1:4:0"
        line.client.flushall()
        # Epoch 4 again would give another frame the id of one whose verdict may have been read long ago.
        assert producer.send_many([JPEG, JPEG])[0].ids == ("cam1:5:1", "cam1:5:2")
        assert producer.send(JPEG).id == "cam1:5:3"
        assert producer.stats.reopened == 1
    assert list(line.admitted()) == ["cam1:5:1", "cam1:5:2", "cam1:5:3"]


def test_a_high_epoch_that_redis_forgot_is_gone_beyond_in_one_step(line: Line) -> None:
    """Each start of Redis adds a thousand: a hundred producers that count up from 1 would be a storm."""
    line.client.hset(line.keys.camera("cam1"), "epoch", 10**6)
    with Producer("cam1", redis_url=line.server.url) as producer:
        producer.send(JPEG)
        line.client.flushall()
        before = line.client.info("stats")["total_commands_processed"]
        assert producer.send(JPEG).id == "cam1:1000002:1"
        assert line.client.info("stats")["total_commands_processed"] - before < 200


def test_an_outage_while_a_new_epoch_is_asked_for_is_sat_out_too(line: Line, proxy: Proxy) -> None:
    with Producer("cam1", redis_url=proxy.url, clock=HandClock(), random=Random(0)) as producer:
        producer.send(JPEG)
        line.client.flushall()
        answers = itertools.count()
        proxy.lose_reply = lambda: next(answers) == 1  # the first answer says that the epoch is unknown
        assert producer.send(JPEG).admitted
        assert producer.stats.reopened == 1
    assert proxy.lost == 1
    assert len(line.admitted()) == 1


def test_a_killed_redis_comes_back_with_every_admitted_frame(tmp_path: Path) -> None:
    """With appendfsync always: what was answered is there, and what was not is sent again."""
    server = EmbeddedRedis(tmp_path, appendfsync="always").start()
    try:
        clock = HandClock()
        with Producer("cam1", redis_url=server.url, clock=clock, random=Random(1)) as producer:
            ids = [producer.send(JPEG).id for _ in range(20)]
            server.kill()
            back: list[EmbeddedRedis] = []
            clock.on_wait = lambda: None if clock.elapsed_s < 2.0 or back else back.append(server.start())
            ids += [producer.send(JPEG).id for _ in range(20)]
        client = server.client()
        line = Line(server, client)
        assert list(line.admitted()) == ids
        assert line.ledger().admitted == 40
        client.close()
    finally:
        server.stop()


def test_no_epoch_is_given_twice_though_redis_forgot_the_newest_ones(tmp_path: Path) -> None:
    """Not even to a producer that knows of none: a frame with the id of another would pass for its repetition."""
    with EmbeddedRedis(tmp_path / "data") as server:
        with Producer("cam1", redis_url=server.url) as producer:
            producer.send(JPEG)
        (file,) = (server.folder / "appendonlydir").glob("*.incr.aof")
        synced = file.stat().st_size
        with Producer("cam1", redis_url=server.url) as producer:
            taken, its_epoch = producer.send(JPEG).id, producer.epoch
        server.kill()
        os.truncate(file, synced)  # what a power cut leaves with everysec
        server.start()
        with Producer("cam1", redis_url=server.url) as producer:
            assert producer.send(JPEG).id != taken
            assert producer.epoch > its_epoch
            epoch = producer.epoch
        with Producer("cam1", redis_url=server.url) as producer:
            assert producer.epoch == epoch + 1, "far away once a start, and not at each opening"


def test_a_killed_producer_loses_no_new_frame_as_a_duplicate(line: Line) -> None:
    """SIGKILL at an instant of its own choosing, three times over; each new one starts at once."""
    told: list[str] = []
    for _ in range(3):
        sender = _sender(line, 100_000)
        assert sender.stdout is not None
        for _ in range(30):
            told.append(sender.stdout.readline().split()[0])
        sender.kill()
        told += [one.split()[0] for one in sender.stdout.read().splitlines() if len(one.split()) == 2]
        sender.wait()
        sender.stdout.close()
    last = _sender(line, 50)
    output, _ = last.communicate(timeout=60)
    told += [one.split()[0] for one in output.splitlines()]
    assert last.returncode == 0
    admitted = line.admitted()
    assert set(told) <= set(admitted)
    # Only a frame whose answer its dead producer never read may be there beyond what was told.
    assert len(set(admitted) - set(told)) <= 3 * 2
    assert [identity for identity in admitted if identity.startswith("cam1:4:")] == [
        f"cam1:4:{number}" for number in range(50)
    ]
    assert line.ledger().duplicates == 0
    assert line.ledger().admitted == len(admitted)


def test_of_two_processes_on_one_camera_the_older_is_told(line: Line) -> None:
    older = _sender(line, 10_000_000)
    assert older.stdout is not None
    older.stdout.readline()
    newer = _sender(line, 20)
    output, _ = newer.communicate(timeout=60)
    assert newer.returncode == 0
    assert [one.split()[0] for one in output.splitlines()] == [f"cam1:2:{number}" for number in range(20)]
    _, said = older.communicate(timeout=60)
    assert older.returncode == 1
    assert "Fenced: camera cam1 was taken by another producer" in said
    assert line.ledger().fenced >= 1


def _sender(line: Line, frames: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SENDER, line.server.url, str(frames)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if frames > 100_000 else None,
        text=True,
    )
