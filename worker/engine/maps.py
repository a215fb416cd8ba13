"""Heat maps of failed frames, made beside the verdict path and never on it.

A batch's feature maps are at hand while it is scored; those of a failed frame are copied (0.1 ms for MobileNetV2, about
1 ms for EfficientNet-B4) where a place is free, and one thread makes the map and stores it. Where no place is free, as
in a burst of defects, the map is shed and counted: `gaussline heatmap` can still make it from the kept frame.
The thread has the lowest priority.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gaussline.worker.contract.heat_map import reference
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.verdict import ModelRef
from gaussline.worker.engine.observer import Observer
from gaussline.worker.errors import BrokerError
from gaussline.worker.vision.features import Maps
from gaussline.worker.vision.heatmap import explain

Store = Callable[[str, bytes], None]
"""Takes a map under its reference; raises BrokerError where it cannot."""
IDLE_S = 0.25


def _stand_back() -> None:
    """Take what the other threads leave of the cores: a map may come later, or not at all; a verdict may not."""
    with contextlib.suppress(AttributeError, OSError):  # on Linux a thread has a niceness of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    identity: str
    ref: ModelRef
    model: Model
    features: list[NDArray[np.float32]]
    maps: Maps
    farthest: tuple[int, ...]


class MapDesk:
    """Takes failed frames from any number of lanes, and gives maps to a store.

    Args:
        waiting: most frames that wait; each holds its feature maps (1.7 MB for MobileNetV2, 14 MB for EfficientNet-B4).
        observer: is told what became of every map: stored, shed, refused by the store, or failed.
        begin_thread: what a thread does first that computes little and must not wake many others.
    """

    def __init__(
        self,
        store: Store,
        *,
        waiting: int,
        observer: Observer | None = None,
        begin_thread: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._observer = observer or Observer()
        self._begin_thread = begin_thread
        self._monotonic = monotonic
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # A place is taken before anything is copied, and is free again when the map is done.
        self._places = threading.BoundedSemaphore(waiting)
        self._thread: threading.Thread | None = None

    def offer(
        self,
        identity: str,
        ref: ModelRef,
        model: Model,
        features: Sequence[torch.Tensor],
        maps: Maps,
        row: int,
        farthest: tuple[int, ...] = (),
    ) -> str:
        """Take a failed frame where there is room; the reference of its map, which may never come.

        Args:
            features: (n, d) a level of the batch, as they were scored.
            maps: of the same batch; only `row` of it is copied.
            farthest: which region of each level made its distance; looked for again where it is not given.
        """
        if self._places.acquire(blocking=False):
            pooled = [level[row].cpu().numpy() for level in features]
            # Copied as it lies: turning it into rows is for the other thread, and the batch's memory must go.
            own = Maps(tuple(level[row : row + 1].clone() for level in maps.levels))
            self._jobs.put(_Job(identity, ref, model, pooled, own, farthest))
        else:
            self._observer.heat_map("shed", 0.0)
        return reference(identity, ref.digest)

    def step(self, timeout_s: float = IDLE_S) -> bool:
        """Make one map, waiting for it at most `timeout_s`; False where the end was reached."""
        try:
            job = self._jobs.get(timeout=timeout_s)
        except queue.Empty:
            return True
        if job is None:
            return False
        begin = self._monotonic()
        outcome = "failed"
        try:
            maps = job.maps.of(0)
            told = explain(job.model, job.features, maps, frame=job.identity, ref=job.ref, farthest=job.farthest)
            self._store(reference(job.identity, job.ref.digest), told.to_bytes())
            outcome = "stored"
        except BrokerError as error:
            outcome = "refused"
            self._observer.trouble("heat maps", error)
        except Exception as error:  # a map is never worth a worker
            self._observer.surprise("heat maps", error)
        finally:
            self._places.release()
            self._observer.heat_map(outcome, self._monotonic() - begin)
        return True

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="heat maps", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Make what waits, for a moment; what is left then is not missed by anybody's verdict."""
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        self._begin_thread()
        _stand_back()
        while self.step():
            pass
