"""Collecting model versions that nobody needs: what a pointer or a pin names is never deleted.

A version is needed while a channel points at it, while it is pinned, or while it is where `rollback` would lead. It
stays while it is young, among the newest, or while a kept frame names it, so that the frame's verdict can be verified;
only the bound in bytes goes before these. Its record stays (a verdict that names it can still be explained); its
artefact goes, chunk by chunk where no other artefact shares it.

An upload that ended in its middle (a crash, a lost connection) leaves chunks behind that no manifest names, or a
manifest that no version names. They go when nobody has stored them for `ORPHAN_S`: an upload writes a chunk every few
milliseconds, and where one did sleep for longer it finds chunks missing at its end, and writes them again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from gaussline.worker.broker.artefacts import chunk_name, manifest_name
from gaussline.worker.broker.client import Redis, time_us, translated
from gaussline.worker.broker.registry import Registry, Version
from gaussline.worker.broker.script import Script
from gaussline.worker.contract.clock import from_text
from gaussline.worker.contract.keys import Keys

PAGE = 500
ORPHAN_S = 3_600.0
_DIGEST = re.compile(rb'"model":\{[^{}]*"digest":"([0-9a-f]{64})"')


@dataclass(frozen=True, slots=True)
class Keep:
    """What stays, beyond what is pointed at.

    Attributes:
        newest: versions of each model, the newest first.
        max_age_s: versions younger than this stay.
        max_bytes: artefacts of each model, together; beyond it these go too, the oldest first.
    """

    newest: int = 20
    max_age_s: float = 30 * 86_400.0
    max_bytes: int = 4 * 2**30


@dataclass(frozen=True, slots=True)
class Collectable:
    """One version whose artefact may go, and why.

    Attributes:
        stored_us: when its artefact was stored last, as the plan saw it; None: not seen.
    """

    version: Version
    why: str
    stored_us: int | None = None


class Collector:
    """Collects versions of one line."""

    def __init__(self, client: Redis, line: str, keep: Keep | None = None) -> None:
        self._client = client
        self._keys = Keys(line)
        self._registry = Registry(client, line)
        self._artefacts = self._registry.artefacts
        self._keep = keep or Keep()
        self._collect = Script("collect_version")

    def plan(self) -> list[Collectable]:
        """What would go now. Raises BrokerError."""
        index, now_us, named = self._artefacts.index(), time_us(self._client), self._named_by_kept_frames()
        there = {
            model: [each for each in self._registry.versions(model) if self._there(each.digest)]
            for model in self._registry.models()
        }
        found = [
            Collectable(version, why, index.get(manifest_name(version.digest)))
            for model, versions in there.items()
            for version, why in self._plan_model(model, versions, now_us, named)
        ]
        # Bytes may be those of another version too, of this model or of another: they go when nobody needs them.
        going = {(each.version.model, each.version.number) for each in found}
        every = [version for versions in there.values() for version in versions]
        stay = {each.digest for each in every if (each.model, each.number) not in going}
        return [each for each in found if each.version.digest not in stay]

    def step(self) -> list[tuple[Collectable, int]]:
        """Delete what may go; each with the bytes that it freed."""
        return [(found, self.collect(found)) for found in self.plan()]

    def collect(self, found: Collectable) -> int:
        """Delete a version's artefact; the bytes freed, 0 where something points at it now, or it was stored anew."""
        version = found.version
        keys = [
            self._keys.pointers,
            self._keys.versions(version.model),
            self._keys.artefact(version.digest),
            self._keys.stored,
        ]
        seen = "" if found.stored_us is None else found.stored_us
        manifest = self._collect(self._client, keys, [version.model, version.number, version.digest, seen])
        if not manifest:
            return 0
        return self._drop(map(chunk_name, json.loads(manifest)["chunks"]), self._artefacts.index())

    def orphans(self, age_s: float = ORPHAN_S, *, dry_run: bool = False) -> int:
        """Delete what uploads that never ended have left behind and is that old; the bytes freed, or that would be."""
        index, before_us = self._artefacts.index(), time_us(self._client) - age_s * 1e6
        digests = self._digests()
        known = {manifest_name(digest) for digest in digests}
        manifests = _manifests(index)
        old = {name for name, when in index.items() if when < before_us}
        # A manifest that no version names goes first, so that its chunks are needed by nobody.
        loose, chunks = sorted(old & manifests - known), sorted(old - manifests)
        if dry_run:
            needed = self._artefacts.named({name.partition(":")[2] for name in manifests.difference(loose)} | digests)
            return self._artefacts.size([*loose, *(name for name in chunks if name not in needed)])
        return self._artefacts.drop(loose, index) + self._drop(chunks, index)

    def _drop(self, names: Iterable[str], index: Mapping[str, int]) -> int:
        """Delete those chunks that no manifest names; the bytes freed. The index was read before: see `artefacts`."""
        stored = {name.partition(":")[2] for name in _manifests(index)}  # of versions that are not recorded yet too
        needed = self._artefacts.named(stored | self._digests())
        return self._artefacts.drop([name for name in dict.fromkeys(names) if name not in needed], index)

    def _named_by_kept_frames(self) -> set[str]:
        """Digests that the verdicts of kept frames name; read in pages, for there may be many."""
        digests: set[str] = set()
        with translated("reading the verdicts of kept frames"):
            names = self._client.zrange(self._keys.kept, 0, -1)
            for start in range(0, len(names), PAGE):
                keys = [self._keys.kept_verdict(name.decode()) for name in names[start : start + PAGE]]
                for text in self._client.mget(keys):
                    found = None if text is None else _DIGEST.search(text)
                    if found is not None:
                        digests.add(found[1].decode())
        return digests

    def _plan_model(
        self, model: str, versions: list[Version], now_us: int, named: set[str]
    ) -> Iterator[tuple[Version, str]]:
        needed = self._needed(model)
        newest = {each.number for each in versions[-self._keep.newest :]} if self._keep.newest else set()
        held = sum(each.size_bytes for each in versions)
        for version in versions:
            if version.number in needed or version.digest in {
                other.digest for other in versions if other.number in needed
            }:
                continue
            age_s = (now_us - from_text(version.created_at)) / 1e6
            if held > self._keep.max_bytes:
                why = f"{held} bytes of this model's artefacts are over {self._keep.max_bytes}"
            elif version.digest not in named and version.number not in newest and age_s > self._keep.max_age_s:
                why = f"{age_s / 86_400:.0f} days old, and not among the newest {self._keep.newest}"
            else:
                continue
            held -= version.size_bytes
            yield version, why

    def _needed(self, model: str) -> set[int]:
        needed = {pointer.version for pointer in self._registry.pointers() if pointer.model == model}
        pin = self._registry.pins().get(model)
        if pin is not None:
            needed.add(pin.version)
        # Where rollback would lead from each channel.
        for channel in {move.channel for move in self._registry.history(model)}:
            back = self._registry.before(model, channel)
            if back is not None:
                needed.add(back)
        return needed

    def _there(self, digest: str) -> bool:
        with translated("looking for an artefact"):
            return bool(self._client.exists(self._keys.artefact(digest)))

    def _digests(self) -> set[str]:
        names = self._registry.models()
        return {each.digest for name in names for each in self._registry.versions(name)}


def _manifests(index: Mapping[str, int]) -> set[str]:
    return {name for name in index if name.startswith(manifest_name(""))}
