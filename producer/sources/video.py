"""Frames of a video file, a camera device or a network camera (RTSP), decoded by PyAV (FFmpeg).

PyAV is the optional extra `gaussline[video]`; it is imported when a video is opened and not before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

from gaussline.producer.backoff import Backoff
from gaussline.producer.clock import Clock, SystemClock
from gaussline.producer.shot import Shot
from gaussline.worker.broker.client import redact
from gaussline.worker.errors import SourceError

INSTALL: Final = "pip install 'gaussline[video]'"
VIDEO_SUFFIXES: Final = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".m4v", ".ts", ".h264"})
DEVICE_PREFIX: Final = "/dev/video"
STREAM_SCHEMES: Final = ("rtsp://", "rtsps://", "http://", "https://", "udp://", "tcp://", "srt://")
_GREY: Final = {"gray": "gray", "gray8": "gray", "gray16le": "gray16le", "gray16be": "gray16le"}


class Video:
    """The frames of a video as numpy arrays: uint8 (H, W, 3) in red, green, blue; grey video as (H, W).

    A live source (device, stream) is stamped by the clock as each frame is decoded, and is opened again after it broke
    off. A file has no capture times worth keeping: its frames are stamped as they are sent.

    Args:
        source: path of a file, `/dev/videoN`, or a URL such as `rtsp://user:password@camera/stream`.
        loop: a file begins again at its end, for ever.
        timeout_s: longest silence of a stream.
        reopen_for_s: longest time a live source may be gone before SourceError is raised; None waits for ever.
        options: further FFmpeg options, such as {"video_size": "1280x720", "framerate": "30"} of a device.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        loop: bool = False,
        timeout_s: float = 5.0,
        reopen_for_s: float | None = 60.0,
        options: dict[str, str] | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self.source = str(source)
        self.is_device = self.source.startswith(DEVICE_PREFIX)
        self.is_live = self.is_device or self.source.startswith(STREAM_SCHEMES)
        if self.is_live and loop:
            raise SourceError(f"{self.name} is live: it cannot loop")
        self.loop = loop
        self._timeout_s = timeout_s
        self._reopen_for_s = reopen_for_s
        self._options = options or {}
        self._clock: Clock = clock or SystemClock()
        self._random = random or Random()
        self._av = _import_av(self.source)
        if self.is_device and not Path(self.source).exists():
            raise SourceError(f"there is no camera {self.source}; 'v4l2-ctl --list-devices' lists the ones there are")
        if not self.is_live and not Path(self.source).is_file():
            raise SourceError(f"video {self.source} is no file")

    @property
    def name(self) -> str:
        """The source without the password in its URL."""
        return redact(self.source)

    def __iter__(self) -> Iterator[Shot]:
        """One shot a frame. Raises SourceError where the source cannot be opened, or is gone for too long."""
        backoff = Backoff(0.1, 5.0, self._random)
        index, seen, gone_since_s = 0, False, None
        while True:
            try:
                for array in self._frames():
                    captured_us = self._clock.now_us() if self.is_live else None
                    yield Shot(array, captured_at=captured_us, name=f"frame{index}")
                    index, seen, gone_since_s = index + 1, True, None
                    backoff.reset()
            except self._av.error.FFmpegError as error:
                if not (self.is_live and seen):
                    raise SourceError(f"video {self.name} cannot be read: {redact(str(error))}") from None
            if not self.is_live:
                if not seen:
                    raise SourceError(f"video {self.name} holds no frames")
                if self.loop:
                    continue
                return
            now_s = self._clock.monotonic_s()
            gone_since_s = now_s if gone_since_s is None else gone_since_s
            if not seen or (self._reopen_for_s is not None and now_s - gone_since_s >= self._reopen_for_s):
                raise SourceError(f"video {self.name} gave no frame for {now_s - gone_since_s:.0f} s")
            self._clock.wait(backoff.next_s())

    def _frames(self) -> Iterator[Any]:
        with self._open() as container:
            if not container.streams.video:
                raise SourceError(f"{self.name} holds no video")
            stream = container.streams.video[0]
            # Frame threads hold frames back until their neighbours are done: fast for a file, late for a camera.
            stream.thread_type = "SLICE" if self.is_live else "AUTO"
            for frame in container.decode(stream):
                yield frame.to_ndarray(format=_GREY.get(frame.format.name, "rgb24"))

    def _open(self) -> Any:
        form: str | None = None
        options = dict(self._options)
        if self.is_device:
            form = "v4l2"
        elif self.source.startswith("rtsp"):
            options = {"rtsp_transport": "tcp", "fflags": "nobuffer"} | options
        timeout = (self._timeout_s, self._timeout_s) if self.is_live else None
        return self._av.open(self.source, format=form, options=options, timeout=timeout)


def is_video(source: str) -> bool:
    """Whether a source is for this module: a device, a stream, or a file of a video's suffix."""
    return source.startswith((DEVICE_PREFIX, *STREAM_SCHEMES)) or Path(source).suffix.lower() in VIDEO_SUFFIXES


def _import_av(source: str) -> Any:
    try:
        import av
    except ImportError:
        raise SourceError(
            f"reading {redact(source)} needs PyAV, which is not installed: run {INSTALL} (or pip install av)"
        ) from None
    # FFmpeg would write its own complaints to the terminal; what matters comes as an error.
    av.logging.set_level(av.logging.PANIC)
    return av
