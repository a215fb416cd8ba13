"""What a person says beside a change: who, and why, as it is stored."""

from __future__ import annotations

from typing import Final

BY_CHARS: Final = 128
NOTE_CHARS: Final = 2000


def remark(text: str, most: int = NOTE_CHARS) -> str:
    """A text bounded, on one line, and such that every reader takes it.

    The shell hands over bytes that are no UTF-8 as halves of surrogate pairs: no terminal prints them, and Redis's JSON
    refuses all that holds one.
    """
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in " ".join(text.split())[:most])
