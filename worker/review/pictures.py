"""Pictures for the page: a kept frame, and its heat map laid over it; small, made on demand, held for a while."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.heat_maps import HeatMaps
from gaussline.worker.broker.kept import KeptFrames
from gaussline.worker.contract.frame import BadFrame, Frame
from gaussline.worker.contract.heat_map import Explanation, reference
from gaussline.worker.contract.verdict import Verdict
from gaussline.worker.engine.picture import at_size, pixels_of
from gaussline.worker.engine.recheck import Recheck
from gaussline.worker.errors import NotFound
from gaussline.worker.settings import Settings
from gaussline.worker.vision.heatmap import combined

SIDE = 480
"""Longest side of a picture on the page, in pixels."""
HELD_BYTES = 64 * 2**20
QUALITY = 85


class Pictures:
    """Makes one picture at a time: a page asks for many at once, and a line's computer has other work to do.

    Args:
        remake: make the heat map again where the ring has none, which loads the backbone.
    """

    def __init__(self, settings: Settings, client: Redis, *, remake: bool = True) -> None:
        self._settings = settings
        self._client = client
        self._kept = KeptFrames.of(settings, client)
        self._ring = HeatMaps(client, settings.line)
        self._remake = remake
        self._recheck: Recheck | None = None
        self._lock = threading.Lock()
        self._held: OrderedDict[str, bytes] = OrderedDict()

    def frame(self, frame_id: str) -> bytes:
        """A kept frame as a JPEG. Raises NotFound where it has expired, ImageError where it cannot be decoded."""
        return self._once("frame:" + frame_id, lambda: self._frame(frame_id))

    def heat_map(self, verdict: Verdict) -> bytes:
        """A kept frame under its heat map as a JPEG, in the frame's own proportions.

        Raises NotFound where the map is neither stored nor to be made again, GausslineError where it cannot be made.
        """
        return self._once("map:" + verdict.id, lambda: self._heat_map(verdict))

    def _once(self, name: str, make: Callable[[], bytes]) -> bytes:
        with self._lock:
            if name not in self._held:
                self._held[name] = make()
                while len(self._held) > 1 and sum(map(len, self._held.values())) > HELD_BYTES:
                    self._held.popitem(last=False)
            self._held.move_to_end(name)
            return self._held[name]

    def _frame(self, frame_id: str) -> bytes:
        image = Image.fromarray(pixels_of(self._settings, self._kept.get(frame_id).frames[0]))
        image.thumbnail((SIDE, SIDE))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=QUALITY)
        return file.getvalue()

    def _heat_map(self, verdict: Verdict) -> bytes:
        if verdict.model is None:
            raise NotFound(f"frame {verdict.id} was not judged")
        frame = self._kept.get(verdict.id).frames[0]
        found, image = self._explained(verdict, frame)
        overlay: Image.Image = Image.open(io.BytesIO(combined(found).to_png(image)))
        height, width = pixels_of(self._settings, frame).shape[:2]
        scale = SIDE / max(height, width)
        overlay = overlay.resize((max(1, round(scale * width)), max(1, round(scale * height))))
        file = io.BytesIO()
        overlay.save(file, "JPEG", quality=QUALITY)
        return file.getvalue()

    def _explained(self, verdict: Verdict, frame: Frame | BadFrame) -> tuple[Explanation, NDArray[np.uint8]]:
        assert verdict.model is not None
        try:
            stored = self._ring.get(verdict.heat_map or reference(verdict.id, verdict.model.digest))
        except NotFound:
            if not self._remake:
                raise
        else:
            return stored, at_size(self._settings, frame, stored.input_size)
        if self._recheck is None:
            self._recheck = Recheck(self._settings, self._client)
        look = self._recheck.look(frame, verdict.model, name=verdict.id, maps=True)
        assert look.explanation is not None
        return look.explanation, look.image
