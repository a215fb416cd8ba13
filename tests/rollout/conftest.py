"""A line with versions on it, and verdicts as workers write them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from gaussline.worker.broker.client import connect, time_us
from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.registry import Registry
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.keys import Keys
from gaussline.worker.contract.trial import CANARY, STABLE, Selection, Trial
from gaussline.worker.contract.verdict import Decision, ModelRef, Opinion, Verdict

_lines = itertools.count()


class Line:
    """One line of the tests: its registry, and verdicts written by hand."""

    def __init__(self, url: str, name: str) -> None:
        self.client = connect(url)
        self.name = name
        self.url = url
        self.keys = Keys(name)
        self.registry = Registry(self.client, name)
        self._sequence = itertools.count()
        self.rng = np.random.default_rng(1)

    def versions(self, count: int) -> None:
        """Publish versions whose artefacts are small and different."""
        for number in range(count):
            data = Artefact.pack({"kind": "example"}, {"a": np.full(3, float(number))}).data
            self.registry.publish("default", data, by="ada")

    def ref(self, version: int, channel: str) -> ModelRef:
        """A version as verdicts name it."""
        return ModelRef("default", version, self.registry.version("default", version).digest, channel)

    def begin(
        self, version: int = 2, *, channel: str = CANARY, for_s: float = 0.0, frames: int = 100, **more: object
    ) -> None:
        """Put a version on trial."""
        trial = Trial(for_s, min_frames=frames, **more)  # type: ignore[arg-type]
        chosen = Selection(0.5) if channel == CANARY else None
        self.registry.promote("default", version, by="ada", channel=channel, selection=chosen, trial=trial)

    def verdicts(
        self, cells: dict[tuple[bool, bool], int], *, channel: str = CANARY, new: int = 2, old: int = 1
    ) -> None:
        """Write verdicts by (stable fails, new version fails), in random order."""
        pairs = [pair for pair, count in cells.items() for _ in range(count)]
        stable, tried = self.ref(old, STABLE), self.ref(new, channel)
        now_us = time_us(self.client)
        pipeline = self.client.pipeline(transaction=False)
        for place in self.rng.permutation(len(pairs)):
            old_fails, new_fails = pairs[place]
            said = {STABLE: (stable, old_fails), channel: (tried, new_fails)}
            decides, fails = said[CANARY if channel == CANARY else STABLE]
            other, other_fails = said[STABLE if channel == CANARY else channel]
            opinion = Opinion(
                other.channel, other.version, other.digest, decision(other_fails), 1.0, 0.001 if other_fails else 0.5
            )
            sequence = next(self._sequence)
            verdict = Verdict(
                id=f"cam1:1:{sequence}",
                line=self.name,
                camera="cam1",
                epoch=1,
                sequence=sequence,
                decision=decision(fails),
                worker="w1",
                admitted_us=now_us - 20_000,
                captured_us=now_us - 30_000,
                score=1.0,
                threshold=2.0,
                p_value=0.001 if fails else 0.5,
                level_scores={},
                model=decides,
                backbone="b",
                judged_us=now_us,
                opinions=(opinion,),
            )
            fields = {"id": verdict.id, "camera": "cam1", "decision": verdict.decision.value, "json": verdict.to_json()}
            pipeline.xadd(self.keys.verdicts, fields)
        pipeline.execute()

    def pointer(self, channel: str = STABLE) -> int | None:
        """Where a channel points."""
        found = self.registry.pointer("default", channel)
        return None if found is None else found.version


def decision(failed: bool) -> Decision:
    """As verdicts say it."""
    return Decision.FAIL if failed else Decision.PASS


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedRedis]:
    """One running server."""
    with EmbeddedRedis() as running:
        yield running


@pytest.fixture
def line(server: EmbeddedRedis) -> Iterator[Line]:
    """A line with three versions, the first of them stable."""
    made = Line(server.url, f"line{next(_lines)}")
    made.versions(3)
    made.registry.promote("default", 1, by="ada")
    yield made
    made.client.close()
