"""What is wrong with a Redis that answers: said by every process at its start, and by `--check`."""

from __future__ import annotations

import time
from collections.abc import Callable

from gaussline.worker.broker.client import Redis, time_us, translated
from gaussline.worker.errors import BrokerError, BrokerUnavailable

CLOCK_S = 60.0
"""Difference of two clocks at which deadlines and capture times mean nothing any more."""


def unsound(client: Redis, now_s: Callable[[], float] = time.time) -> list[str]:
    """One line for each thing that will cost frames, with what to do; empty where all is well.

    A user that may not ask is not told. Raises BrokerUnavailable where Redis does not answer.
    """
    before_s = now_s()
    redis_s = time_us(client) / 1e6
    found = []
    apart_s = redis_s - (before_s + now_s()) / 2.0
    if abs(apart_s) > CLOCK_S:
        found.append(
            f"this machine's clock is {abs(apart_s):.0f} s {'behind' if apart_s > 0 else 'ahead of'} Redis's: "
            "deadlines and capture times would mean nothing; run chrony or systemd-timesyncd on both"
        )
    try:
        with translated("asking Redis about its memory"):
            policy = str(client.info("memory").get("maxmemory_policy", "noeviction"))
    except BrokerUnavailable:
        raise
    except BrokerError:
        return found
    if policy != "noeviction":
        found.append(
            f"Redis evicts (maxmemory-policy {policy}): frames and verdicts would vanish without a word; redis-cli "
            "config set maxmemory-policy noeviction && redis-cli config rewrite"
        )
    return found
