"""The book of models: which model judges which camera now, as one immutable page that is turned between two batches.

Everything slow (fetching, checking, moving to the device, warming up) happens in the thread that calls `refresh`; the
compute stage only ever reads the current page. A model that cannot be loaded leaves the page as it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from gaussline.worker.broker.cameras import DEFAULT_MODEL, read_cameras
from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.registry import Pointer, Registry
from gaussline.worker.broker.seal import Seal
from gaussline.worker.broker.sets import Sets, foreign_models
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.clock import from_text
from gaussline.worker.contract.keys import MAIN
from gaussline.worker.contract.model import Model
from gaussline.worker.contract.trial import CANARY, CHANNELS, SHADOW, STABLE, Selection
from gaussline.worker.contract.verdict import ModelRef
from gaussline.worker.engine.observer import Observer
from gaussline.worker.errors import BrokerError, ModelError, NotFound

Prepared = TypeVar("Prepared")
SWAP_S = 2.0
"""A promoted version is in use after so long, or the worker is not ready, and says why."""


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
        entries: model name -> the version that judges.
        canaries: model name -> the version on trial, and whose frames it decides.
        shadows: model name -> the version that is scored for every frame and decides none.
        refused: `model`, or `model/channel` of a trial -> why its version cannot be used.
        default_model: of cameras that are not registered yet.
        copied: cameras whose frames this worker's set is only shown.
    """

    entries: Mapping[str, Entry[Prepared]]
    camera_models: Mapping[str, str]
    refused: Mapping[str, str]
    canaries: Mapping[str, tuple[Entry[Prepared], Selection]] = field(default_factory=dict)
    shadows: Mapping[str, Entry[Prepared]] = field(default_factory=dict)
    default_model: str = DEFAULT_MODEL
    copied: frozenset[str] = frozenset()

    def find(self, camera: str) -> Entry[Prepared] | None:
        """The model that judges a camera, None where there is none."""
        return self.entries.get(self.model_name(camera))

    def model_name(self, camera: str) -> str:
        """Name of the model a camera is judged by; cameras that are not registered yet take the default one."""
        return self.camera_models.get(camera, self.default_model)

    def canary_for(self, name: str, camera: str, identity: str) -> Entry[Prepared] | None:
        """The canary that decides this frame of a camera of model `name`, None where stable does."""
        found = self.canaries.get(name)
        return found[0] if found is not None and found[1].takes(camera, identity) else None


