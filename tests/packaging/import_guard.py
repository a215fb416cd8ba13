"""Watch what importing modules does: import_guard.py FOLDER[:FOLDER ...] MODULE ... prints as JSON what they must not.

An import of ours may read no environment variable, make or change no file, connect nowhere and start neither a process
nor a thread. Third parties do as they please on *their* import; so an act counts when, going up the stack from it, a
frame of a file in one of the folders comes before one of the import machinery.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

ACTS = {
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.chmod",
    "os.truncate",
    "os.putenv",
    "os.fork",
    "os.posix_spawn",
    "os.system",
    "socket.bind",
    "socket.connect",
    "socket.getaddrinfo",
    "subprocess.Popen",
    "_thread.start_new_thread",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
NOT_OURS = ("PYDANTIC_",)
"""Variables that a third party reads whenever one of its classes is extended, and not on its own import."""


class Guard:
    """Collects the acts of the files in some folders."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = tuple(f"{folder}{os.sep}" for folder in folders)
        self.seen: list[str] = []

    def culprit(self, frame: FrameType | None) -> str | None:
        """File and line of ours that led here, if one did."""
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith("<frozen importlib"):
                return None
            if os.path.realpath(name).startswith(self.folders):
                return f"{os.path.realpath(name)}:{frame.f_lineno}"
            frame = frame.f_back
        return None

    def note(self, act: str) -> None:
        """Take an act down, if it is one of ours."""
        where = self.culprit(sys._getframe(2))
        if where is not None:
            self.seen.append(f"{where} {act}")

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        """Hear the interpreter's audit events."""
        if event == "open":
            path, mode, flags = args
            if (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & WRITING):
                self.note(f"opens {path} to write")
        elif event in ACTS:
            self.note(event)

    def watch_environment(self) -> None:
        """Hear of each reading of os.environ."""
        environment = type(os.environ)
        read, walk = environment.__getitem__, environment.__iter__

        def getitem(this: Any, name: Any) -> Any:
            if not str(name).startswith(NOT_OURS):
                self.note(f"reads ${name}")
            return read(this, name)

        def iterate(this: Any) -> Any:
            self.note("reads the environment")
            return walk(this)

        setattr(environment, "__getitem__", getitem)  # noqa: B010 - mypy forbids assigning to a method
        setattr(environment, "__iter__", iterate)  # noqa: B010


def main() -> None:
    """Import everything under guard."""
    sys.dont_write_bytecode = True
    guard = Guard([Path(name).resolve() for name in sys.argv[1].split(os.pathsep)])
    guard.watch_environment()
    sys.addaudithook(guard.audit)
    for name in sys.argv[2:]:
        importlib.import_module(name)
    json.dump(guard.seen, sys.stdout)


if __name__ == "__main__":
    main()
