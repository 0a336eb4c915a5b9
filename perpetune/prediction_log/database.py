"""The database of the prediction log: opening, migrating and writing to it.

SQLite by default (write-ahead log, so that readers never wait), PostgreSQL in production.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import (
    Connection,
    Engine,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from perpetune.errors import PerpetuneError

if TYPE_CHECKING:
    import psycopg

BUSY_SECONDS = 5.0
MOVED = "perpetune_log_moved"  # a table with the address of the log, if it was moved (see `moving`)
_FEW = 100  # rows, of which any query plan is quick
_MIGRATION_LOCK = 0x70657270  # the key of PostgreSQL's advisory lock, an arbitrary constant
_one_migration = threading.Lock()  # Alembic's context is global to the process


def open_log(url: str) -> Engine:
    """Open the log at a SQLAlchemy URL and create or upgrade its tables. Several processes may do so at once.

    Raises PerpetuneError, without the URL's password, if the database cannot be reached or written, or was created by
    a newer perpetune.
    """
    target = _parse(url)
    shown = target.set(query={}).render_as_string(hide_password=True)
    engine = _sqlite(target) if target.get_backend_name() == "sqlite" else _postgresql(target)
    try:
        _require_not_moved(engine, shown)
        _migrate(engine)
        _refresh_statistics(engine)
    except CommandError:
        raise PerpetuneError(
            "the prediction log was created by a newer perpetune", where=shown, do="upgrade perpetune here too"
        ) from None
    except SQLAlchemyError as fault:
        raise PerpetuneError(
            f"the prediction log cannot be opened: {error_text(fault)}",
            where=shown,
            do="check that the database is up and writable, or set PERPETUNE_DATABASE_URL to another",
        ) from None
    return engine


@contextmanager
def writing(log: Engine) -> Iterator[Connection]:
    """A transaction that may write."""
    with log.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


def update_statistics(log: Engine) -> None:
    """Let the database sample its tables: query plans go by that. PostgreSQL does so by itself too."""
    with writing(log) as connection:
        if log.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA analysis_limit = 1000")
        connection.exec_driver_sql("ANALYZE")


def error_text(fault: Exception) -> str:
    """The database's error message in one line, without the statement and its values."""
    cause = getattr(fault, "orig", None) or fault
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]


def redacted(url: str) -> str:
    """The URL without its password."""
    return _parse(url).set(query={}).render_as_string(hide_password=True)


def _parse(url: str) -> URL:
    example = "sqlite:////var/lib/perpetune/predictions.db or postgresql://USER:PASSWORD@HOST/DATABASE"
    try:
        target = make_url(url)
    except (ArgumentError, ValueError):
        raise PerpetuneError("PERPETUNE_DATABASE_URL is not a database URL", do=f"write it like {example}") from None
    if "@" in (target.host or ""):
        raise PerpetuneError("the password in PERPETUNE_DATABASE_URL has an unescaped @", do="write it as %40")
    if target.drivername == "postgres":
        target = target.set(drivername="postgresql")
    if target.drivername in ("postgresql", "postgresql+psycopg"):
        return target.set(drivername="postgresql+psycopg")
    if target.drivername in ("sqlite", "sqlite+pysqlite") and target.database not in (None, "", ":memory:"):
        return target
    raise PerpetuneError(
        f"the prediction log does not support {target.drivername}, only PostgreSQL and SQLite files",
        do=f"set PERPETUNE_DATABASE_URL like {example}",
    )


_PATIENCE = {
    "connect_timeout": "5",  # seconds, until the server has let us in
    "tcp_user_timeout": "10000",  # milliseconds, until what was sent is acknowledged
    # Seconds: of a host that has vanished nothing comes, so that what waits for an answer would wait for two hours.
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}


def _postgresql(target: URL) -> Engine:
    """The URL's own settings come first."""
    engine = create_engine(target.set(query={**_PATIENCE, **target.query}), pool_pre_ping=True)
    if "jit" not in str(target.query.get("options", "")):
        event.listen(engine, "connect", _compile_no_plans)
    return engine


def _compile_no_plans(connection: "psycopg.Connection[Any]", _entry: ConnectionPoolEntry) -> None:
    """Compiling a plan of many subqueries takes longer than our queries do. Not by `options`, which PgBouncer refuses."""
    connection.autocommit = True
    connection.execute("SET jit = off")
    connection.autocommit = False


def _sqlite(target: URL) -> Engine:
    path = Path(str(target.database)).absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as fault:
        raise PerpetuneError(
            f"the prediction log cannot be created: {fault.strerror}",
            where=str(path),
            do="free the path, or set PERPETUNE_DATABASE_URL to another",
        ) from None

    def connect() -> sqlite3.Connection:
        # mode=rw: a missing file is an error, not a new and empty log.
        return sqlite3.connect(
            f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )

    engine = create_engine(target, creator=connect, poolclass=QueuePool)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)

    @event.listens_for(engine, "connect")
    def remember_file(_connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
        entry.info["file"] = _identity(path)

    @event.listens_for(engine, "checkout")
    def refuse_other_file(_connection: sqlite3.Connection, entry: ConnectionPoolEntry, _proxy: object) -> None:
        # Writes to a deleted or replaced file succeed and are lost: reconnect instead.
        if entry.info["file"] != _identity(path):
            raise DisconnectionError

    return engine


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _set_up_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    _enter_wal(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. SQLite's busy timeout does not cover this step, so wait here."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as fault:
            if fault.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads before it writes takes the write lock at once, because SQLite cannot upgrade it later.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _require_not_moved(log: Engine, shown: str) -> None:
    """Raises PerpetuneError if the log was moved to another database."""
    if not inspect(log).has_table(MOVED):
        return
    with log.connect() as connection:
        address = connection.exec_driver_sql(f"SELECT address FROM {MOVED}").scalar()
    raise PerpetuneError(
        f"the prediction log was moved to {address}", where=shown, do="set PERPETUNE_DATABASE_URL to that database"
    )


def _migrate(log: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    with _one_migration, writing(log) as connection:
        if log.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _refresh_statistics(log: Engine) -> None:
    """Update SQLite's statistics once the log has grown tenfold: without, it would take every index for a good one."""
    if log.dialect.name != "sqlite":
        return
    with log.connect() as connection:
        answers = connection.exec_driver_sql("SELECT coalesce(sum(answers), 0) FROM answer_counts").scalar_one()
        known = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat1'").scalar()
        stat = "SELECT stat FROM sqlite_stat1 WHERE idx = 'predictions_task_time'"
        before = connection.exec_driver_sql(stat).scalar() if known else None
    if answers >= 10 * max(_FEW, int(str(before or "0").split()[0])):
        update_statistics(log)
