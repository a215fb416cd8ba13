"""The learner's state as parts of a checkpoint, and back: exact to the bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.spec import BackboneSpec
from gaussline.worker.errors import ArtefactError, FitError
from gaussline.worker.gaussian.moments import Moments
from gaussline.worker.learning.block import Block
from gaussline.worker.learning.event_clock import EventClock
from gaussline.worker.learning.learner import RECENT, Learner, Pending
from gaussline.worker.learning.policy import Policy
from gaussline.worker.learning.reservoir import Page
from gaussline.worker.learning.spans import Spans
from gaussline.worker.learning.watch import Gaussians

_PLAIN = ("position", "taught", "scouted_id", "taught_id", "taught_us", "since_proposal", "proposed_us", "gated_weight")
ReadBlock = Callable[[str, str], Block]
"""Reads the block of the log from one entry id to another, both among it."""


def about(learner: Learner, model: str) -> dict[str, Any]:
    """What a checkpoint says of itself, without its chunks."""
    return {
        "model": model,
        "spec": learner.spec.digest,
        "last_id": learner.scouted_id,
        "taught_id": learner.taught_id,
        "position": learner.position,
        "count": learner.moments[0].count,
        "effective_size": learner.moments[0].effective_size,
        "counts": dict(learner.counts),
        "pages": [page.number for page in learner.reservoir.pages],
        "block": learner.policy.block,
    }


def pack_moments(learner: Learner) -> bytes:
    """The moments, as one part."""
    return moments_artefact(learner.spec, learner.moments, learner.lineage).data


def moments_artefact(spec: BackboneSpec, moments: list[Moments], lineage: list[dict[str, Any]]) -> Artefact:
    """Moments as an artefact of their own: what `gaussline moments` exports, merges and subtracts."""
    arrays = {f"moments{i}.{name}": a for i, level in enumerate(moments) for name, a in level.to_arrays().items()}
    return Artefact.pack({"kind": "moments", "spec": spec.to_dict(), "lineage": lineage}, arrays)


def read_moments(artefact: Artefact) -> tuple[BackboneSpec, list[Moments], list[dict[str, Any]]]:
    """The reverse. Raises ArtefactError."""
    said: Mapping[str, Any] = artefact.manifest
    try:
        if said["kind"] != "moments":
            raise ArtefactError(f"the artefact is a {said['kind']!r:.40}, and holds no moments to learn from")
        spec = BackboneSpec.from_dict(said["spec"])
        moments = [Moments.from_arrays(_part(artefact, f"moments{i}.")) for i in range(len(spec.levels))]
        lineage = [dict(fact) for fact in said["lineage"]]
    except (KeyError, TypeError, ValueError, FitError) as error:
        raise ArtefactError(f"malformed moments: {type(error).__name__}: {error}") from None
    if tuple(level.dimension for level in moments) != spec.channels:
        raise ArtefactError("moments do not have the widths of their backbone's levels")
    return spec, moments, lineage


def pack_state(learner: Learner) -> bytes:
    """All but moments and reservoir pages, as one part."""
    arrays: dict[str, NDArray[Any]] = {
        "recent": np.frombuffer(b"".join(learner.recent), np.uint8),
        "bank": np.stack(learner.bank) if learner.bank else np.zeros((0, sum(learner.spec.channels)), np.float32),
    }
    pending = []
    for index, entry in enumerate(learner.pending):
        arrays |= {f"pending{index}.bars": entry.bars, f"pending{index}.at_us": entry.at_us}
        pending.append([entry.number, entry.block.entries[0][0], entry.block.last_id, entry.end_us])
    cameras = {}
    for index, (name, watch) in enumerate(learner.cameras.items()):
        cameras[name], held = watch.to_state()
        arrays |= {f"camera{index}.{key}": array for key, array in held.items()}
    state = {
        "kind": "learner",
        **{name: getattr(learner, name) for name in _PLAIN},
        "clock": [learner.clock.elapsed_us, learner.clock.seen_us, learner.clock.jumps],
        "edges": list(learner.gate.edges.items()),
        "spans": learner.spans.to_json(),
        "labels": list(learner.labels.items()),
        "vouched": learner.vouched,
        "confirmed": learner.confirmed,
        "anchor": learner.anchor,
        "counts": dict(learner.counts),
        "pending": pending,
        "cameras": list(cameras.items()),
    }
    return Artefact.pack(state, arrays).data


def restore(
    spec: BackboneSpec,
    policy: Policy,
    parts: Mapping[str, bytes],
    read_block: ReadBlock,
    models: Gaussians,
) -> Learner:
    """The learner that wrote these parts: `moments`, `state` and `page.<number>`; its waiting blocks from the log.

    A waiting block that the log no longer holds whole teaches nothing, and the lineage says so. Raises ArtefactError;
    BackboneMismatch where the checkpoint comes from another backbone.
    """
    held, moments, lineage = read_moments(Artefact.unpack(parts["moments"]))
    spec.check_against(held)
    artefact = Artefact.unpack(parts["state"])
    said: Mapping[str, Any] = artefact.manifest
    try:
        learner = Learner(spec, policy, moments, models)
        learner.lineage = lineage
        rules = next((fact["policy"] for fact in reversed(lineage) if "policy" in fact), None)
        if rules != policy.to_json():
            learner.remember({"policy": policy.to_json(), "after": said["scouted_id"]})
        for name in _PLAIN:
            setattr(learner, name, said[name])
        learner.clock = EventClock(*said["clock"])
        learner.gate.edges = {digest: float(score) for digest, score in said["edges"]}
        learner.spans = Spans.from_json(said["spans"])
        learner.labels = dict(said["labels"])
        learner.vouched = {camera: dict(facts) for camera, facts in said["vouched"].items()}
        learner.confirmed = dict(said["confirmed"])
        learner.anchor = dict(said.get("anchor", {}))  # a checkpoint of an earlier release has none
        learner.counts = Counter(said["counts"])
        recent = artefact.arrays["recent"].tobytes()
        learner.recent = dict.fromkeys(recent[start : start + 8] for start in range(0, len(recent), 8))
        learner.bank = [np.array(row, np.float32) for row in artefact.arrays["bank"]]
        for index, (name, facts) in enumerate(said["cameras"]):
            learner.cameras[name] = learner.new_watch(name).restore(facts, _part(artefact, f"camera{index}."))
        pages = sorted((name for name in parts if name.startswith("page.")), key=lambda name: int(name[5:]))
        learner.reservoir.pages = [Page.unpack(parts[name]) for name in pages]
        waiting = list(said["pending"])
        if len(learner.recent) > RECENT:
            raise ArtefactError("more frames are remembered than can be")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(f"malformed state of a learner: {type(error).__name__}: {error}") from None
    for index, (number, first, last, end_us) in enumerate(waiting):
        block = read_block(first, last)
        bars = np.array(artefact.arrays[f"pending{index}.bars"], np.int8)
        at_us = np.array(artefact.arrays[f"pending{index}.at_us"], np.int64)
        if len(block) == len(bars):
            learner.pending.append(Pending(number, block, bars, at_us, end_us))
        else:
            learner.remember({"gap": [first, last], "lost": len(bars) - len(block)})
            learner.counts["lost"] += len(bars) - len(block)
    return learner


def _part(artefact: Artefact, prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in artefact.arrays.items() if name.startswith(prefix)}
