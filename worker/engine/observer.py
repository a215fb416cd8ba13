"""What the engine tells the world: hooks that metrics and logs hang on, and that cost nothing where nobody listens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gaussline.worker.contract.trial import STABLE
from gaussline.worker.contract.verdict import Verdict

if TYPE_CHECKING:
    from gaussline.worker.engine.prepare import PreparedFrame


class Observer:
    """Every hook does nothing; a listener overrides those it wants. Hooks run in the stages' own threads."""

    def taken(self, frames: int, size_bytes: int, seconds: float) -> None:
        """One read from Redis brought `frames` frames."""

    def redelivered(self, camera: str, messages: int, crashes: int) -> None:
        """Messages were claimed from another worker; `crashes` of them from a dead one."""

    def isolated(self, frames: int, poisonous: int) -> None:
        """A message over which a worker had died was judged alone; so many of its frames were to blame."""

    def prepared(self, frames: int, seconds: float) -> None:
        """Frames were parsed, decoded and resized; `seconds` of one thread."""

    def prepared_frames(self, frames: Sequence[PreparedFrame[Any]], seconds: float) -> None:
        """Which of them can be judged; for who follows single frames."""

    def waited(self, seconds: float) -> None:
        """The device waited this long for frames."""

    def computed(self, frames: int, backbone_seconds: float, score_seconds: float) -> None:
        """One batch went through the backbone and was scored."""

    def computed_frames(
        self, frames: Sequence[PreparedFrame[Any]], backbone_seconds: float, score_seconds: float
    ) -> None:
        """The frames of that batch."""

    def settled(self, verdicts: Sequence[Verdict], seconds: float, now_us: int) -> None:
        """Verdicts were published by one settle call; `now_us` by Redis's clock."""

    def lost_race(self, messages: int) -> None:
        """Messages that somebody else had settled already."""

    def unreplicated(self, messages: int) -> None:
        """Messages were settled, and too few replicas had them in time, where `wait_replicas` asks for any."""

    def heat_map(self, outcome: str, seconds: float) -> None:
        """The heat map of a failed frame was `stored`, `shed`, `refused` by its store, or `failed`."""

    def turned(self, stage: str) -> None:
        """A stage went round its loop; the health check watches that it does."""

    def trouble(self, stage: str, error: BaseException) -> None:
        """A stage met an expected fault (Redis away, say) and will try again."""

    def surprise(self, stage: str, error: BaseException) -> None:
        """A fault that nobody expected; it deserves a traceback in the log."""

    def model_loaded(self, name: str, version: int, digest: str, seconds: float, channel: str = STABLE) -> None:
        """A model was loaded, checked and warmed up; it scores from the next batch on."""

    def model_dropped(self, name: str, channel: str) -> None:
        """A channel of a model points nowhere any more."""

    def model_refused(self, name: str, version: int, error: BaseException) -> None:
        """A model could not be used; the one before it goes on."""


class Observers(Observer):
    """Passes every call on to several observers."""

    def __init__(self, *observers: Observer) -> None:
        def fan_out(name: str) -> object:
            hooks = [getattr(observer, name) for observer in observers]

            def call(*args: object) -> None:
                for hook in hooks:
                    hook(*args)

            return call

        for name in [name for name in vars(Observer) if not name.startswith("_")]:
            setattr(self, name, fan_out(name))
