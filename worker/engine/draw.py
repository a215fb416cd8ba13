"""Drawing frames at random, the same on every worker and every day: by a hash of the frame's identity.

Nothing else enters a draw, so it is made before the frame is scored, and what the frame shows cannot sway it. Draws of
different purposes are independent of each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class Draw:
    """A stable random share of frames.

    Attributes:
        purpose: what is drawn for, 1 to 64 bytes of ASCII.
        share: probability of being drawn, 0 … 1.
    """

    purpose: str
    share: float

    def __contains__(self, identity: str) -> bool:
        """Whether the frame of this identity (camera:epoch:sequence) is drawn."""
        digest = blake2b(identity.encode(), digest_size=8, key=self.purpose.encode()).digest()
        return int.from_bytes(digest, "big") < self.share * 2.0**64
