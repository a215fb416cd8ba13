"""A kept frame is scored again as its worker scored it, whatever the model's working point is made of."""

from __future__ import annotations

from typing import Any

import pytest

from gaussline.worker.contract.frame import Frame
from gaussline.worker.contract.trial import STABLE
from gaussline.worker.contract.verdict import ModelRef
from gaussline.worker.engine.recheck import Recheck
from gaussline.worker.gaussian.calibration import Method
from gaussline.worker.learning.fit import FitOptions, fit_model
from gaussline.worker.settings import Settings
from gaussline.worker.vision.scorer import Scorer
from tests.learning.synthetic import SPEC, normal
from tests.rollout.conftest import Line
from tests.rollout.test_channels import Bench

METHODS = [Method.CONFORMAL, Method.CROSS_CONFORMAL, Method.PARETO, Method.ROBUST]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_look_says_what_the_worker_said(line: Line, method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(line)
    model = fit_model(normal(1200, seed=4), SPEC, FitOptions(rate=0.05, method=method))
    version = line.registry.publish("real", model.to_artefact().data, by="ada")
    bench.point(STABLE, version.number)
    recheck = Recheck(Settings.load({}, line=line.name, redis_url=line.url), line.client)
    backbone: Any = (bench.features, Scorer(SPEC))
    monkeypatch.setattr(recheck, "_backbone", lambda spec: backbone)
    ref = ModelRef("real", version.number, version.digest, STABLE)
    for row, judged in enumerate(bench.judged()[:20]):
        frame = Frame(bytes([row] * 64), "raw", 1_700_000_000_000_000, shape=(8, 8), dtype="uint8")
        look = recheck.look(frame, ref)
        assert look.failed is judged.failed
        assert look.p_value == pytest.approx(judged.p_value, rel=1e-4)
        assert look.score == pytest.approx(judged.score, rel=1e-6)
