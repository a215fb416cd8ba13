"""`gaussline acl`: the users of a line as Redis's access control takes them."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Annotated, Literal

import typer

from gaussline.worker.broker.acl import LIMITS_6_2, acl_file, acl_users
from gaussline.worker.commands.options import Line, load_settings, write_file
from gaussline.worker.errors import SettingsError

EPILOG = """\b
Examples:
  gaussline acl --line press4 >> /etc/redis/users.acl
  gaussline acl --line press4 --subscriber mes --subscriber scada
  gaussline acl --redis 6.2
  gaussline acl --line press4 --passwords /etc/gaussline/passwords -o /etc/redis/users.acl

Nobody can be one of these users until it has a password. --passwords makes one for each in a file of its own, and puts
its SHA-256 into the rules; it also closes Redis's own user `default` and adds `admin`, who may do everything. See
docs/access.md. Talks to no Redis."""
_BYTES = 32


ADMIN = "admin"


def acl(
    subscriber: Annotated[
        list[str] | None, typer.Option(help="A subscriber, with a user of its own; may be repeated. (default: mes)")
    ] = None,
    redis: Annotated[Literal["7", "6.2"], typer.Option(help="The server's version: 7 or later, or 6.2.")] = "7",
    passwords: Annotated[
        Path | None, typer.Option(help="Folder of password files, named after the users; made where they are missing.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="What names begin with, where lines share a server: press4-.")] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write instead of printing.")] = None,
    line: Line = None,
) -> None:
    """Print a line's users with the least that each of them needs."""
    settings = load_settings(line=line)
    version = 7 if redis == "7" else 6
    names = subscriber or ["mes"]
    if passwords is None:
        text = acl_file(settings.line, names, redis=version, prefix=prefix)
    else:
        users = acl_users(settings.line, names, redis=version, prefix=prefix)
        digests = {user: password_digest(passwords / user) for user in (*users, ADMIN)}
        text = f"user default off\nuser {ADMIN} on #{digests[ADMIN]} ~* &* +@all\n"
        text += acl_file(settings.line, names, redis=version, prefix=prefix, digests=digests)
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_file(output, text.encode())
        count = sum(row.startswith("user ") and not row.startswith("user default ") for row in text.splitlines())
        how = "none has a password yet" if passwords is None else f"their passwords in {passwords}"
        typer.echo(f"{output}: {count} users of line {settings.line}, {how}", err=True)
    if version < 7:
        typer.echo(LIMITS_6_2, err=True)


def password_digest(file: Path) -> str:
    """SHA-256 of the password in a file; one that is missing is made, for its owner's eyes. Raises SettingsError."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as made:
                made.write(secrets.token_urlsafe(_BYTES) + "\n")
        password = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"password file {file}: {getattr(error, 'strerror', None) or 'it is no text'}") from None
    if not password:
        raise SettingsError(f"password file {file} is empty: remove it, and it is made anew")
    return hashlib.sha256(password.encode()).hexdigest()
