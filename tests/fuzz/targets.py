"""What is fuzzed: one function a decoder. Whatever comes in, only the errors of the decoder may come out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.frame import BadFrame, decode_batch, encode_batch
from gaussline.worker.contract.limits import ImageLimits, MessageLimits
from gaussline.worker.contract.verdict import Verdict
from gaussline.worker.errors import ContractError, ImageError, ModelError
from gaussline.worker.vision.decode import decode

IMAGE_LIMITS: Final = ImageLimits(max_bytes=2**20, max_pixels=2**20, max_side=4096)
MESSAGE_LIMITS: Final = MessageLimits(max_bytes=2**20, max_frames=64)
ENCODINGS: Final = ("jpeg", "png", "bmp", "webp", "tiff")


def image(data: bytes) -> None:
    """An image: the first byte says as what it was declared."""
    if not data:
        return
    with contextlib.suppress(ImageError):
        pixels = decode(data[1:], ENCODINGS[data[0] % len(ENCODINGS)], IMAGE_LIMITS)
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert pixels.shape[0] * pixels.shape[1] <= IMAGE_LIMITS.max_pixels


def raw(data: bytes) -> None:
    """A raw array: three bytes of shape, one of its type."""
    if len(data) < 4:
        return
    shape = tuple(data[:2]) if data[2] > 4 else tuple(data[:3])
    dtype = ("uint8", "uint16", "float32", "object")[data[3] % 4]
    with contextlib.suppress(ImageError):
        decode(data[4:], "raw", IMAGE_LIMITS, shape=shape, dtype=dtype)


def message(data: bytes) -> None:
    """A frame batch; what can be read can be written and read again."""
    with contextlib.suppress(ContractError):
        batch = decode_batch(data, MESSAGE_LIMITS)
        good = [frame for frame in batch.frames if not isinstance(frame, BadFrame)]
        if good:
            again = decode_batch(encode_batch(batch.camera, batch.epoch, batch.first_sequence, good))
            assert list(again.frames) == good


def event(data: bytes) -> None:
    """A feature event."""
    with contextlib.suppress(ContractError):
        FeatureEvent.decode(data)


def verdict(data: bytes) -> None:
    """A verdict."""
    with contextlib.suppress(ContractError):
        Verdict.from_json(data)


def artefact(data: bytes) -> None:
    """A model artefact."""
    with contextlib.suppress(ModelError, ContractError):
        Artefact.unpack(data)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "image": image,
    "raw": raw,
    "message": message,
    "event": event,
    "verdict": verdict,
    "artefact": artefact,
}
