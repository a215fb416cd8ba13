"""Many episodes, several at a time, each reproducible by its number: `make faults`."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from tests.faults.checker import shortened
from tests.faults.episode import SETTLE_S, Result, run
from tests.faults.plan import Plan, draw
from tests.faults.server import Server
from tests.faults.stage import Stage
from tests.faults.zygote import Zygote

EPISODES_A_SERVER: Final = 40
"""Then a new server, so that its append-only file, and with it a restart, stays short."""


def episodes(
    seeds: Sequence[int],
    *,
    appendfsync: str = "always",
    faults: Sequence[str] = (),
    broken_as: str = "",
    plan: Callable[[int], Plan] | None = None,
    frames: int = 420,
    settle_s: float = SETTLE_S,
) -> Iterator[Result]:
    """Run the episodes of these seeds, one after the other, on shared servers."""
    with tempfile.TemporaryDirectory(prefix="gaussline-faults-") as folder, Zygote() as zygote:
        for start in range(0, len(seeds), EPISODES_A_SERVER):
            server = Server(Path(folder) / f"server{start}", appendfsync)
            try:
                server.start()
                for seed in seeds[start : start + EPISODES_A_SERVER]:
                    drawn = plan(seed) if plan else draw(seed, faults, frames=frames)
                    with closing(Stage(server, zygote, drawn, Path(folder) / "episode", broken_as)) as stage:
                        yield run(stage, settle_s)
            finally:
                server.close()


def describe(result: Result) -> dict[str, Any]:
    """One episode as a line of JSON."""
    return {
        "seed": result.plan.seed,
        "faults": list(result.plan.faults),
        "admitted": result.admitted,
        "verdicts": result.verdicts,
        "duplicates": result.duplicates,
        "seconds": round(result.seconds, 3),
        "settled_s": round(result.settled_s, 3),
        "recovered_s": [round(value, 3) for value in result.recovered_s],
        "restarted_s": [round(value, 3) for value in result.restarted_s],
        "reasons": dict(result.reasons),
        "counts": dict(Counter(finding.fault.value for finding in result.findings)),
        "power_cuts": result.taken.cuts,
        "lost_within_s": result.taken.lost_within_s,
        "doubled_within_s": result.taken.doubled_within_s,
        "findings": [str(finding) for finding in shortened(result.findings)],
        "broken": [str(finding) for finding in shortened(result.taken.broken)],
    }
