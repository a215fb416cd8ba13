"""What arrives when, and how often, changes nothing that is learnt: cuts, redelivered answers, feedback taken twice."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.feedback import FeedbackLog
from gaussline.worker.broker.lease import Lease
from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.feedback import Feedback, Label
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.order import Order, OrderKind
from gaussline.worker.errors import BrokerUnavailable
from gaussline.worker.learning.learner import Learner
from gaussline.worker.learning.learner_state import pack_moments, pack_state
from tests.learning.log import write
from tests.learning.test_session import POLICY, client, drain, made, session
from tests.support.cli import Cli

__all__ = ["client"]


def packed(learner: Learner) -> dict[str, bytes]:
    """All that a checkpoint would hold of it."""
    pages = {f"page.{page.number}": page.pack() for page in learner.reservoir.pages}
    return {"moments": pack_moments(learner), "state": pack_state(learner), **pages}


def test_pieces_that_arrive_while_the_learner_waits_are_cut_where_a_whole_log_is(cli: Cli, client: Redis) -> None:
    """It folds whatever is whole after each piece; a learner that finds all of it there ends with the same bits."""
    items: list[FeatureEvent | Order] = list(made(1_400))
    items.insert(700, Order(OrderKind.BAD, "ada", frame="cam1:1:690"))
    items.insert(900, Order(OrderKind.FREEZE, "ada", camera="cam1"))
    items.insert(905, Order(OrderKind.RESUME, "ada", camera="cam1"))
    rng = np.random.default_rng(8)
    waiting = session(client, cli.line, "waiting")
    waiting.open()
    folded, there, turns = 0, 0, 0
    while there < len(items):
        size = int(rng.integers(1, 3 * POLICY.block))
        write(client, cli.line, items[there : there + size])
        there, turns = min(there + size, len(items)), turns + 1
        folded += drain(waiting)
        assert folded == waiting.learner.position == there // POLICY.block
    waiting.abandon()
    waiting.lease.release()
    undisturbed = session(client, cli.line, "undisturbed")
    undisturbed.open()
    assert drain(undisturbed) == folded
    assert turns > 20
    assert waiting.learner.moments[0].count > 500
    assert packed(waiting.learner) == packed(undisturbed.learner)
    undisturbed.close()


def test_feedback_whose_answer_got_lost_becomes_no_second_order(cli: Cli, client: Redis) -> None:
    """Redis took the orders and moved the cursor, and then the connection broke: asked again, it takes nothing more."""
    frames = made(96)
    write(client, cli.line, frames)
    keys = Keys(cli.line)
    client.hset(keys.camera("cam1"), mapping={"epoch": 1, "last_seq": 1000})
    feedback = FeedbackLog(client, cli.line)
    first = feedback.write(Feedback(frames[70].id, Label.BAD, "ada"))
    running = session(client, cli.line)
    running.open()
    write_through, lost = running.lease.write, ["order"]

    def deaf(what: str, *args: Any) -> Any:
        answer = write_through(what, *args)
        if what in lost:
            lost.remove(what)
            raise BrokerUnavailable("the answer got lost")
        return answer

    def orders() -> list[str]:
        log = client.xrange(keys.features("default"))
        return [Order.decode(fields[b"o"]).source for _, fields in log if b"o" in fields]

    with patch.object(Lease, "write", side_effect=deaf):
        with pytest.raises(BrokerUnavailable):
            running.step(0.0)
        assert orders() == [first]
        second = feedback.write(Feedback(frames[71].id, Label.BAD, "bob"))
        running.step(0.0)
        assert orders() == [first], "what was asked again found the cursor moved"
        running.step(0.0)
        assert orders() == [first, second]
    write(client, cli.line, made(30, first=96))
    drain(running)
    assert running.learner.labels == {frames[70].id: "bad", frames[71].id: "bad"}
    running.close()
