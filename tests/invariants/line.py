"""A camera in a test's hands, that may also send what no decent producer would."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from gaussline.worker.broker.admission import Admission, Request, Status
from gaussline.worker.broker.client import Redis
from gaussline.worker.contract.frame import Frame, encode_batch, frame_id

BUDGET = 10**9
CAPTURED_US = 1_700_000_000_000_000


class Camera:
    """One camera, admitting through the one door, and remembering what went in.

    Attributes:
        sent: identities of all admitted frames.
    """

    def __init__(self, client: Redis, line: str, name: str, model: str = "default") -> None:
        self._door = Admission(client, line, name, camera_budget_bytes=BUDGET, line_budget_bytes=BUDGET)
        self.name = name
        self.epoch = self._door.open({"model": model, "weight": 1})
        self.sent: list[str] = []

    def send(self, *images: bytes, deadline_us: int | None = None) -> None:
        """One message of PNG images."""
        frames = [Frame(image, "png", CAPTURED_US, deadline_us=deadline_us) for image in images]
        payload = encode_batch(self.name, self.epoch, len(self.sent), frames)
        self.send_bytes(payload, len(images), deadline_us)

    def send_bytes(self, payload: bytes, frames: int, deadline_us: int | None = None) -> None:
        """One message of any bytes, admitted as so many frames."""
        answer = self._door.admit(Request(self.epoch, len(self.sent), frames, payload, deadline_us or 0))
        assert answer.status is Status.ADMITTED
        self.sent += [frame_id(self.name, self.epoch, len(self.sent) + offset) for offset in range(frames)]


def picture(side: int) -> bytes:
    """A grey PNG."""
    file = io.BytesIO()
    Image.new("L", (side, side), 90).save(file, "png")
    return file.getvalue()


def duplicates(names: Sequence[str]) -> set[str]:
    """Those that occur more than once."""
    return {name for name in names if names.count(name) > 1}
