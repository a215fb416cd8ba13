"""What a bridge tells of itself: hooks that telemetry fills."""

from __future__ import annotations

from gaussline.worker.bridge.parcel import Parcel


class BridgeObserver:
    """Hooks of the delivery, all called by its own thread; these do nothing."""

    def turned(self) -> None:
        """The loop went round."""

    def holding(self, said: str) -> None:
        """This process delivers (`said` is empty), or stands by and why."""

    def delivered(self, parcel: Parcel, seconds: float) -> None:
        """The receiver took a parcel."""

    def retried(self, parcel: Parcel, said: str, pause_s: float) -> None:
        """The receiver did not take a parcel; it is tried again after the pause."""

    def buried(self, parcel: Parcel, said: str, dropped: int) -> None:
        """A parcel went to the dead letters, and so many old letters made room for it."""

    def gap(self, after: str, upto: str) -> None:
        """Verdicts after one entry, up to another, were trimmed before this bridge had them."""

    def trouble(self, stage: str, error: BaseException) -> None:
        """Something outside failed and is tried again."""


class BridgeObservers(BridgeObserver):
    """Passes every call on to several observers."""

    def __init__(self, *observers: BridgeObserver) -> None:
        def fan_out(name: str) -> object:
            hooks = [getattr(observer, name) for observer in observers]

            def call(*args: object) -> None:
                for hook in hooks:
                    hook(*args)

            return call

        for name in [name for name in vars(BridgeObserver) if not name.startswith("_")]:
            setattr(self, name, fan_out(name))
