"""The book of models: which model judges which camera now, as one immutable page that is turned between two batches.

Everything slow (fetching, checking, moving to the device, warming up) happens in the thread that calls `refresh`; the
compute stage only ever reads the current page. A model that cannot be loaded leaves the page as it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from gaussline.worker.broker.cameras import DEFAULT_MODEL, read_cameras
from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.registry import STABLE, Pointer, Registry
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.verdict import ModelRef
from gaussline.worker.engine.observer import Observer
from gaussline.worker.errors import ModelError, NotFound

Prepared = TypeVar("Prepared")


@dataclass(frozen=True, slots=True, eq=False)
class Entry(Generic[Prepared]):
    """One loaded model: what verdicts call it, what it is, and what the device holds of it."""

    ref: ModelRef
    model: Model
    prepared: Prepared


@dataclass(frozen=True, slots=True, eq=False)
class Page(Generic[Prepared]):
    """Everything the compute stage needs to know at one moment.

    Attributes:
        refused: model name -> why its version cannot be used.
    """

    entries: Mapping[str, Entry[Prepared]]
    camera_models: Mapping[str, str]
    refused: Mapping[str, str]

    def find(self, camera: str) -> Entry[Prepared] | None:
        """The model that judges a camera, None where there is none."""
        return self.entries.get(self.model_name(camera))

    def model_name(self, camera: str) -> str:
        """Name of the model a camera is judged by; cameras that are not registered yet take the default one."""
        return self.camera_models.get(camera, DEFAULT_MODEL)


class ModelBook(Generic[Prepared]):
    """Keeps the current page.

    Args:
        prepare: checks a model against the backbone, puts it on the device and warms it up. Raises ModelError.
    """

    def __init__(
        self, client: Redis, line: str, prepare: Callable[[Model], Prepared], observer: Observer | None = None
    ) -> None:
        self._client = client
        self._line = line
        self._registry = Registry(client, line)
        self._prepare = prepare
        self._observer = observer or Observer()
        self._page: Page[Prepared] = Page({}, {}, {})
        self._tried: dict[str, str] = {}

    @property
    def page(self) -> Page[Prepared]:
        """The current page; read it once a batch."""
        return self._page

    def refresh(self) -> Page[Prepared]:
        """Read pointers and cameras, load what is new, turn the page. Raises BrokerError where Redis cannot say."""
        cameras = {name: settings.model for name, settings in read_cameras(self._client, self._line).items()}
        entries = dict(self._page.entries)
        refused = dict(self._page.refused)
        stable = {pointer.model: pointer for pointer in self._registry.pointers() if pointer.channel == STABLE}
        for name in [name for name in entries if name not in stable]:
            del entries[name]
        for name, pointer in stable.items():
            held = entries.get(name)
            if held is not None and held.ref.digest == pointer.digest and held.ref.version == pointer.version:
                continue
            if self._tried.get(name) == f"{pointer.digest}:{pointer.revision}":
                continue  # refused before; it is tried again when the pointer moves
            try:
                entries[name] = self._load(pointer)
                refused.pop(name, None)
                self._tried.pop(name, None)
            except (ModelError, NotFound) as error:
                self._tried[name] = f"{pointer.digest}:{pointer.revision}"
                refused[name] = f"version {pointer.version}: {error}"
                self._observer.model_refused(name, pointer.version, error)
        self._page = Page(entries, cameras, refused)
        return self._page

    def _load(self, pointer: Pointer) -> Entry[Prepared]:
        begin = time.perf_counter()
        data = self._registry.fetch(pointer.digest)
        model = Model.from_artefact(Artefact.unpack(data, pointer.digest))
        prepared = self._prepare(model)
        ref = ModelRef(pointer.model, pointer.version, pointer.digest, pointer.channel)
        self._observer.model_loaded(ref.name, ref.version, ref.digest, time.perf_counter() - begin)
        return Entry(ref, model, prepared)


def first_model(registry: Registry, wanted: str | None = None) -> tuple[Pointer, Model] | None:
    """The model whose backbone a starting worker takes: the wanted one's stable version, else the default's, else any.

    None where nothing is promoted yet. Raises GausslineError where the artefact cannot be read.
    """
    stable = {pointer.model: pointer for pointer in registry.pointers() if pointer.channel == STABLE}
    for name in (wanted, DEFAULT_MODEL, *sorted(stable)):
        if name is not None and name in stable:
            pointer = stable[name]
            return pointer, Model.from_artefact(Artefact.unpack(registry.fetch(pointer.digest), pointer.digest))
    if wanted is not None and stable:
        raise NotFound(f"model {wanted!r} has no stable version")
    return None