class ModelBook(Generic[Prepared]):
    """Keeps the current page.

    Args:
        prepare: checks a model against the backbone, puts it on the device and warms it up. Raises ModelError.
        worker_set: whose workers' page it is: models that other sets alone judge by are left to them.
        seal: whose artefacts are loaded.
    """

    def __init__(
        self,
        client: Redis,
        line: str,
        prepare: Callable[[Model], Prepared],
        observer: Observer | None = None,
        *,
        worker_set: str = MAIN,
        seal: Seal | None = None,
    ) -> None:
        self._client = client
        self._line = line
        self._registry = Registry(client, line, seal=seal)
        self._sets = Sets(client, line)
        self._set = worker_set
        self._prepare = prepare
        self._observer = observer or Observer()
        self._page: Page[Prepared] = Page({}, {}, {})
        self._follows: Callable[[str], bool] = lambda model: False
        self._held: dict[tuple[str, str], Entry[Prepared]] = {}
        self._tried: dict[tuple[str, str], str] = {}
        self._refused: dict[tuple[str, str], str] = {}
        self._distrusted: dict[tuple[str, str], tuple[str, str]] = {}

    @property
    def page(self) -> Page[Prepared]:
        """The current page; read it once a batch."""
        return self._page

    def refresh(self) -> Page[Prepared]:
        """Read pointers and cameras, load what is new, turn the page. Raises BrokerError where Redis cannot say."""
        scope = self._scope()
        self._follows = scope.follows
        pointers = {
            (each.model, each.channel): each
            for each in self._registry.pointers()
            if each.channel in CHANNELS and scope.follows(each.model)
        }
        for gone in [key for key in (*self._held, *self._tried, *self._refused) if key not in pointers]:
            if self._held.pop(gone, None) is not None:
                self._observer.model_dropped(*gone)
            self._tried.pop(gone, None)
            self._refused.pop(gone, None)
        # What judges comes before what is only looked at, and is in use when it is there: the slow load of a shadow, or
        # of another model, must not delay a promotion.
        for key in sorted(pointers, key=lambda key: CHANNELS.index(key[1])):
            if self._follow(key, pointers[key]):
                self._page = self._made(scope, pointers)
        self._page = self._made(scope, pointers)
        return self._page

    def distrust(self, ref: ModelRef, why: str) -> None:
        """Refuse a version on trial that could not score what the stable one could, from the next `refresh` on.

        Any thread may call it.
        """
        self._distrusted[ref.name, ref.channel] = (ref.digest, why)

    def _made(self, scope: _Scope, pointers: Mapping[tuple[str, str], Pointer]) -> Page[Prepared]:
        # While another version on trial loads, the one before it does not take its share.
        tried = {key: each for key, each in self._held.items() if each.ref.version == pointers[key].version}
        return Page(
            {model: entry for (model, channel), entry in self._held.items() if channel == STABLE},
            scope.camera_models,
            {
                model if channel == STABLE else f"{model}/{channel}": why
                for (model, channel), why in self._refused.items()
            },
            {
                model: (entry, pointers[model, channel].selection or Selection())
                for (model, channel), entry in tried.items()
                if channel == CANARY
            },
            {model: entry for (model, channel), entry in tried.items() if channel == SHADOW},
            scope.default_model,
            scope.copied,
        )

    def behind(self, now_us: int) -> list[str]:
        """Models whose stable version should be in use by now and is not, and why. Raises BrokerError.

        Asks Redis itself: a watch that is stuck must not hide that it is.
        """
        page, said = self._page, [f"model {name} {why}" for name, why in self._page.refused.items() if "/" not in name]
        for pointer in self._registry.pointers():
            if pointer.channel != STABLE or not self._follows(pointer.model):
                continue
            entry = page.entries.get(pointer.model)
            if entry is not None and entry.ref.digest == pointer.digest:
                continue
            late_s = abs(now_us - from_text(pointer.moved_at)) / 1e6  # the clock may have gone back since
            if late_s > SWAP_S and pointer.model not in page.refused:
                before = "none" if entry is None else f"version {entry.ref.version}"
                said.append(
                    f"model {pointer.model} version {pointer.version}: promoted {late_s:.1f} s ago and not in use yet; "
                    f"{before} judges"
                )
        return said

    def _scope(self) -> _Scope:
        """What this worker's set judges, and by which models."""
        cameras = read_cameras(self._client, self._line)
        declared = self._sets.read()
        if self._set == MAIN:
            others = foreign_models(declared, cameras)
            return _Scope({name: each.model for name, each in cameras.items()}, lambda model: model not in others)
        own = declared.get(self._set)
        if own is None:  # it was removed; its cameras were moved away before
            return _Scope({}, lambda model: False)
        models = {name: own.model_for(each.model) or each.model for name, each in cameras.items()}
        stand = self._sets.assignments(list(cameras)).values()
        return _Scope(
            models,
            frozenset(own.models.values()).__contains__,
            own.model_for(DEFAULT_MODEL) or DEFAULT_MODEL,
            frozenset(each.camera for each in stand if each.settled_by != self._set),
        )

    def _follow(self, key: tuple[str, str], pointer: Pointer) -> bool:
        """Have what a pointer names, or say why not. Whether something was loaded."""
        digest, why = self._distrusted.pop(key, ("", ""))
        if digest == pointer.digest and pointer.channel != STABLE:
            self._refuse(key, pointer, ModelError(why))
            return False
        held = self._held.get(key)
        if held is not None and held.ref.digest == pointer.digest and held.ref.version == pointer.version:
            self._refused.pop(key, None)  # the pointer went elsewhere and came back
            self._tried.pop(key, None)
            return False
        if self._tried.get(key) == f"{pointer.digest}:{pointer.revision}":
            return False  # refused before; it is tried again when the pointer moves
        try:
            self._held[key] = self._load(pointer)
        except BrokerError:
            raise  # it says nothing of the version
        except (ModelError, NotFound) as error:
            self._refuse(key, pointer, error)
            return False
        except Exception as error:  # a full device, a fault of a library: it must not keep other versions waiting
            self._observer.surprise("watch", error)
            self._refuse(key, pointer, ModelError(f"{type(error).__name__}: {str(error)[:200]}"))
            return False
        self._refused.pop(key, None)
        self._tried.pop(key, None)
        return True

    def _refuse(self, key: tuple[str, str], pointer: Pointer, error: ModelError | NotFound) -> None:
        self._tried[key] = f"{pointer.digest}:{pointer.revision}"
        self._refused[key] = f"version {pointer.version}: {error}"
        if pointer.channel != STABLE and self._held.pop(key, None) is not None:
            self._observer.model_dropped(*key)  # an older version on trial is no stand-in for this one
        self._observer.model_refused(pointer.model, pointer.version, error)

    def _load(self, pointer: Pointer) -> Entry[Prepared]:
        ref = ModelRef(pointer.model, pointer.version, pointer.digest, pointer.channel)
        for entry in self._held.values():
            if entry.ref.digest == pointer.digest:  # a canary that is promoted is on the device already
                self._observer.model_loaded(ref.name, ref.version, ref.digest, 0.0, ref.channel)
                return Entry(ref, entry.model, entry.prepared)
        begin = time.perf_counter()
        data = self._registry.fetch(pointer.digest)
        model = Model.from_artefact(Artefact.unpack(data, pointer.digest, checked=True), moments=False)
        prepared = self._prepare(model)
        self._observer.model_loaded(ref.name, ref.version, ref.digest, time.perf_counter() - begin, ref.channel)
        return Entry(ref, model, prepared)


