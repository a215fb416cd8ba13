"""Sets of workers: copies that are lossy and decide nothing, and cameras that move between sets without a trace."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import pytest

from gaussline.producer.producer import Producer
from gaussline.producer.shot import Shot
from gaussline.worker.broker.cameras import read_cameras, set_camera
from gaussline.worker.broker.copies import SetResults
from gaussline.worker.broker.dead_letters import DeadLetters
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.heartbeat import Heartbeat
from gaussline.worker.broker.intake import Intake, Message
from gaussline.worker.broker.ledger import read_ledger
from gaussline.worker.broker.retry import Retrier
from gaussline.worker.broker.sets import EVERY, Sets, foreign_models
from gaussline.worker.broker.settle import Settler
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.contract.dead_letter import DeadLetter
from gaussline.worker.contract.keys import MAIN
from gaussline.worker.contract.limits import MessageLimits
from gaussline.worker.contract.verdict import Reason
from gaussline.worker.engine.worker import Worker, WorkerConfig
from gaussline.worker.errors import Conflict, ContractError, NotFound, SettingsError
from gaussline.worker.settings import Settings
from tests.broker.way import BUDGET, Way, settlement
from tests.faults.checker import History, Offer, check
from tests.faults.frames import Kind, pixels
from tests.faults.judge import HarnessJudge
from tests.rollout.test_registry import race
from tests.support.waiting import eventually

_lines = itertools.count()


@pytest.fixture
def way(server: EmbeddedRedis) -> Iterator[Way]:
    """A line with one camera that has sent nothing, and a set `b`."""
    opened = Way(server.url, f"sets{next(_lines)}")
    opened.admit("cam1")
    opened.settle(opened.take())
    Sets(opened.client, opened.line).declare("b", {EVERY: "plates-b"}, by="ada", max_bytes=1000)
    yield opened
    opened.close()


@pytest.fixture
def sets(way: Way) -> Sets:
    return Sets(way.client, way.line)


def shown(way: Way, frames: int = 1000) -> list[tuple[str, int, bool]]:
    """What a worker of set b gets: (camera, sequence, whether it is a copy)."""
    taken = way.intake("wb", worker_set="b").take(max_frames=frames, max_bytes=10**9)
    return [(each.camera, each.first_sequence, each.copy) for each in taken]


# --- copies ----------------------------------------------------------------------------------------------------------
def test_a_set_is_shown_copies_and_owes_nothing_for_them(way: Way, sets: Sets) -> None:
    assert sets.copy("cam1", "b", by="ada")
    assert not sets.copy("cam1", "b", by="ada"), "it is copied already"
    way.admit("cam1")
    way.admit("cam2")
    assert shown(way) == [("cam1", 1, True)]
    assert shown(way) == [], "a copy is taken once"
    own = way.take()
    assert sorted((each.camera, each.copy) for each in own) == [("cam1", False), ("cam2", False)]
    assert way.settle(own) == [True, True]
    assert way.ledger().balances
    counts = sets.counts("b")
    assert (counts.copied, counts.shed, counts.taken, counts.waiting_bytes) == (1, 0, 1, 0)
    sets.copy("cam1", "", by="ada")
    way.admit("cam1")
    assert shown(way) == []


def test_what_is_over_the_bound_is_shed_and_counted_and_admission_does_not_feel_it(way: Way, sets: Sets) -> None:
    sets.copy("cam1", "b", by="ada")
    ids = [way.admit("cam1", size=300).status for _ in range(10)]
    assert set(ids) == {"admitted"}
    counts = sets.counts("b")
    assert (counts.copied + counts.shed, counts.copied) == (10, 2)
    assert 0 < counts.waiting_bytes <= 1000
    assert len(shown(way)) == 2
    assert sets.counts("b").waiting_bytes == 0
    way.admit("cam1", size=300)
    assert len(shown(way)) == 1, "room again"
    assert len(way.take()) == 11


def test_what_a_set_said_is_bounded_in_bytes_and_in_age_though_nothing_new_comes(way: Way, sets: Sets) -> None:
    said = [(f"cam1:1:{number}", "cam1", "pass", "x" * 150) for number in range(40)]
    bounded = SetResults(way.client, way.line, "b", max_bytes=3000, max_age_s=3600.0)
    for start in range(0, 40, 8):
        bounded.publish(said[start : start + 8])
    left = [frame.decode() for _, frame, _ in bounded.read()]
    assert left == [name for name, *_ in said[-len(left) :]], "the oldest went"
    held = int(way.client.hget(way.keys.set_state("b"), "results_bytes"))
    assert 8 < len(left) < 15
    assert 250 * len(left) < held <= 3000
    assert sets.counts("b").results == 40
    assert bounded.age() == 0
    assert SetResults(way.client, way.line, "b", max_age_s=-1.0).age() == len(left)
    assert list(bounded.read()) == []
    assert int(way.client.hget(way.keys.set_state("b"), "results_bytes")) == 0


def test_a_set_that_was_removed_says_nothing_any_more(way: Way, sets: Sets) -> None:
    results = SetResults(way.client, way.line, "b")
    sets.remove("b", by="ada")
    results.publish([("cam1:1:0", "cam1", "pass", "{}")])
    assert not way.client.exists(way.keys.set_results("b"), way.keys.set_state("b"))


@pytest.mark.parametrize("word", ["copies:b", "set:b", "bell:b"])
def test_trouble_with_copies_never_touches_an_admission(way: Way, sets: Sets, word: str) -> None:
    sets.copy("cam1", "b", by="ada")
    way.client.delete(way.keys.prefix + word)
    way.client.set(way.keys.prefix + word, "not what it should be")
    assert way.admit("cam1").status == "admitted"
    assert way.settle(way.take()) == [True]
    assert way.ledger().balances


def test_what_a_set_settles_comes_before_what_it_is_shown(way: Way, sets: Sets) -> None:
    sets.copy("cam1", "b", by="ada")
    way.admit("cam1")
    way.admit("cam9")
    sets.move("cam9", "b", by="ada")
    assert shown(way) == [("cam9", 0, False)]
    assert shown(way) == [("cam1", 1, True)]


# --- moves -----------------------------------------------------------------------------------------------------------
def test_what_is_unread_goes_with_the_camera_and_what_is_in_hand_stays(way: Way, sets: Sets) -> None:
    way.admit("cam1")
    in_hand = way.take()
    way.admit("cam1", deadline_us=2**52)
    before, after = sets.move("cam1", "b", by="ada", note="try it")
    assert (before.settled_by, after.settled_by, after.revision) == (MAIN, "b", before.revision + 1)
    assert way.take() == []
    assert way.client.zcard(way.keys.set_due("b")) == 1
    assert way.client.zcard(way.keys.due) == 0
    assert shown(way) == [("cam1", 2, False)]
    assert way.client.zcard(way.keys.set_due("b")) == 0
    assert way.settle(in_hand) == [True], "whoever has it settles it, once"
    way.admit("cam1")
    assert way.take() == []
    sets.move("cam1", MAIN, by="bo")
    assert [each.first_sequence for each in way.take()] == [3]
    moves = [(each.kind, each.set, each.camera, each.before, each.by, each.note) for each in sets.history()]
    assert moves == [
        ("declared", "b", "", "", "ada", ""),
        ("moved", "b", "cam1", MAIN, "ada", "try it"),
        ("moved", MAIN, "cam1", "b", "bo", ""),
    ]


def test_a_moved_camera_is_not_copied_to_its_own_set(way: Way, sets: Sets) -> None:
    sets.copy("cam1", "b", by="ada")
    sets.move("cam1", "b", by="ada")
    assert sets.assignments()["cam1"].copied_to == ""
    with pytest.raises(Conflict, match="settles camera cam1 itself"):
        sets.copy("cam1", "b", by="ada")


def test_of_two_operators_who_move_a_camera_one_wins_and_the_other_is_told(way: Way, sets: Sets) -> None:
    sets.declare("c", {EVERY: "plates-c"}, by="ada")
    seen = sets.assignments()["cam1"]
    said = race(*(partial(sets.move, "cam1", to, by=to, seen=seen) for to in ("b", "c")))
    assert sorted(said) == ["", "Conflict"]
    assert sets.assignments()["cam1"].settled_by == ("b" if said[0] == "" else "c")
    with pytest.raises(Conflict, match="moved by somebody else"):
        sets.move("cam1", MAIN, by="x", seen=seen)


def test_a_dead_workers_messages_are_claimed_by_the_set_that_settles_the_camera_now(way: Way, sets: Sets) -> None:
    way.admit("cam1")
    way.take("dead")
    sets.move("cam1", "b", by="ada")
    now = {"claim_after_s": 0.001, "slow_claim_after_s": 0.001}
    assert way.intake("w2", **now).claim(max_frames=10, max_bytes=10**9) == []
    (message,) = eventually(
        lambda: way.intake("wb", worker_set="b", **now).claim(max_frames=10, max_bytes=10**9), what="the claim"
    )
    assert (message.first_sequence, message.crashes) == (1, 1)
    assert way.settler().settle([settlement(message)]) == [True]


def test_the_order_of_service_is_made_again_from_the_streams_of_each_set(way: Way, sets: Sets) -> None:
    for camera in ("cam1", "cam2"):
        way.admit(camera)
    sets.move("cam1", "b", by="ada")
    way.client.delete(way.keys.ready, way.keys.set_ready("b"), way.keys.set_bell("b"))
    assert way.intake().reconcile()[0] == 2
    assert way.intake("wb", worker_set="b").wait(0.01), "its own bell rang"
    assert shown(way) == [("cam1", 1, False)]
    assert [each.camera for each in way.take()] == ["cam2"]
    # A camera in the wrong order by a write of somebody else: it is taken out, and served by its own set.
    way.admit("cam1")
    way.client.zadd(way.keys.ready, {"cam1": 0.0})
    assert way.take() == []
    assert shown(way) == [("cam1", 2, False)]


def test_a_moved_camera_waits_no_longer_than_the_others_of_its_new_set(way: Way, sets: Sets) -> None:
    """Virtual times of two sets have nothing to do with each other."""
    way.admit("cam9")
    sets.move("cam9", "b", by="ada")
    for _ in range(200):
        way.admit("cam1")
    way.settle(way.take())
    way.settle(way.intake("wb", worker_set="b").take(max_frames=10, max_bytes=10**9))
    sets.move("cam1", "b", by="ada")
    for _ in range(20):
        way.admit("cam1")
        way.admit("cam9")
    first = [camera for camera, _, _ in shown(way, frames=20)]
    assert 8 <= first.count("cam1") <= 12


def test_mistakes_are_told_and_change_nothing(way: Way, sets: Sets) -> None:
    before = sorted(way.client.keys(way.keys.prefix.replace("{", "\\{") + "*"))
    for wrong, call in (
        (NotFound, partial(sets.move, "cam9", "b", by="x")),
        (NotFound, partial(sets.move, "cam1", "ghost", by="x")),
        (NotFound, partial(sets.copy, "cam1", "ghost", by="x")),
        (NotFound, partial(sets.remove, "ghost", by="x")),
        (SettingsError, partial(sets.declare, MAIN, {EVERY: "m"}, by="x")),
        (SettingsError, partial(sets.declare, "c", {}, by="x")),
        (ContractError, partial(sets.declare, "a b", {EVERY: "m"}, by="x")),
        (ContractError, partial(sets.declare, "c", {EVERY: "a/b"}, by="x")),
    ):
        with pytest.raises(wrong):
            call()
    assert sorted(way.client.keys(way.keys.prefix.replace("{", "\\{") + "*")) == before
    sets.move("cam1", "b", by="ada")
    with pytest.raises(Conflict, match="still has camera cam1"):
        sets.remove("b", by="ada")
    sets.move("cam1", MAIN, by="ada")
    sets.remove("b", by="ada")
    assert not way.client.exists(way.keys.set_state("b"))


def test_a_retried_frame_goes_to_the_set_that_settles_its_camera(way: Way, sets: Sets) -> None:
    way.admit("cam1")
    (message,) = way.take()
    frame = f"cam1:{message.epoch}:{message.first_sequence}"
    letter = DeadLetter(frame, "cam1", Reason.INTERNAL, "why", data=message.payload or b"")
    assert way.settler().settle([replace(settlement(message, "not_judged"), dead=[letter])]) == [True]
    sets.move("cam1", "b", by="ada")
    retrier = Retrier(way.client, way.line, camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
    entry_id, found = DeadLetters(way.client, way.line).list(Reason.INTERNAL)[0]
    retrier.retry(entry_id, found)
    assert way.take() == []
    assert shown(way) == [("cam1.retry", 0, False)]


def test_main_leaves_the_models_of_other_sets_alone(way: Way, sets: Sets) -> None:
    declared = sets.declare("b", {"default": "plates-b", "lids": "lids-b"}, by="ada")
    assert (declared.model_for("default"), declared.model_for("other")) == ("plates-b", None)
    cameras = read_cameras(way.client, way.line)
    assert foreign_models(sets.read(), cameras) == {"plates-b", "lids-b"}
    set_camera(way.client, way.line, "cam1", model="lids-b")
    assert foreign_models(sets.read(), read_cameras(way.client, way.line)) == {"plates-b"}


# --- under load ------------------------------------------------------------------------------------------------------
MOST, MOVES, DEAD, CAMERAS = 100_000, 40, 3, ("cam1", "cam2")


def test_no_frame_is_lost_or_doubled_while_cameras_move_under_load(server: EmbeddedRedis) -> None:
    """Two sets, two workers each, workers that die with frames in hand, and cameras that move all the time."""
    line = f"sets{next(_lines)}"
    way = Way(server.url, line)
    sets = Sets(way.client, line)
    sets.declare("b", {EVERY: "plates-b"}, by="ada")
    workers = [_worker(server.url, line, f"{name}{number}", name) for name in (MAIN, "b") for number in range(2)]
    hearts = [Heartbeat(way.client, line, f"{name}{number}", period_s=0.2) for name in (MAIN, "b") for number in (0, 1)]
    offered: dict[int, Offer] = {}
    told: dict[int, str] = {}
    done = threading.Event()
    producing = [
        threading.Thread(target=_produce, args=(server.url, line, camera, place * MOST, offered, told, done))
        for place, camera in enumerate(CAMERAS)
    ]
    for heart in hearts:
        heart.start()
    for worker in workers:
        worker.start()
    for thread in producing:
        thread.start()
    draw, moves, lost = random.Random(5), 0, 0
    pause = threading.Event()
    eventually(lambda: set(sets.assignments()) == set(CAMERAS), what="both cameras")
    sets.copy("cam2", "b", by="ada")
    end = time.monotonic() + 60.0
    while (moves < MOVES or lost < DEAD) and time.monotonic() < end:
        camera = draw.choice(CAMERAS)
        stands = sets.assignments()[camera].settled_by
        sets.move(camera, "b" if stands == MAIN else MAIN, by="ada")
        moves += 1
        if moves % 4 == 0:  # a worker that takes and dies at once
            lost += len(_dead(server.url, line, f"dead{moves}", draw.choice((MAIN, "b"))))
        pause.wait(0.02)
    done.set()
    for thread in producing:
        thread.join()
    eventually(lambda: read_ledger(way.client, line).in_flight == 0, what="every frame to be settled", within_s=30.0)
    for worker in workers:
        worker.stop()
    for worker in workers:
        worker.join()
    for heart in hearts:
        heart.stop()
    verdicts = list(Verdicts(way.client, line).read("0-0", count=10**6))
    history = History(
        offered=offered,
        told=told,
        verdicts=verdicts,
        letters=[letter for reason in Reason for _, letter in DeadLetters(way.client, line).each(reason)],
        ledger=read_ledger(way.client, line).rows,
    )
    assert check(history) == []
    assert len(verdicts) == len(told) == len(offered) > 0
    assert (moves, lost) >= (MOVES, DEAD)
    settled_by = {verdict["worker"][:-1] for _, verdict in verdicts}
    assert settled_by == {MAIN, "b"}, "both sets settled frames"
    results = {frame.decode() for _, frame, _ in SetResults(way.client, line, "b").read()}
    assert results <= set(told.values())
    way.close()


def _worker(url: str, line: str, name: str, worker_set: str) -> Worker[object]:
    way = Way(url, line)
    intake = way.intake(name, worker_set=worker_set, claim_after_s=0.2, slow_claim_after_s=5.0)
    results = None if worker_set == MAIN else SetResults(Way(url, line).client, line, worker_set)
    config = WorkerConfig(line, name, 8, 0.002, 2**20, 1, 0.1, 10.0, 0.0, MessageLimits())
    settler = Settler(Way(url, line).client, line)
    return Worker(intake, settler, HarnessJudge((), 0.0, 0.001), config, now_us=lambda: 1, results=results)  # type: ignore[arg-type]


def _dead(url: str, line: str, name: str, worker_set: str) -> Sequence[Message]:
    way = Way(url, line)
    intake = Intake(way.client, line, name, worker_set=worker_set)
    taken: Sequence[Message] = []
    for _ in range(200):
        taken = [each for each in intake.take(max_frames=1, max_bytes=10**6) if not each.copy]
        if taken:
            break
    way.close()
    return taken


def _produce(
    url: str,
    line: str,
    camera: str,
    first: int,
    offered: dict[int, Offer],
    told: dict[int, str],
    done: threading.Event,
) -> None:
    settings = Settings.load({}, redis_url=url, line=line)
    with Producer(camera, settings=settings) as producer:
        for token in range(first, first + MOST):
            if done.wait(0.003):
                break
            kind = Kind.DEFECT if token % 7 == 0 else Kind.GOOD
            offered[token] = Offer(camera, kind)
            receipt = producer.send_many([Shot(pixels(token, kind), str(token))])[0]
            told[token] = receipt.ids[0]


def test_a_set_keeps_a_model_for_every_camera_that_it_settles(way: Way, sets: Sets) -> None:
    """Without one its workers would answer not_judged to every frame of the camera."""
    sets.move("cam1", "b", by="ada")
    before = way.dump()
    with pytest.raises(Conflict, match="settles camera cam1 of model default"):
        sets.declare("b", {"lids": "lids-b"}, by="bob")
    assert way.dump() == before
    sets.declare("b", {"default": "plates-c"}, by="bob")
    sets.move("cam1", MAIN, by="ada")
    sets.declare("b", {"lids": "lids-b"}, by="bob")
