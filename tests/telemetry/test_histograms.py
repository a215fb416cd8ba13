"""Ours says what the library's own says of the same values; it only costs less."""

from __future__ import annotations

import random
import threading

import pytest
from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest

from gaussline.worker.telemetry.histograms import Histograms, Tally
from gaussline.worker.telemetry.metrics import LATENCY_BUCKETS

NAMES = ("line", "model")


def test_it_says_what_the_librarys_own_says() -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    made = Histograms("gaussline_x_seconds", "Something.", NAMES, LATENCY_BUCKETS, ours)
    library = Histogram("gaussline_x_seconds", "Something.", NAMES, buckets=LATENCY_BUCKETS, registry=theirs)
    source = random.Random(1)
    for model in ("a", 'b "quoted"'):
        values = [source.expovariate(4.0) for _ in range(500)] + [*LATENCY_BUCKETS, 0.0, 100.0]
        for start in range(0, len(values), 64):
            made.labels("l", model).count(values[start : start + 64])
        for value in values:
            library.labels("l", model).observe(value)
    parts = [text.decode().splitlines() for text in (generate_latest(ours), generate_latest(theirs))]
    for said, expected in zip(*parts, strict=True):
        name, _, value = said.rpartition(" ")
        if "_sum{" in name:
            assert name == expected.rpartition(" ")[0]
            assert float(value) == pytest.approx(float(expected.rpartition(" ")[2]))
        else:
            assert said == expected
    with pytest.raises(ValueError, match="Duplicated"):
        Histograms("gaussline_x_seconds", "Another.", NAMES, LATENCY_BUCKETS, ours)


def test_threads_lose_nothing_and_a_reader_sees_whole_batches() -> None:
    tally = Tally((0.5, 1.5))
    ended = threading.Event()
    torn: list[object] = []

    def read() -> None:
        while not ended.is_set():
            buckets, total = tally.read()
            if buckets[-1][1] != total or buckets[0][1] * 2 != buckets[-1][1]:
                torn.append((buckets, total))

    reader = threading.Thread(target=read)
    reader.start()

    def write() -> None:
        for _ in range(3_000):
            tally.count([0.0, 2.0])

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    ended.set()
    reader.join()
    assert torn == []
    assert tally.read() == ([("0.5", 12_000.0), ("1.5", 12_000.0), ("+Inf", 24_000.0)], 24_000.0)


def test_an_exemplar_stands_in_the_bucket_of_its_value() -> None:
    tally = Tally((0.1, 1.0))
    tally.count([0.05, 0.5, 3.0], [(0.5, "a" * 32), (3.0, "b" * 32)])
    buckets, _ = tally.read()
    assert [len(bucket) for bucket in buckets] == [2, 3, 3]
    told = [bucket[2] for bucket in buckets if len(bucket) == 3]
    assert [(exemplar.labels["trace_id"][0], exemplar.value) for exemplar in told] == [("a", 0.5), ("b", 3.0)]
