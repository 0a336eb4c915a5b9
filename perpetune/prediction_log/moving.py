"""Moving a prediction log to another database: all tables, verified, and the old one is closed.

No acknowledged request is lost. The old log takes no writes from the first row that is copied on, so that rows of running
gateways wait in their spools. When all is copied, and in the same transaction, its tables get other names: a gateway that
still writes to it fails, and goes on to spool. Once it is started again with the new address, the rows of its spool go
there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Table, func, select, text
from sqlalchemy.dialects import postgresql, sqlite

from perpetune.errors import PerpetuneError
from perpetune.prediction_log.database import MOVED, open_log, redacted, update_statistics, writing
from perpetune.prediction_log.tables import answer_counts, metadata

BATCH = 2000  # rows in one transaction of the new log
_REPORT_EVERY = 100_000  # rows
_CLOSED = "moved_"  # before the name of a table
_NUMBERED = (("feedback", "id"), ("admitted_labels", "number"))

Say = Callable[[str], None]


@dataclass(frozen=True)
class MovedLog:
    """The addresses, without passwords, and the number of rows by table."""

    source: str
    target: str
    rows: dict[str, int]


def move_log(source_url: str, target_url: str, say: Say, *, resume: bool = False) -> MovedLog:
    """Copy the log to an empty database and close the old one.

    With `resume` a copy that was interrupted goes on: rows that are there already are left as they are. Raises
    PerpetuneError if the target has rows (without `resume`), is the source, or does not have every row in the end; the
    old log then stays open.
    """
    shown, to = redacted(source_url), redacted(target_url)
    if shown == to:
        raise PerpetuneError("this is the log itself", where=to, do="name another database with --to")
    source, target = open_log(source_url), open_log(target_url)
    try:
        if not resume:
            _require_empty(target, to)
        with writing(source) as connection:
            _lock(connection)
            rows = {table.name: _copy(connection, target, table, say) for table in _copied()}
            for table, column in _NUMBERED:
                _continue_numbers(connection, target, table, column)
            _require_same(connection, target, to)
            update_statistics(target)
            _close(connection, to)
    finally:
        source.dispose()
        target.dispose()
    return MovedLog(shown, to, rows)


def _copied() -> list[Table]:
    """In an order in which rows that refer to others come after them. Triggers of the new log count the answers."""
    return [table for table in metadata.sorted_tables if table is not answer_counts]


def _require_empty(target: Engine, to: str) -> None:
    with target.connect() as connection:
        used = [table.name for table in _copied() if connection.execute(select(table).limit(1)).first() is not None]
    if used:
        raise PerpetuneError(
            f"the database has rows already, in {', '.join(used)}",
            where=to,
            do="name an empty one, or pass --resume if an interrupted copy of this log left them",
        )


def _lock(connection: Connection) -> None:
    """SQLite's transaction holds the only lock for writes from its start on."""
    if connection.dialect.name == "postgresql":
        names = ", ".join(table.name for table in metadata.sorted_tables)
        connection.execute(text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))


def _copy(source: Connection, target: Engine, table: Table, say: Say) -> int:
    """Copy a table in batches; returns its number of rows."""
    count = 0
    kind = sqlite.insert if target.dialect.name == "sqlite" else postgresql.insert
    for batch in _batches(source, table):
        with writing(target) as connection:
            connection.execute(kind(table).on_conflict_do_nothing(), batch)
        if (count + len(batch)) // _REPORT_EVERY > count // _REPORT_EVERY:
            say(f"{table.name}: {count + len(batch):,} rows")
        count += len(batch)
    say(f"{table.name}: {count:,} rows, done")
    return count


def _batches(source: Connection, table: Table) -> Iterator[Sequence[dict[str, Any]]]:
    """In the order of the key, so that the pages of the new log are written one after the other."""
    everything = select(table).order_by(*table.primary_key.columns)
    rows = source.execute(everything, execution_options={"yield_per": BATCH})
    for batch in rows.mappings().partitions():
        yield [dict(row) for row in batch]


def _continue_numbers(source: Connection, target: Engine, table: str, column: str) -> None:
    """Let the new log go on after the highest number that was ever given: checks go by the last one they have read."""
    number = _last_number(source, table, column)
    if number is None:
        return
    with writing(target) as connection:
        if target.dialect.name == "postgresql":
            known = max(number, _last_number(connection, table, column) or 0)
            sequence = func.pg_get_serial_sequence(table, column)
            connection.execute(select(func.setval(sequence, known)))
            return
        known = max(number, _last_number(connection, table, column) or 0)
        connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :table"), {"table": table})
        row = {"table": table, "number": known}
        connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:table, :number)"), row)


def _last_number(connection: Connection, table: str, column: str) -> int | None:
    """The last number that the database gave to a row of the table; None if it gave none."""
    if connection.dialect.name == "sqlite":
        found = connection.execute(text("SELECT seq FROM sqlite_sequence WHERE name = :table"), {"table": table})
    else:
        name = connection.execute(select(func.pg_get_serial_sequence(table, column))).scalar_one()
        found = connection.execute(text(f"SELECT last_value FROM {name} WHERE is_called"))
    number: int | None = found.scalar()
    return number


def _require_same(source: Connection, target: Engine, to: str) -> None:
    """Raises PerpetuneError if a table has other numbers of rows in the two logs."""
    with target.connect() as connection:
        for table in metadata.sorted_tables:
            count = select(func.count()).select_from(table)
            wanted, found = source.execute(count).scalar_one(), connection.execute(count).scalar_one()
            if wanted != found:
                raise PerpetuneError(
                    f"the copy of {table.name} has {found:,} rows, and the log {wanted:,}; the log stays in use",
                    where=to,
                    do="empty the database and run the command again: somebody else has written to it",
                )


def _close(connection: Connection, to: str) -> None:
    """Rename the tables and say where the log is now, in the transaction that holds the lock."""
    for table in metadata.sorted_tables:
        connection.execute(text(f"ALTER TABLE {table.name} RENAME TO {_CLOSED}{table.name}"))
    connection.execute(text(f"CREATE TABLE {MOVED} (address TEXT NOT NULL)"))
    connection.execute(text(f"INSERT INTO {MOVED} VALUES (:to)"), {"to": to})
