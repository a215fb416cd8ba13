"""Online covariances of other packages on the same features; runs in an environment of its own, knows nothing of ours.

Called by bench.learner with one JSON file: {"features": an .npy of (n, D) float32, "channels", "output"}. Each peer
gets `SECONDS` and says how many events it took in them; what does not install says so.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SECONDS = 20.0
CHUNK = 64


def timed(what: str, chunks: Iterator[int]) -> dict[str, Any]:
    """Events a second of an iterator that yields how many it has taken each time."""
    began, taken = time.perf_counter(), 0
    for count in chunks:
        taken += count
        if time.perf_counter() - began > SECONDS:
            break
    seconds = time.perf_counter() - began
    return {"what": what, "events_per_second": taken / seconds, "events": taken}


def river_peer(rows: NDArray[np.float32], channels: list[int]) -> dict[str, Any]:
    """One EmpiricalCovariance a level, one event at a time: its one way that takes events as they come."""
    import river
    from river.covariance import EmpiricalCovariance

    ends = np.cumsum(channels)
    levels = [EmpiricalCovariance() for _ in channels]

    def run() -> Iterator[int]:
        for row in rows:
            for level, end, width in zip(levels, ends, channels, strict=True):
                level.update({index: float(value) for index, value in enumerate(row[end - width : end])})
            yield 1

    return timed(f"river {river.__version__} EmpiricalCovariance, an event at a time", run())


def alibi_peer(rows: NDArray[np.float32], channels: list[int]) -> dict[str, Any]:
    """Its online Mahalanobis detector a level, three principal components as by default, in chunks."""
    import alibi_detect
    from alibi_detect.od import Mahalanobis

    ends = np.cumsum(channels)
    levels = [Mahalanobis(threshold=1.0) for _ in channels]

    def run() -> Iterator[int]:
        for start in range(0, len(rows), CHUNK):
            block = rows[start : start + CHUNK].astype(np.float64)
            for level, end, width in zip(levels, ends, channels, strict=True):
                level.score(block[:, end - width : end])
            yield len(block)

    return timed(f"alibi-detect {alibi_detect.__version__} Mahalanobis, chunks of {CHUNK}", run())


def main() -> None:
    """Run what is there."""
    ask = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    rows: NDArray[np.float32] = np.load(ask["features"], allow_pickle=False)
    wanted: dict[str, Callable[..., dict[str, Any]]] = {
        "river EmpiricalCovariance": river_peer,
        "alibi-detect online Mahalanobis": alibi_peer,
    }
    found = []
    for name, peer in wanted.items():
        print(f"{name} …", flush=True)
        try:
            found.append(peer(rows, ask["channels"]))
        except ImportError as error:
            found.append({"what": f"{name}: does not install here ({error})"})
    Path(ask["output"]).write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main()
