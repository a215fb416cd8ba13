"""A session on a real Redis: checkpoints, the lease, feedback, and what happens to a learner that is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from gaussline.worker.broker.checkpoints import CheckpointStore
from gaussline.worker.broker.client import Redis, connect
from gaussline.worker.broker.feature_log import FeatureLog
from gaussline.worker.broker.feedback import FeedbackLog
from gaussline.worker.broker.lease import Lease
from gaussline.worker.broker.registry import Registry
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.feedback import Feedback, Label
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.order import Order, OrderKind
from gaussline.worker.errors import ArtefactError, BrokerUnavailable, Fenced, NotFound
from gaussline.worker.gaussian.moments import Moments
from gaussline.worker.learning.learner_state import read_moments
from gaussline.worker.learning.policy import Policy
from gaussline.worker.learning.proposal import Proposer
from gaussline.worker.learning.session import Rhythm, Session
from tests.gaussian.laws import identical
from tests.learning.log import events, fitted, promote, write
from tests.learning.synthetic import CHANNELS, normal
from tests.support.cli import Cli
from tests.support.waiting import eventually

MODEL, ARTEFACT = fitted()
_GONE = BrokerUnavailable("gone")
POLICY = Policy(block=32, quarantine_s=40.0, watch=True, propose_frames=None)
SETTINGS = {
    "GAUSSLINE_LEARN_BLOCK": "32",
    "GAUSSLINE_LEARN_QUARANTINE_S": "40",
    "GAUSSLINE_LEARN_CHECKPOINT_S": "0.01",
    "GAUSSLINE_LEARN_PROPOSE_FRAMES": "400",
}


@pytest.fixture
def client(cli: Cli) -> Iterator[Redis]:
    opened = connect(cli.url)
    promote(opened, cli.line, ARTEFACT)
    yield opened
    opened.close()


def made(count: int, first: int = 0, seed: int = 7) -> list[FeatureEvent]:
    return events(MODEL, ARTEFACT.digest, normal(count, seed + first), first=first)


def session(client: Redis, line: str, owner: str = "one", **options: Any) -> Session:
    quiet: dict[str, Any] = {"rhythm": Rhythm(checkpoint_s=1e9), "sleep": lambda seconds: None}
    options = quiet | options
    return Session(client, line, "default", options.pop("policy", POLICY), owner=owner, **options)


def drain(running: Session) -> int:
    """Step until the log has no whole block left; blocks folded."""
    folded = 0
    while running.step(0.0):
        folded += 1
    return folded


def learnt(client: Redis, line: str) -> list[Moments]:
    """The moments of the newest checkpoint."""
    store = CheckpointStore(client, line, "default")
    checkpoint = store.latest()
    assert checkpoint is not None
    return read_moments(Artefact.unpack(store.load(checkpoint, "moments")))[1]


def undisturbed(client: Redis, line: str) -> list[Moments]:
    running = session(client, line, policy=POLICY)
    running.open()
    drain(running)
    running.abandon()
    running.lease.release()
    return running.learner.moments


def test_closing_and_opening_changes_no_bit(cli: Cli, client: Redis) -> None:
    write(client, cli.line, made(2_400))
    want = undisturbed(client, cli.line)
    for turn in range(12):
        running = session(client, cli.line, f"turn{turn}")
        running.open()
        for _ in range(turn):
            running.step(0.0)
        running.close()
    running = session(client, cli.line)
    running.open()
    drain(running)
    assert running.learner.moments[0].count > 500
    for have, level in zip(running.learner.moments, want, strict=True):
        identical(have, level)
    running.close()


@pytest.mark.parametrize(("checkpoint_s", "said"), [(0.0, True), (1e9, False)], ids=["saved", "not saved"])
def test_a_learner_says_that_it_caught_up_where_a_checkpoint_has_every_whole_block(
    cli: Cli, client: Redis, checkpoint_s: float, said: bool
) -> None:
    """What is left of a block waits for company, however long; what is folded and in no checkpoint is not done."""
    write(client, cli.line, made(POLICY.block + 8))
    running = session(client, cli.line, rhythm=Rhythm(checkpoint_s, lease_s=0.0))
    running.open()
    key = Keys(cli.line).learner("default")
    while running.step(time.monotonic()):
        assert not client.hexists(key, "caught_up_us"), "there may be more"
    running.step(time.monotonic())
    running.step(time.monotonic())
    assert bool(client.hexists(key, "caught_up_us")) is said
    running.abandon()


def test_a_learner_killed_at_any_instant_ends_with_the_same_bits(cli: Cli, client: Redis) -> None:
    """Real processes, kill -9 at random instants, orders in the log among the frames."""
    items: list[FeatureEvent | Order] = list(made(3_200))
    for place, order in (
        (1_900, Order(OrderKind.BAD, "ada", frame="cam1:1:1880")),
        (2_200, Order(OrderKind.FREEZE, "ada", camera="cam1")),
        (2_300, Order(OrderKind.RESUME, "ada", camera="cam1")),
    ):
        items.insert(place, order)
    write(client, cli.line, items[:1_611])  # no whole number of blocks: cuts by arrival would lie elsewhere
    rng = np.random.default_rng(4)
    other = Cli(cli.url, f"{cli.line}u")
    promote(client, other.line, ARTEFACT)
    write(client, other.line, items)
    other("learn", "default", "--once", env=SETTINGS)
    want = learnt(client, other.line)
    key = Keys(cli.line).learner("default")
    kills = 0
    for turn in range(6):
        process = cli.start("learn", "default", "--name", f"turn{turn}", **SETTINGS)
        seen = client.hget(key, "checkpoint")
        eventually(lambda before=seen: client.hget(key, "checkpoint") != before, within_s=60)  # type: ignore[misc]
        # From here on it is somewhere between two checkpoints, or in the middle of one.
        reached(client, key, position(client, key) + int(rng.integers(0, 6)), process)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        kills += 1
        if turn == 0:
            write(client, cli.line, items[1_611:])
        client.hdel(key, "owner")  # what its expiry would do, without the wait
    cli("learn", "default", "--once", env=SETTINGS)
    assert kills == 6
    for have, level in zip(learnt(client, cli.line), want, strict=True):
        identical(have, level)
    assert want[0].count > 1_000


def reached(client: Redis, key: str, at: int, process: subprocess.Popen[str]) -> None:
    """Wait until a checkpoint lies so far on, or the process has nothing left to do for a while."""
    end = time.monotonic() + 2.0
    eventually(lambda: position(client, key) >= at or process.poll() is not None or time.monotonic() > end)


def position(client: Redis, key: str) -> int:
    text = client.hget(key, "checkpoint")
    return 0 if text is None else int(json.loads(text)["about"]["position"])


def test_two_learners_never_both_write(cli: Cli, client: Redis) -> None:
    write(client, cli.line, made(320))
    first = session(client, cli.line, "first")
    first.open()
    second = session(client, cli.line, "second")
    with pytest.raises(Fenced, match=r"first.*holds the lease"):
        second.open()
    drain(first)
    first.checkpoint()
    client.hset(Keys(cli.line).learner("default"), "until_us", 0)  # its lease ran out
    second.open()
    before = client.hgetall(Keys(cli.line).learner("default")), client.xlen(Keys(cli.line).features("default"))
    for late in (first.checkpoint, first.close, lambda: first.lease.renew()):
        with pytest.raises(Fenced):
            late()
    after = client.hgetall(Keys(cli.line).learner("default")), client.xlen(Keys(cli.line).features("default"))
    assert before == after
    second.close()


def test_events_stay_until_the_checkpoint_has_passed_them(cli: Cli, client: Redis) -> None:
    write(client, cli.line, made(320))
    running = session(client, cli.line)
    running.open()
    drain(running)
    log = FeatureLog(client, cli.line, "default")
    assert log.length() == 320
    running.checkpoint()
    waiting = sum(len(entry.block.entries) for entry in running.learner.pending)
    assert log.length() == waiting > 0
    left = sum(len(fields[b"e"]) for _, fields in client.xrange(Keys(cli.line).features("default")))
    assert int(client.hget(Keys(cli.line).totals, "features_bytes:default")) == left
    running.close()


def test_entries_that_a_killed_learner_left_behind_its_checkpoint_go_at_the_next_one(cli: Cli, client: Redis) -> None:
    write(client, cli.line, made(320))
    running = session(client, cli.line)
    running.open()
    drain(running)
    with patch.object(FeatureLog, "passed", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        running.checkpoint()
    running.abandon()
    log = FeatureLog(client, cli.line, "default")
    assert log.length() == 320
    again = session(client, cli.line)
    again.open()
    again.checkpoint()
    assert log.length() == sum(len(entry.block.entries) for entry in again.learner.pending) < 320
    left = sum(len(fields[b"e"]) for _, fields in client.xrange(Keys(cli.line).features("default")))
    assert int(client.hget(Keys(cli.line).totals, "features_bytes:default")) == left
    again.close()


def test_what_redis_did_not_take_is_deleted_said_and_proposed_when_it_is_back(cli: Cli, client: Redis) -> None:
    """Redis goes away at each of these moments; afterwards all is as if it had not."""
    write(client, cli.line, [*made(1_600), Order(OrderKind.FREEZE, "ada"), *made(31, first=1_600)])
    running = session(client, cli.line, policy=replace(POLICY, propose_frames=100))
    running.open()
    write_through, away = running.lease.write, {"say", "pass"}

    def broken(what: str, *args: Any) -> Any:
        if what in away:
            away.discard(what)
            raise BrokerUnavailable("gone")
        return write_through(what, *args)

    proposer = Proposer(running, by="test")
    gone = patch.object(Registry, "publish", side_effect=[_GONE, _GONE])
    with patch.object(Lease, "write", side_effect=broken), gone:
        with pytest.raises(BrokerUnavailable):
            drain(running)
        assert drain(running) == 0, "the order's block was the last, and was folded"
        with pytest.raises(BrokerUnavailable):
            running.checkpoint()
        running.checkpoint()
        assert running.learner.due()
        with pytest.raises(BrokerUnavailable):
            proposer.propose()
    kinds = [fields[b"kind"] for _, fields in client.xrange(Keys(cli.line).drift("default"))]
    assert kinds == [b"order"]
    waiting = sum(len(entry.block.entries) for entry in running.learner.pending)
    assert FeatureLog(client, cli.line, "default").length() == waiting
    assert running.learner.due(), "it is proposed again"
    assert proposer.propose().passed
    assert not running.learner.due()
    running.close()


def test_a_gap_stands_in_the_lineage(cli: Cli, client: Redis) -> None:
    write(client, cli.line, made(96))
    running = session(client, cli.line)
    running.open()
    drain(running)
    before = running.learner.scouted_id
    write(client, cli.line, made(96, first=96))
    key, totals = Keys(cli.line).features("default"), Keys(cli.line).totals
    lost = client.xrange(key)[96:128]
    client.xdel(key, *[entry for entry, _ in lost])
    client.hset(totals, mapping={"features_gap:default": lost[-1][0], "features_dropped:default": 32})
    drain(running)
    gaps = [fact for fact in running.learner.lineage if "gap" in fact]
    assert gaps == [{"gap": [before, lost[-1][0].decode()], "dropped": 32}]
    assert running.learner.position == 5
    running.close()


def test_feedback_enters_the_log_once_as_orders(cli: Cli, client: Redis) -> None:
    frames = made(96)
    write(client, cli.line, frames)
    keys = Keys(cli.line)
    client.hset(keys.camera("cam1"), mapping={"epoch": 1, "last_seq": 1000})
    running = session(client, cli.line)
    running.open()
    drain(running)
    FeedbackLog(client, cli.line).write(Feedback(frames[70].id, Label.BAD, "ada"))
    client.xadd(keys.feedback, {"v": "1", "nonsense": "yes"})
    running.step(0.0)
    running.step(0.0)
    orders = [fields[b"o"] for _, fields in client.xrange(keys.features("default")) if b"o" in fields]
    assert [Order.decode(order).frame for order in orders] == [frames[70].id]
    running.close()
    again = session(client, cli.line, "two")
    again.open()
    again.step(0.0)
    assert sum(b"o" in fields for _, fields in client.xrange(keys.features("default"))) == 1
    write(client, cli.line, made(31, first=96))
    assert again.step(0.0)
    assert again.learner.labels == {frames[70].id: "bad"}
    again.close()


def test_a_torn_or_tampered_checkpoint_is_refused_and_nothing_is_written(cli: Cli, client: Redis) -> None:
    write(client, cli.line, made(320))
    running = session(client, cli.line)
    running.open()
    drain(running)
    running.close()
    key = Keys(cli.line).learned("default")
    checkpoint = CheckpointStore(client, cli.line, "default").latest()
    assert checkpoint is not None
    digest = checkpoint.parts["moments"]["chunks"][0]
    whole = client.hget(key, digest)
    for value, word in ((whole[:-1] + b"x", "tampered"), (None, "torn")):
        client.hdel(key, digest) if value is None else client.hset(key, digest, value)
        before = client.hget(Keys(cli.line).learner("default"), "checkpoint")
        with pytest.raises(ArtefactError, match=word):
            session(client, cli.line).open()
        assert client.hget(Keys(cli.line).learner("default"), "checkpoint") == before
    client.hset(key, digest, whole)
    session(client, cli.line).open()


def test_a_checkpoint_of_another_backbone_is_refused(cli: Cli, client: Redis) -> None:
    running = session(client, cli.line)
    running.open()
    running.close()
    manifest = json.loads(json.dumps(dict(ARTEFACT.manifest)))
    manifest["spec"]["weights_digest"] = "1" * 64
    promote(client, cli.line, Artefact.pack(manifest, ARTEFACT.arrays))
    with pytest.raises(ArtefactError, match="another backbone"):
        session(client, cli.line).open()
    fresh = session(client, cli.line)
    fresh.open(restart=True)
    fresh.close()


def test_a_model_without_a_version_cannot_be_learnt_for(cli: Cli) -> None:
    client = connect(cli.url)
    with pytest.raises(NotFound, match="no stable version"):
        session(client, cli.line).open()
    assert Lease(client, cli.line, "default", "other").take() > 0
    client.close()


def test_chunks_are_small_and_old_ones_go(cli: Cli, client: Redis) -> None:
    write(client, cli.line, made(640))
    running = session(client, cli.line, policy=Policy(block=32, quarantine_s=40.0, watch=False))
    running.open()
    for _ in range(10):
        running.step(0.0)
        saved = running.checkpoint()
        assert set(client.hkeys(Keys(cli.line).learned("default"))) == {digest.encode() for digest in saved.chunks}
    assert all(len(value) <= 512_000 for value in client.hvals(Keys(cli.line).learned("default")))
    assert any(name.startswith("page.") for name in saved.parts)
    running.close()


def test_moments_of_files_merge_and_subtract(cli: Cli, client: Redis, tmp_path: Any) -> None:
    write(client, cli.line, made(1_600))
    cli("learn", "default", "--once", "--empty", env=SETTINGS)
    one, both, rest = (str(tmp_path / name) for name in ("one", "both", "rest"))
    cli("moments", "export", "default", "-o", one)
    twice = json.loads(cli("moments", "merge", one, one, "-o", both, "--json").stdout)
    assert twice["frames"] == 2 * learnt(client, cli.line)[0].count > 0
    cli("moments", "subtract", both, one, "-o", rest)
    spec, moments, lineage = read_moments(Artefact.unpack((tmp_path / "rest").read_bytes()))
    assert spec.channels == CHANNELS
    assert moments[0].count == learnt(client, cli.line)[0].count
    assert np.allclose(moments[2].scatter, learnt(client, cli.line)[2].scatter, rtol=1e-9, atol=1e-12)
    assert {"subtracted": "one"} in lineage
    cli("moments", "import", "default", both, "--by", "ada", env=SETTINGS)
    assert learnt(client, cli.line)[0].count == twice["frames"]
    shown = json.loads(cli("moments", "show", "default", "--json").stdout)
    assert shown["count"] == twice["frames"]
    cli("moments", "subtract", one, both, "-o", rest, code=1)


def test_orders_of_an_operator_reach_the_learner(cli: Cli, client: Redis) -> None:
    write(client, cli.line, made(31))
    cli("drift", "freeze", "default", "--note", "tool change", "--by", "ada")
    cli("learn", "default", "--once", env=SETTINGS)
    assert "ada: tool change" in cli("drift", "list", "default").stdout
    (row,) = json.loads(cli("drift", "list", "default", "--json").stdout)
    assert (row["kind"], row["order"], row["by"]) == ("order", "freeze", "ada")
