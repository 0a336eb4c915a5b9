"""A real PostgreSQL server: where its programs are, a new data folder, and the command that runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import psycopg

from perpetune.errors import PerpetuneError

USER = "ann"
DATABASES = ("perpetune", "mlflow", "prefect")


def programs() -> Path:
    """The folder of `initdb` and `postgres`. Raises PerpetuneError if this machine has none."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for each in places:
        if (each / "initdb").exists() and (each / "postgres").exists():
            return each
    raise PerpetuneError("PostgreSQL is not installed", do="`apt-get install postgresql`")


def version() -> str:
    """As "postgres (PostgreSQL) 15.14"."""
    return subprocess.run(
        [programs() / "postgres", "--version"], check=True, capture_output=True, text=True
    ).stdout.strip()


def make_data(folder: Path) -> None:
    """Write an empty cluster into `folder`/data, owned by whom the server runs as."""
    if _as_somebody_else():
        shutil.chown(folder, "nobody", "nogroup")
    make = [programs() / "initdb", "-D", folder / "data", "-U", USER, "--no-sync", "-E", "UTF8", "--locale=C"]
    subprocess.run([*_as_somebody_else(), *map(str, make)], check=True, capture_output=True, cwd="/")


def command(folder: Path, port: int) -> tuple[str, ...]:
    # A killed process loses nothing without fsync, only a machine that loses power does.
    options = ("listen_addresses=127.0.0.1", f"port={port}", "fsync=off", "max_connections=300", "max_wal_size=64MB")
    server = (str(programs() / "postgres"), "-D", str(folder / "data"), "-k", str(folder))
    return (*_as_somebody_else(), *server, *(word for option in options for word in ("-c", option)))


def url(driver: str, port: int, database: str) -> str:
    return f"{driver}://{USER}@127.0.0.1:{port}/{database}"


def accepts(port: int) -> bool:
    try:
        psycopg.connect(url("postgresql", port, "postgres"), connect_timeout=2).close()
    except psycopg.Error:
        return False
    return True


def make_databases(port: int) -> None:
    with psycopg.connect(url("postgresql", port, "postgres"), autocommit=True) as connection:
        for name in DATABASES:
            connection.execute(f"CREATE DATABASE {name}")


def _as_somebody_else() -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return []
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
