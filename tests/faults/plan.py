"""What one episode does: drawn from its seed, and from nothing else, so that a seed replays it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

LOAD_S: Final = 0.7
"""For about so long producers send; faults begin within it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One fault.

    Attributes:
        at_s: when, after the load began.
        fault: its name in the catalogue.
        target: which of the processes it may hit, modulo their number.
        for_s: how long it lasts, where it lasts.
    """

    at_s: float
    fault: str
    target: int
    for_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """One episode.

    Attributes:
        frames: of each camera.
        proxied: workers, producers and the subscriber reach Redis through the proxy.
        batch_frames, batch_s: of every worker: frames of one batch, and how long one takes.
        slow_batches: of the first worker, each as long as a claim and more.
        trim: workers trim verdicts that every subscriber has, at once.
        clock_jumps_s: how far the producers' clocks jump.
    """

    seed: int
    cameras: int
    frames: int
    message_frames: int
    frame_bytes: int
    workers: int
    batch_frames: int
    batch_s: float
    steps: tuple[Step, ...]
    proxied: bool
    slow_batches: tuple[int, ...]
    trim: bool
    clock_jumps_s: float
    kinds: tuple[tuple[str, float], ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """Names of its faults, each once, in the order of the alphabet."""
        names = {step.fault for step in self.steps}
        names |= {"slow_worker"} if self.slow_batches else set()
        names |= {"clock_jump"} if self.clock_jumps_s else set()
        return tuple(sorted(names))

    @property
    def total(self) -> int:
        """Frames that are offered."""
        return self.cameras * self.frames


PASSIVE: Final = ("slow_worker", "clock_jump")
"""Faults that are a property of a process and no step."""
PROXIED: Final = frozenset({"cut", "delay", "throttle", "half_close", "mute", "lose_replies", "tear_requests"})
STEPS: Final = (
    "kill_worker",
    "stop_worker",
    "drain_worker",
    "kill_producer",
    "stop_producer",
    "kill_redis",
    "stop_redis",
    "pause_clients",
    "destroy_group",
    "delete_entries",
    "forget_scripts",
    "full_memory",
    "full_disk",
    "kill_subscriber",
    "kill_parts",
    "restart_worker",
    *sorted(PROXIED),
)
FAULTS: Final = (*STEPS, *PASSIVE)


def draw(seed: int, faults: Sequence[str] = (), *, frames: int = 420) -> Plan:
    """The plan of a seed. Every other one has one fault alone, each of them in turn; the others mix two to four.

    Args:
        faults: only these; none draws from all.
        frames: about how many are offered in all.
    """
    random = Random(f"episode {seed}")
    known = tuple(faults) or FAULTS
    if seed % 2 == 0 or len(known) == 1:
        chosen = [known[seed // 2 % len(known)]]
    else:
        chosen = random.sample(known, min(len(known), random.randint(2, 4)))
    steps = [
        Step(random.uniform(0.03, LOAD_S), name, random.randrange(8), random.uniform(0.02, 0.6))
        for name in chosen
        if name not in PASSIVE
        for _ in range(random.choice((1, 1, 2, 3)))
    ]
    cameras = random.randint(1, 3)
    return Plan(
        seed=seed,
        cameras=cameras,
        frames=frames // cameras,
        message_frames=random.choice((1, 4, 8)),
        frame_bytes=random.choice((16, 500, 3000)),
        workers=random.randint(1, 3),
        batch_frames=random.choice((4, 16)),
        batch_s=random.choice((0.0, 0.005, 0.015)),
        steps=tuple(sorted(steps, key=lambda step: step.at_s)),
        proxied=bool(PROXIED & set(chosen)),
        slow_batches=tuple(sorted(random.sample(range(8), 2))) if "slow_worker" in chosen else (),
        trim=random.random() < 0.3,
        clock_jumps_s=random.choice((1.0, 60.0, 86_400.0)) if "clock_jump" in chosen else 0.0,
        kinds=(("GOOD", 0.85), ("DEFECT", 0.09), ("BROKEN", 0.03), ("LATE", 0.03)),
    )
