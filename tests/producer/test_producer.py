"""What a producer does while all is well, and what it refuses."""

from __future__ import annotations

import io
import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

import gaussline
from gaussline.producer.producer import Producer
from gaussline.producer.receipt import Status
from gaussline.producer.shot import Shot
from gaussline.worker.contract.frame import Frame
from gaussline.worker.errors import (
    Backlogged,
    BrokerError,
    BrokerUnavailable,
    ContractError,
    Fenced,
    LimitExceeded,
    SettingsError,
    SourceError,
)
from gaussline.worker.settings import Settings
from tests.producer.line import Line
from tests.producer.times import START_US, HandClock
from tests.support.repository import ROOT

JPEG = b"\xff\xd8\xff\xe0" + bytes(96)


def test_the_example_of_the_readme(line: Line) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    example = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Producer(" in block)
    lines = [one for one in example.splitlines() if one.strip()]
    assert len(lines) <= 10
    producing = example.split("verdicts = ")[0].replace("redis://127.0.0.1:6379/0", line.server.url)
    picture = np.zeros((8, 8, 3), np.uint8)
    exec(producing, {"image": picture})  # the README's own text is what is tested
    (frame,) = line.admitted().values()
    assert (frame.part, frame.encoding, frame.shape, frame.dtype) == ("A-1042", "raw", (8, 8, 3), "uint8")


def test_an_entry_has_the_fields_that_the_page_lists(line: Line) -> None:
    with Producer("cam1", redis_url=line.server.url) as producer:
        producer.send_many([JPEG] * 3)
    ((_, fields),) = line.client.xrange(line.keys.frames("cam1"))
    page = (ROOT / "docs" / "contract.md").read_text("utf-8")
    told = page.split("Fields of the stream entry")[1].split("\n## ")[0]
    assert {name.decode() for name in fields} == set(re.findall(r"`(\w+)`", told))
    assert (fields[b"v"], fields[b"n"], fields[b"seq"], fields[b"epoch"]) == (b"1", b"3", b"0", b"1")


def test_the_package_names_the_producer() -> None:
    assert gaussline.Producer is Producer


def test_a_frame_arrives_as_it_was_sent(line: Line) -> None:
    captured = datetime(2026, 1, 31, 14, 3, 0, 250_000, UTC)
    with Producer("cam1", redis_url=line.server.url) as producer:
        receipt = producer.send(JPEG, part_id="A-1", captured_at=captured, deadline=timedelta(milliseconds=1500))
    assert receipt.status is Status.ADMITTED
    assert receipt.admitted
    assert receipt.id == "cam1:1:0"
    assert receipt.attempts == 1
    assert line.client.xrange(line.keys.frames("cam1"))[0][0].decode() == receipt.entry_id
    captured_us = int(captured.timestamp() * 1_000_000)
    assert line.admitted() == {"cam1:1:0": Frame(JPEG, "jpeg", captured_us, "A-1", deadline_us=captured_us + 1_500_000)}
    assert line.client.zrange(line.keys.due, 0, -1, withscores=True) == [
        (f"cam1|{receipt.entry_id}".encode(), captured_us + 1_500_000)
    ]


def test_the_clock_gives_the_capture_time_and_the_producer_the_deadline(line: Line) -> None:
    clock = HandClock()
    with Producer("cam1", redis_url=line.server.url, clock=clock, deadline=timedelta(seconds=2)) as producer:
        producer.send(JPEG)
        clock.elapsed_s = 0.5
        producer.send(JPEG)
    times = [(frame.captured_us, frame.deadline_us) for frame in line.admitted().values()]
    assert times == [(START_US, START_US + 2_000_000), (START_US + 500_000, START_US + 2_500_000)]


def test_epochs_rise_and_sequences_begin_anew(line: Line) -> None:
    ids = []
    for _ in range(3):
        with Producer("cam1", redis_url=line.server.url) as producer:
            ids += [producer.send(JPEG).id, producer.send(JPEG).id]
    assert ids == ["cam1:1:0", "cam1:1:1", "cam1:2:0", "cam1:2:1", "cam1:3:0", "cam1:3:1"]
    assert list(line.admitted()) == ids
    assert line.ledger().admitted == 6


def test_many_frames_go_in_one_message_within_the_bounds(line: Line) -> None:
    with Producer("cam1", redis_url=line.server.url, batch_frames=3) as producer:
        receipts = producer.send_many([JPEG, Shot(JPEG, part_id="p1"), *[JPEG] * 5])
        assert [len(receipt.ids) for receipt in receipts] == [3, 3, 1]
        assert producer.send_many([]) == []
        assert producer.stats.to_dict() | {"bytes": 0} == {
            **dict.fromkeys(producer.stats.to_dict(), 0),
            "offered": 7,
            "admitted": 7,
            "messages": 3,
        }
        assert producer.stats.bytes == line.ledger().in_flight_bytes
    assert [identity for receipt in receipts for identity in receipt.ids] == list(line.admitted())
    assert line.admitted()["cam1:1:1"].part == "p1"


def test_a_message_keeps_within_its_bytes(line: Line) -> None:
    settings = Settings.load({}, redis_url=line.server.url, message_max_bytes=8_000)
    with Producer("cam1", settings=settings) as producer:
        receipts = producer.send_many([Shot(JPEG + bytes(2_500), part_id="x" * 256)] * 5)
        assert [len(receipt.ids) for receipt in receipts] == [2, 2, 1]
        with pytest.raises(LimitExceeded, match="message_max_bytes"):
            producer.send(JPEG + bytes(8_000))
        assert producer.send(JPEG).id == "cam1:1:5"
    sizes = [len(payload) for payload in line.payloads()]
    assert max(sizes) <= 8_000


def test_one_bad_image_sends_nothing_and_takes_no_number(line: Line, tmp_path: Path) -> None:
    with Producer("cam1", redis_url=line.server.url) as producer:
        with pytest.raises(ContractError, match="none of bmp, jpeg"):
            producer.send_many([JPEG, b"GIF89a"])
        with pytest.raises(SourceError, match="No such file"):
            producer.send(tmp_path / "none.png")
        with pytest.raises(ContractError, match="no time zone"):
            producer.send(JPEG, captured_at=datetime(2026, 1, 1))
        with pytest.raises(ContractError, match="part_id"):
            producer.send(JPEG, part_id="x" * 257)
        with pytest.raises(ContractError, match="part_id"):
            producer.send(JPEG, part_id="")
        assert line.admitted() == {}
        assert producer.send(JPEG).id == "cam1:1:0"
        assert producer.stats.offered == 1


def test_pictures_arrays_and_paths_are_sent(line: Line, tmp_path: Path) -> None:
    picture = Image.new("RGB", (6, 4), (200, 10, 10))
    path = tmp_path / "a.png"
    picture.save(path)
    with Producer("cam1", redis_url=line.server.url, encode="png") as producer:
        producer.send(path)
        producer.send(str(path))
        producer.send(picture)
        producer.send(picture, encoding="raw")
    from_file, from_text, from_pillow, raw = line.admitted().values()
    assert from_file.data == from_text.data == path.read_bytes()
    assert Image.open(io.BytesIO(from_pillow.data)).getpixel((0, 0)) == (200, 10, 10)
    assert (raw.encoding, raw.shape, raw.data) == ("raw", (4, 6, 3), bytes([200, 10, 10]) * 24)


def test_a_second_producer_takes_the_camera_and_the_first_is_told(line: Line) -> None:
    with Producer("cam1", redis_url=line.server.url) as first:
        first.send(JPEG)
        with Producer("cam1", redis_url=line.server.url) as second:
            second.send(JPEG)
            with pytest.raises(Fenced, match="camera cam1 was taken by another producer"):
                first.send(JPEG)
            with pytest.raises(Fenced):
                first.send(JPEG)
            second.send(JPEG)
        assert first.stats.refused == 1
    assert list(line.admitted()) == ["cam1:1:0", "cam1:2:0", "cam1:2:1"]
    assert line.ledger().fenced == 1


def test_a_full_backlog_blocks_until_there_is_room(line: Line) -> None:
    settings = Settings.load(
        {}, redis_url=line.server.url, camera_budget_bytes=3_000, message_max_bytes=3_000, line_budget_bytes=10**6
    )
    clock = HandClock()

    def settle_on_the_fifth() -> None:
        if len(clock.waits) % 5 == 0:
            line.settle_one()

    clock.on_wait = settle_on_the_fifth
    with Producer("cam1", settings=settings, clock=clock, random=Random(1)) as producer:
        receipts = [producer.send(JPEG + bytes(1_500)) for _ in range(4)]
    assert all(receipt.admitted for receipt in receipts)
    assert len(clock.waits) == 15
    assert max(clock.waits) <= 0.25
    assert producer.stats.busy == 15
    assert producer.stats.dropped == 0
    assert line.ledger().admitted == 4
    assert line.ledger().not_judged == 3


def test_a_full_backlog_drops_by_policy_and_counts(line: Line) -> None:
    settings = Settings.load(
        {}, redis_url=line.server.url, camera_budget_bytes=3_000, message_max_bytes=3_000, full_policy="drop"
    )
    clock = HandClock()
    with Producer("cam1", settings=settings, clock=clock) as producer:
        receipts = [producer.send(JPEG + bytes(1_500)) for _ in range(3)]
        assert line.settle_one() == 1
        receipts.append(producer.send(JPEG))
        assert clock.waits == []
    assert [receipt.status for receipt in receipts] == [
        Status.ADMITTED,
        Status.DROPPED,
        Status.DROPPED,
        Status.ADMITTED,
    ]
    assert receipts[1].why == "camera"
    assert not receipts[1].admitted
    # A dropped frame keeps its number: the gap shows, and nothing else can ever be taken for it.
    assert list(line.admitted()) == ["cam1:1:3"]
    assert producer.stats.dropped == 2
    assert (line.ledger().dropped, line.ledger().admitted) == (2, 2)


def test_the_wait_on_a_full_backlog_is_bounded(line: Line) -> None:
    settings = Settings.load(
        {}, redis_url=line.server.url, camera_budget_bytes=3_000, message_max_bytes=3_000, block_timeout_s=3.0
    )
    clock = HandClock()
    with Producer("cam1", settings=settings, clock=clock, random=Random(2)) as producer:
        producer.send(JPEG + bytes(1_500))
        with pytest.raises(Backlogged, match=r"busy for 3\.0 s \(the budget of the camera"):
            producer.send(JPEG + bytes(1_500))
        assert sum(clock.waits) == pytest.approx(3.0)
        line.settle_one()
        assert producer.send(JPEG).id == "cam1:1:2"
        assert (producer.stats.refused, producer.stats.admitted) == (1, 2)


def test_a_new_camera_names_its_model_and_a_known_one_keeps_it(line: Line) -> None:
    for model in ("plates", "gears"):
        with Producer("cam1", redis_url=line.server.url, model=model):
            pass
    assert line.client.hget(line.keys.cameras, "cam1") == b'{"model": "plates"}'


def test_threads_share_a_producer(line: Line) -> None:
    with Producer("cam1", redis_url=line.server.url) as producer:
        receipts: list[str] = []

        def send() -> None:
            receipts.extend([producer.send(JPEG).id for _ in range(25)])

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(receipts) == sorted(f"cam1:1:{number}" for number in range(100))
    assert len(line.admitted()) == 100


def test_a_fork_is_told_apart(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    with Producer("cam1", redis_url=line.server.url) as producer:
        producer.send(JPEG)
        with monkeypatch.context() as patch:
            patch.setattr("os.getpid", lambda: 1)
            with pytest.raises(BrokerError, match="before a fork"):
                producer.send(JPEG)
        assert producer.send(JPEG).id == "cam1:1:1"


def test_two_programs_in_one_epoch_are_told(line: Line) -> None:
    with Producer("cam1", redis_url=line.server.url) as first:
        first.send(JPEG)
        other = Producer("cam1", redis_url=line.server.url)
        other._delivery.epoch, other._pid = first.epoch, first._pid
        with pytest.raises(BrokerError, match="two programs share one epoch"):
            other.send(JPEG)
        other.close()


def test_a_closed_producer_sends_no_more(line: Line) -> None:
    with Producer("cam1", redis_url=line.server.url) as producer:
        pass
    with pytest.raises(BrokerError, match="closed"):
        producer.send(JPEG)


def test_no_redis_is_said_at_the_start() -> None:
    clock = HandClock()
    with (
        pytest.raises(BrokerUnavailable, match="cannot be reached"),
        Producer("cam1", redis_url="redis://127.0.0.1:1/0"),
    ):
        pass
    producer = Producer("cam1", redis_url="redis://u:secret@127.0.0.1:1/0", connect_for_s=3.0, clock=clock)
    with pytest.raises(BrokerUnavailable) as told, producer:
        pass
    assert sum(clock.waits) >= 3.0
    assert "secret" not in str(told.value)


def test_wrong_settings_are_said() -> None:
    with pytest.raises(ContractError, match="camera name 'a b'"):
        Producer("a b")
    with pytest.raises(SettingsError, match="batch_frames 65"):
        Producer("cam1", batch_frames=65)
    with pytest.raises(SettingsError, match="GAUSSLINE_FULL_POLICY"):
        Producer("cam1", full="wait")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="cannot be read"):
        Producer("cam1", settings=Settings.load({"GAUSSLINE_REDIS_PASSWORD_FILE": "/nowhere"}))
    with pytest.raises(SettingsError, match="is no Redis URL"):
        Producer("cam1", redis_url="http://x")