@dataclass(frozen=True, slots=True)
class _Scope:
    """What one set judges: cameras by model, whether a model is its business, and what it is only shown."""

    camera_models: Mapping[str, str]
    follows: Callable[[str], bool]
    default_model: str = DEFAULT_MODEL
    copied: frozenset[str] = frozenset()


def first_model_of(registry: Registry, client: Redis, worker_set: str) -> tuple[Pointer, Model] | None:
    """The model whose backbone a worker of a set takes at its start; None where there is none yet. Raises NotFound."""
    declared = Sets(client, registry.line).read()
    if worker_set == MAIN:
        return first_model(registry, avoid=foreign_models(declared, read_cameras(client, registry.line)))
    for name in dict.fromkeys(declared[worker_set].models.values()) if worker_set in declared else ():
        if registry.pointer(name) is not None:
            return first_model(registry, name)
    return None


def first_model(
    registry: Registry, wanted: str | None = None, avoid: Collection[str] = ()
) -> tuple[Pointer, Model] | None:
    """The model whose backbone a starting worker takes: the wanted one's stable version, else the default's, else any
    that is not to be avoided.

    None where nothing is promoted yet. Raises GausslineError where the artefact cannot be read.
    """
    stable = {pointer.model: pointer for pointer in registry.pointers() if pointer.channel == STABLE}
    for name in (wanted, DEFAULT_MODEL, *sorted(stable)):
        if name is not None and name in stable and name not in avoid:
            pointer = stable[name]
            artefact = Artefact.unpack(registry.fetch(pointer.digest), pointer.digest, checked=True)
            return pointer, Model.from_artefact(artefact, moments=False)
    if wanted is not None and stable:
        raise NotFound(f"model {wanted!r} has no stable version")
    return None
