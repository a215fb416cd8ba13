"""Every import a module makes, read from its syntax tree: at any depth, relative, for type checkers, or by its name."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass

BY_NAME = {"import_module", "__import__", "find_spec", "run_module", "files", "LazyLoader"}
"""Calls whose first argument is a module's name."""


@dataclass(frozen=True)
class Import:
    """One import: the full name of what is imported, a module's where that is known, and its line."""

    target: str
    line: int


@dataclass(frozen=True)
class Module:
    """A module as the checker takes it: its full name, its text, and whether it is a package."""

    name: str
    text: str
    is_package: bool = False

    @property
    def package(self) -> str:
        """The package that relative imports start from."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


class Unresolvable(Exception):
    """An import that cannot be told from the text alone."""


def absolute(module: Module, node: ast.ImportFrom) -> str:
    """The full name behind `from … import`; dots resolved."""
    if node.level == 0:
        return node.module or ""
    parts = module.package.split(".")
    if node.level > len(parts):
        raise Unresolvable(f"{module.name}:{node.lineno} climbs out of the package")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def imports(module: Module, known: Collection[str]) -> Iterator[Import]:
    """All imports of a module; `from a import b` means a.b where that is one of the `known` modules."""
    tree = ast.parse(module.text)
    by_table = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            source = absolute(module, node)
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield Import(inner if inner in known else source, node.lineno)
                if alias.name == "*":
                    yield Import(f"{source}.*", node.lineno)
        elif isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
            first = node.args[0] if node.args else None
            if name in BY_NAME and isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield Import(first.value, node.lineno)
            elif name in {"import_module", "__import__"}:
                yield Import("?", node.lineno)
                by_table = True
    if by_table:
        # A module that imports by a computed name takes it from a table: every module that its text names counts.
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and "." in node.value
                and node.value in known
            ):
                yield Import(node.value, node.lineno)
