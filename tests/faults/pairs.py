"""Parts of two frames each, made of the harness's frames, every one of which has a part id of its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final

from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.verdicts import Verdicts
from gaussline.worker.engine.part_book import PartRule
from gaussline.worker.engine.part_judge import PartJudge

RULE: Final = PartRule({}, 2, 500)


def paired(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict with its frame's part: tokens 1 and 2 are part 1, 3 and 4 are part 2."""
    part = verdict["part"]
    return {**verdict, "part": None if part is None else str((int(part) + 1) // 2)}


class PairedVerdicts(Verdicts):
    """The line's verdicts, read so."""

    def read(self, after: str, *, count: int = 500, block_s: float | None = None) -> list[tuple[str, dict[str, Any]]]:
        """Entries after an entry id."""
        return [(entry, paired(verdict)) for entry, verdict in super().read(after, count=count, block_s=block_s)]


def judge_pairs(client: Redis, line: str, stopping: threading.Event) -> None:
    """The product's part judge over such parts, until it is told to stop."""
    judge = PartJudge(client, line, RULE)
    judge._verdicts = PairedVerdicts(client, line)
    judge.run(stopping, block_s=0.1)
