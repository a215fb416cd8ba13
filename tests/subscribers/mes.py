"""A small MES: it books each verdict in SQLite, in a process that the test kills. mes.py URL LINE DATABASE"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from typing import Any

from gaussline import Verdicts


def book(cursor: Any, verdict: dict[str, Any]) -> None:
    """The effect: a row, and a sum that no key protects."""
    cursor.execute("INSERT INTO booked VALUES (?, ?)", (verdict["id"], verdict["decision"]))
    cursor.execute("UPDATE total SET parts = parts + 1")


def tables(path: str) -> sqlite3.Connection:
    """The database with its tables."""
    connection = sqlite3.connect(path, timeout=20.0)
    connection.execute("CREATE TABLE IF NOT EXISTS booked (id TEXT, decision TEXT)")
    connection.execute("CREATE TABLE IF NOT EXISTS total (parts INTEGER)")
    if connection.execute("SELECT count(*) FROM total").fetchone()[0] == 0:
        connection.execute("INSERT INTO total VALUES (0)")
    connection.commit()
    return connection


def main(url: str, line: str, path: str) -> None:
    """Book verdicts until killed."""
    with closing(tables(path)) as connection:
        Verdicts(url, line).exactly_once(connection, "mes", book, batch=7).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
