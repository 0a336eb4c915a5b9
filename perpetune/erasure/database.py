"""Texts in SQLite files that other programs own, and the pages of a file that hold what was deleted."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from perpetune.erasure.scrubber import Scrubber
from perpetune.errors import PerpetuneError

PATIENCE = 30.0


def scrub_database(path: Path, scrubber: Scrubber, *, dry_run: bool) -> int:
    """Scrub every text of every table; returns how many. Nothing is left in free pages or in the write-ahead log."""
    try:
        with closing(sqlite3.connect(path, timeout=30)) as database:
            database.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
            database.execute("PRAGMA secure_delete = ON")
            count = sum(_scrub_table(database, table, scrubber, dry_run=dry_run) for table in _tables(database))
            database.commit()
        if not dry_run:
            vacuum(path)
        return count
    except sqlite3.Error as fault:
        raise PerpetuneError(
            f"it may still hold the rows: {fault}",
            where=str(path),
            do="stop `perpetune up` and run the command again: it goes on where it stopped",
        ) from fault


def vacuum(path: Path, patience: float = PATIENCE) -> None:
    """Rewrite the file without free pages, and empty its write-ahead log.

    Raises sqlite3.OperationalError if another process reads or writes for longer than `patience` seconds on end.
    """
    deadline = time.monotonic() + patience
    with closing(sqlite3.connect(path, timeout=patience, isolation_level=None)) as database:
        _checkpoint(database, deadline)
        database.execute("VACUUM")
        _checkpoint(database, deadline)


def _checkpoint(database: sqlite3.Connection, deadline: float) -> None:
    """Empty the write-ahead log. SQLite does not wait for a reader of it, so wait here."""
    while database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > deadline:
            raise sqlite3.OperationalError("another process has been reading the database for a while")
        time.sleep(0.05)


def _tables(database: sqlite3.Connection) -> list[str]:
    rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return [str(name) for (name,) in rows.fetchall()]


def _scrub_table(database: sqlite3.Connection, table: str, scrubber: Scrubber, *, dry_run: bool) -> int:
    try:
        rows = database.execute(f'SELECT rowid, * FROM "{table}"')
    except sqlite3.OperationalError:  # without rowid
        return 0
    columns = [each[0] for each in rows.description][1:]
    changes: list[tuple[str, str, int]] = []
    for rowid, *values in rows:
        for column, value in zip(columns, values, strict=True):
            if isinstance(value, str) and (new := scrubber.text(value)) != value:
                changes.append((column, new, rowid))
    if not dry_run:
        for column, new, rowid in changes:
            database.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (new, rowid))
    return len(changes)
