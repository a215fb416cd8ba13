"""The isolated process of the harness's workers: the product's, around the harness's judge."""

from __future__ import annotations

import sys
from typing import Any, Final

from gaussline.worker.engine.isolated import serve
from tests.faults.judge import HarnessJudge

PROGRAM: Final = (sys.executable, "-m", "tests.faults.isolated")


def _judge(about: dict[str, Any]) -> HarnessJudge:
    return HarnessJudge([], 0.0, about["batch_s"])


if __name__ == "__main__":
    serve(_judge)
