"""A line with a few judged, kept frames, written without a worker or a backbone, and a browser to look at its page."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from gaussline.worker.broker.embedded import EmbeddedRedis
from gaussline.worker.broker.heat_maps import HeatMaps
from gaussline.worker.broker.settle import Settlement, Settler
from gaussline.worker.contract.frame import Frame, encode_batch, frame_id
from gaussline.worker.contract.heat_map import Explanation, reference
from gaussline.worker.contract.verdict import Decision, ModelRef, Opinion, Verdict
from gaussline.worker.settings import Settings
from tests.broker.way import Way
from tests.review.tab import Tab
from tests.support.skips import program

MODEL = ModelRef("plates", 7, "cd" * 32)
_lines = itertools.count()


class ReviewLine(Way):
    """A line whose frames are settled as a worker settles them."""

    def settings(self, url: str, **more: str) -> Settings:
        """Its settings."""
        return Settings.load({}, redis_url=url, line=self.line, **more)

    def judged(
        self,
        decision: Decision,
        score: float,
        *,
        camera: str = "cam1",
        part: str = "P-1",
        opinion: Decision | None = None,
        heat_map: bool = False,
        levels: dict[str, float] | None = None,
    ) -> str:
        """Admit one frame and settle it, kept; its id."""
        self.admit(camera)
        (message,) = self.take()
        identity = frame_id(camera, message.epoch, message.first_sequence)
        opinions: tuple[Opinion, ...] = ()
        if opinion is not None:
            opinions = (Opinion("shadow", 8, "ef" * 32, opinion, score, 0.5),)
        verdict = Verdict(
            identity,
            self.line,
            camera,
            message.epoch,
            message.first_sequence,
            decision,
            "w1",
            message.admitted_us,
            captured_us=message.admitted_us,
            part=part,
            score=score,
            threshold=100.0,
            p_value=0.001 if decision is Decision.FAIL else 0.2,
            level_scores=levels or {"features.1": score / 3, "features.3": 2 * score / 3},
            model=MODEL,
            backbone="b",
            kept=True,
            heat_map=reference(identity, MODEL.digest) if decision is Decision.FAIL else None,
            opinions=opinions,
        )
        settlement = Settlement(
            camera,
            message.entry_id,
            [(identity, decision.value, verdict.to_open_json())],
            kept=[(identity, encode_batch(camera, message.epoch, message.first_sequence, [picture()]))],
        )
        assert Settler(self.client, self.line).settle([settlement]) == [True]
        if heat_map:
            values = np.linspace(-1.0, 3.0, 16, dtype=np.float32).reshape(4, 4)
            distance = float(np.sqrt(values.sum(dtype=np.float64)))
            told = Explanation(
                distance, (32, 32), {"features.1": values}, {"features.1": distance}, {"features.1": distance}
            )
            HeatMaps(self.client, self.line).put(reference(identity, MODEL.digest), told.to_bytes())
        return identity


def picture() -> Frame:
    """A small picture."""
    file = io.BytesIO()
    colours = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(colours).save(file, "PNG")
    return Frame(file.getvalue(), "png", 1_700_000_000_000_000)


@pytest.fixture(scope="package")
def server() -> Iterator[EmbeddedRedis]:
    """One Redis for all tests of this folder."""
    with EmbeddedRedis() as running:
        yield running


@pytest.fixture
def line(server: EmbeddedRedis) -> Iterator[ReviewLine]:
    """An empty line."""
    opened = ReviewLine(server.url, f"line{next(_lines)}")
    yield opened
    opened.close()


@pytest.fixture(scope="package")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A browser's tab."""
    opened = Tab(program("chromium", "chromium"), tmp_path_factory.mktemp("browser"))
    try:
        yield opened
    finally:
        opened.close()
