"""How many calibration frames a rate needs, and what rate so many frames can hold."""

from __future__ import annotations

import math

from gaussline.worker.errors import FitError


def frames_needed(rate: float) -> int:
    """Fewest calibration frames n with which a rate is attainable: 1/(n+1) <= rate. Raises FitError."""
    if not 0.0 < rate < 1.0:
        raise FitError(f"false-positive rate {rate} is not between 0 and 1")
    n = max(1, round(1.0 / rate) - 2)
    # Rounding decides as it does for a p-value: what is asked is whether 1/(n+1), as a number, is at most the rate.
    while 1.0 / (n + 1.0) > rate:
        n += 1
    return n


def attainable_rate(frames: int) -> float:
    """The least rate that so many calibration frames can hold, 1/(n+1), rounded up to three digits for people."""
    exact = 1.0 / (frames + 1.0)
    digits = 10.0 ** (2 - math.floor(math.log10(exact)))
    return math.ceil(exact * digits - 1e-9) / digits
