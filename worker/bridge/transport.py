"""What a transport is: it hands one parcel to a receiver, and says whether it was taken."""

from __future__ import annotations

from typing import Protocol

from gaussline.worker.bridge.parcel import Parcel


class Transport(Protocol):
    """One protocol to one receiver. `send` is called from several threads at once, at most `lanes` of them."""

    @property
    def lanes(self) -> int:
        """Parcels that it can carry at a time."""

    @property
    def place(self) -> str:
        """Where it delivers to, for people; holds no secret."""

    def send(self, parcel: Parcel) -> None:
        """Deliver one parcel; back within the transport's time limit, and only once the receiver has answered for it.

        Raises Undeliverable where the receiver refuses this parcel for good, NotNow where it may be taken later.
        """

    def check(self) -> str:
        """Reach the receiver without delivering anything; what was found. Raises NotNow, SettingsError."""

    def close(self) -> None:
        """Let go of connections."""
