"""Before a pointer moves: is the version whole, and can the workers that judge by this model judge by it?"""

from __future__ import annotations

from gaussline.worker.broker.client import Redis
from gaussline.worker.broker.line_state import read_workers
from gaussline.worker.broker.registry import Registry
from gaussline.worker.broker.seal import Seal
from gaussline.worker.contract.artefact import Artefact
from gaussline.worker.contract.model import Model
from gaussline.worker.errors import ArtefactError, BackboneMismatch, NotFound


def check_fit(client: Redis, line: str, name: str, number: int, *, seal: Seal | None = None) -> None:
    """Raise where a promotion could only go wrong.

    NotFound: there is no such version. ArtefactError: it is not whole. BackboneMismatch: living workers hold another
    backbone for this model, and would all refuse it.
    """
    registry = Registry(client, line, seal=seal)
    version = registry.version(name, number)
    try:
        model = _model(registry, version.digest)
    except NotFound:
        return  # it was collected: the promotion itself says so, under its own guard
    stable = registry.pointer(name)
    if stable is None or stable.digest == version.digest:
        return
    if not any(worker.alive and name in worker.models for worker in read_workers(client, line)):
        return  # whoever starts takes the backbone that the pointer names
    try:
        judging = _model(registry, stable.digest)
    except (NotFound, ArtefactError):
        return  # what judges now is itself broken: away from it
    try:
        judging.spec.check_against(model.spec)
    except BackboneMismatch as error:
        raise BackboneMismatch(
            f"version {number} of {name} needs another backbone than its workers hold, who would refuse it: {error}. "
            "Roll it out through a set of workers ('gaussline sets --help'), or say --force"
        ) from None


def _model(registry: Registry, digest: str) -> Model:
    return Model.from_artefact(Artefact.unpack(registry.fetch(digest), digest, checked=True), moments=False)
