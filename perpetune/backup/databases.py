"""Consistent copies of databases while others write to them."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from sqlalchemy import create_engine, inspect, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from perpetune.errors import PerpetuneError

PAGES = 2000  # in one step of a copy, between which writers are let in


def copy_sqlite(source: Path, target: Path) -> None:
    """By SQLite's online backup: what was committed before its end is in the copy, whole. It has no write-ahead log."""
    try:
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as database:
            with closing(sqlite3.connect(target)) as copy:
                # In one transaction, so that writers do not make it begin again and again. They are not kept waiting:
                # in write-ahead mode readers lock nobody out.
                database.execute("BEGIN")
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()
                database.backup(copy, pages=PAGES)
                copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as fault:
        raise PerpetuneError(f"the database cannot be copied: {fault}", where=str(source)) from fault


def dump_postgresql(url: str, target: Path) -> None:
    """By pg_dump, in its own format: the database as it was at the start."""
    _run("pg_dump", url, ["--format=custom", "--no-owner", "--no-privileges", f"--file={target}"])


def restore_postgresql(url: str, dump: Path) -> None:
    _run("pg_restore", url, ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction", str(dump)])


def require_empty(url: str) -> None:
    """Raises PerpetuneError if the PostgreSQL database has tables or cannot be reached."""
    target = make_url(url)
    engine = create_engine(target.set(drivername="postgresql+psycopg"))
    try:
        tables = inspect(engine).get_table_names()
    except SQLAlchemyError as fault:
        raise PerpetuneError(f"the database cannot be reached: {fault.args[0]}", where=_shown(target)) from None
    finally:
        engine.dispose()
    if tables:
        raise PerpetuneError(
            f"the database has tables already: {', '.join(sorted(tables)[:3])}",
            where=_shown(target),
            do="name an empty database",
        )


def _run(program: str, url: str, arguments: Sequence[str]) -> None:
    """Run a program of PostgreSQL; the password is in its environment, which other users cannot read."""
    if shutil.which(program) is None:
        raise PerpetuneError(
            f"{program} is missing", do="install PostgreSQL's client: apt-get install postgresql-client"
        )
    target = make_url(url).set(drivername="postgresql")
    secret = {"PGPASSWORD": str(target.password)} if target.password else {}
    address = target._replace(password=None).render_as_string(hide_password=False)
    command = [program, *arguments[:-1], f"--dbname={address}", arguments[-1]]
    done = subprocess.run(command, env=os.environ | secret, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PerpetuneError(f"{program} failed: {done.stderr.strip()[-500:]}", where=_shown(target))


def _shown(url: URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True)
