"""A block: a fixed number of log entries, decoded into arrays. Everything the learner does, it does block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.broker.feature_log import Entry
from gaussline.worker.contract.feature_event import FeatureEvent
from gaussline.worker.contract.order import Order
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.contract.verdict import Decision
from gaussline.worker.errors import ContractError

OTHER_SPEC, OTHER_WIDTH, BROKEN = "other_spec", "other_width", "broken"
REFUSALS = (OTHER_SPEC, OTHER_WIDTH, BROKEN)


@dataclass(slots=True, eq=False)
class Block:
    """Entries of the log between two cuts.

    Attributes:
        entries: (id, payload size in bytes) of each entry, broken ones and orders among them.
        events: frames in the log's order, without their features.
        features: (n, D) float32, the levels side by side; a row an event.
        orders: (row of the first event after it, order).
        refused: why events were left out -> how many.
    """

    entries: list[tuple[str, int]]
    events: list[FeatureEvent]
    features: NDArray[np.float32]
    orders: list[tuple[int, Order]] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def last_id(self) -> str:
        """Id of its last entry."""
        return self.entries[-1][0]

    def __len__(self) -> int:
        return len(self.events)


def read_block(entries: Sequence[Entry], spec: BackboneSpec) -> Block:
    """Decode a block. What is broken, or comes from another backbone, is counted and touches nothing."""
    events: list[FeatureEvent] = []
    features = np.empty((len(entries), sum(spec.channels)), np.float32)
    orders: list[tuple[int, Order]] = []
    refused: dict[str, int] = {}
    digest, channels = spec.digest, spec.channels

    def refuse(why: str) -> None:
        refused[why] = refused.get(why, 0) + 1

    for entry in entries:
        try:
            if entry.is_order:
                orders.append((len(events), Order.decode(entry.payload)))
                continue
            event = FeatureEvent.decode(entry.payload)
        except ContractError:
            refuse(BROKEN)
            continue
        if event.spec_digest != digest:
            refuse(OTHER_SPEC)
        elif tuple(level.size for level in event.features) != channels:
            refuse(OTHER_WIDTH)
        else:
            np.concatenate(event.features, out=features[len(events)])
            events.append(event)
    sizes = [(entry.id, len(entry.payload)) for entry in entries]
    return Block(sizes, events, features[: len(events)], orders, refused)


def level_slices(channels: Sequence[int]) -> list[slice]:
    """Where each level lies in a row of features."""
    ends = np.cumsum(channels)
    return [slice(int(end) - width, int(end)) for end, width in zip(ends, channels, strict=True)]


def passed(event: FeatureEvent) -> bool:
    """Whether the judge let the frame pass."""
    return event.decision is Decision.PASS
