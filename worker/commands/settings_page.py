"""Every setting as a page, as an environment file and as TOML: docs/settings.md and the examples are made of this."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from gaussline.worker.settings import PREFIX, Settings

_HEAD = """# Settings

Made from the code by `make docs`; a test holds the two together. Each is an environment variable, or a line of a TOML
file that `GAUSSLINE_CONFIG` names; the environment wins. A name that is none is refused, with the one that was probably
meant. Secrets come from files: `GAUSSLINE_REDIS_PASSWORD_FILE`. [`.env.example`](../.env.example) and
[`deploy/gaussline.toml`](../deploy/gaussline.toml) hold all of them with their defaults.""".splitlines()
_KINDS: dict[Any, str] = {
    SecretStr: "text, secret",
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
}


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """One setting, as people read it."""

    name: str
    variable: str
    kind: str
    default: Any
    text: str


def settings_table() -> list[SettingInfo]:
    """All settings, in the order of the code."""
    return list(_rows())


def page() -> str:
    """The page docs/settings.md."""
    lines = [*_HEAD, "", "| variable | in TOML | type | default | meaning |", "|---|---|---|---|---|"]
    for row in settings_table():
        default = "none" if row.default is None else f"`{row.default}`"
        lines.append(f"| `{row.variable}` | `{row.name}` | {row.kind} | {default} | {row.text} |")
    return "\n".join(lines) + "\n"


def env_example() -> str:
    """The file .env.example: every setting with its default, as a comment."""
    lines = ["# Every setting of gaussline with its default. Take the # away to change one."]
    for row in settings_table():
        value = "" if row.default is None else _plain(row.default)
        lines += ["", f"# {row.text}", f"#{row.variable}={value}"]
    return "\n".join(lines) + "\n"


def toml_example() -> str:
    """The file deploy/gaussline.toml: the same as TOML."""
    lines = ["# Every setting of gaussline with its default, for GAUSSLINE_CONFIG. Take the # away to change one."]
    for row in settings_table():
        value = '""  # none' if row.default is None else _toml(row.default)
        lines += ["", f"# {row.text}", f"#{row.name} = {value}"]
    return "\n".join(lines) + "\n"


def _rows() -> Iterator[SettingInfo]:
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        yield SettingInfo(name, PREFIX + name.upper(), _kind(field.annotation), default, field.description or "")


def _kind(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " \\| ".join(f"`{choice}`" for choice in typing.get_args(annotation))
    if origin is typing.Annotated:
        return _kind(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return _kind(next(part for part in typing.get_args(annotation) if part is not type(None)))
    return _KINDS.get(annotation, str(annotation))


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _toml(value: Any) -> str:
    return json.dumps(str(value) if isinstance(value, Path) else value)
