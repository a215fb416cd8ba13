"""The rules of the house that a linter does not know, over the syntax tree of one file."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_LINES = 400
PICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


@dataclass(frozen=True)
class Place:
    """Which rules a file lives under."""

    product: bool = False
    """A module of the package: what it says goes through logs and errors."""
    speaks: bool = False
    """A command: it may print."""
    test: bool = False


def place_of(path: tuple[str, ...]) -> Place:
    """The place of a file by the parts of its path in the repository."""
    product = path[0] in {"worker", "producer"}
    speaks = "commands" in path[:-1] or path[-1].startswith("command")
    return Place(product=product, speaks=speaks, test=path[0] == "tests" or path == ("conftest.py",))


def offences(text: str, place: Place) -> Iterator[str]:
    """What a file does against the rules, with its line."""
    lines = len(text.splitlines())
    if lines > MAX_LINES:
        yield f"1: {lines} lines are more than {MAX_LINES}: one file, one noun"
    tree = ast.parse(text)
    for node in ast.walk(tree):
        for what in _told(node, place):
            yield f"{getattr(node, 'lineno', 1)}: {what}"


def _told(node: ast.AST, place: Place) -> Iterator[str]:
    if isinstance(node, ast.ExceptHandler):
        if node.type is None:
            yield "a bare except"
        elif _name(node.type) == "BaseException" and not _hands_on(node):
            yield "except BaseException that swallows"
        elif all(isinstance(line, ast.Pass) for line in node.body) and _name(node.type) == "Exception":
            yield "except Exception: pass swallows every error"
    for module in _imported(node):
        # A test may make the hostile pickle that the product must refuse.
        if module.split(".")[0] in PICKLERS and not place.test:
            yield f"imports {module}: no pickle anywhere"
        if place.test and module in {"time.sleep", "asyncio.sleep"}:
            yield "sleeps: wait for a condition with a deadline"
    if isinstance(node, ast.Call):
        yield from _called(node, place)


def _called(node: ast.Call, place: Place) -> Iterator[str]:
    called = _name(node.func)
    given = {word.arg: word.value for word in node.keywords}
    if called == "torch.load" and not _is(given.get("weights_only"), value=True):
        yield "torch.load without weights_only=True unpickles"
    if called.endswith(".load") and "allow_pickle" in given and not _is(given["allow_pickle"], value=False):
        yield "allow_pickle unpickles"
    if (
        place.test
        and called in {"time.sleep", "asyncio.sleep"}
        and not _is(node.args[0] if node.args else None, value=0)
    ):
        yield "sleeps: wait for a condition with a deadline"
    if place.product and not place.speaks and called == "print":
        yield "prints: only commands speak to a person"
    if place.product and called == "torch.save":
        yield "torch.save pickles"
    if place.product and called in {"eval", "exec", "os.system"}:
        yield f"calls {called}"


def _hands_on(handler: ast.ExceptHandler) -> bool:
    """Whether a handler raises, or gives the error it caught to somebody, such as the thread that waits for it."""
    inside = [node for line in handler.body for node in ast.walk(line)]
    return any(
        isinstance(node, ast.Raise) or (isinstance(node, ast.Name) and node.id == handler.name) for node in inside
    )


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _name(node: ast.expr) -> str:
    """A dotted name as it is written, or nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := _name(node.value)):
        return f"{base}.{node.attr}"
    return ""


def _is(node: ast.expr | None, *, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value == value and type(node.value) is type(value)


def machine_paths(text: str, needles: Iterable[str]) -> list[str]:
    """Lines that hold one of these paths or addresses."""
    return [line.strip() for line in text.splitlines() if any(needle in line for needle in needles)]
