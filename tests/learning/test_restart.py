"""A learner whose Redis was started again, or replaced: it goes on from the checkpoint that is there."""

from __future__ import annotations

import pytest

from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.contract.keys import Keys
from gaussline.worker.errors import AnotherRun
from gaussline.worker.learning.session import Rhythm
from tests.gaussian.laws import identical
from tests.learning.log import promote, write
from tests.learning.test_session import ARTEFACT, drain, learnt, made, session

LINE = "again"


def test_what_the_server_has_forgotten_is_not_learnt_and_what_it_has_is_learnt_once() -> None:
    """Two blocks with a checkpoint, one without; that one is lost, and another stands in its place."""
    with EmbeddedRedis() as server:
        client = server.client()
        promote(client, LINE, ARTEFACT)
        write(client, LINE, made(64))
        running = session(client, LINE, rhythm=Rhythm(checkpoint_s=1e9, lease_s=60.0))
        running.open()
        assert drain(running) == 2
        running.checkpoint()
        write(client, LINE, made(32, first=64))
        assert drain(running) == 1
        forgotten = [entry_id for entry_id, _ in client.xrange(Keys(LINE).features("default"))][-32:]
        server.kill()
        server.start()
        client.xdel(Keys(LINE).features("default"), *forgotten)
        write(client, LINE, made(96, first=96))
        with pytest.raises(AnotherRun):
            running.checkpoint()
        assert drain(running) == 3
        running.checkpoint()
        have = learnt(client, LINE)
        promote(client, f"{LINE}u", ARTEFACT)
        write(client, f"{LINE}u", [*made(64), *made(96, first=96)])
        other = session(client, f"{LINE}u")
        other.open()
        drain(other)
        assert len(other.learner.pending) <= 2, "the block that stands in the place of the lost one has taught"
        for level, want in zip(have, other.learner.moments, strict=True):
            identical(level, want)
        for one in (running, other):
            one.close()
        client.close()
