"""A workspace in a folder of the test: the repository's params.yaml with other settings, and databases ready for use."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from perpetune.workspace import Workspace

ROOT = Path(__file__).parents[2]
MLFLOW = """
import sys
from mlflow.tracking import MlflowClient
MlflowClient(f"sqlite:///{sys.argv[1]}/mlflow.db").search_experiments()
"""
PREFECT = """
import asyncio
from prefect.server.database import provide_database_interface
asyncio.run(provide_database_interface().create_db())
"""
SCRIPTS = {"mlflow": MLFLOW, "prefect": PREFECT}


def write_params(folder: Path, /, **sections: Mapping[str, object]) -> Path:
    """The repository's params.yaml with these settings in place of its own; the others of each section stay.

    Its reviews are left out: each read would start pip, which finds no wheel here.
    """
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    settings["fetch"]["sources"].remove("reviews")
    for section, values in sections.items():
        settings[section] = settings.get(section, {}) | values
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def new_mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Put an empty MLflow store into a folder, and return its address."""
    return lambda folder: f"sqlite:///{shutil.copy(_database(tmp_path_factory, 'mlflow', MLFLOW), folder)}"


@pytest.fixture(scope="session")
def seed_servers(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Give a workspace's servers, both or those named, the databases that they take seconds to make at a first start."""

    def seed(workspace: Workspace, *names: str) -> None:
        for name in names or ("prefect", "mlflow"):
            folder = workspace.home / name
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(_database(tmp_path_factory, name, SCRIPTS[name]), folder)

    return seed


def once(folders: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` fills, once for all workers of this session."""
    base = folders.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    shared.mkdir(exist_ok=True)
    folder, finished = shared / name, shared / f"{name}.finished"
    with FileLock(shared / f"{name}.lock"):
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            finished.touch()
    return folder


def copied(workspace: Path, into: Path) -> Path:
    """A copy of a workspace with its MLflow store, which names its own folder in many places."""
    from mlflow.tracking._tracking_service import utils

    shutil.copytree(workspace, into, symlinks=True)
    with closing(sqlite3.connect(into / "mlflow.db")) as database, database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for _, column, kind, *_ in database.execute(f'PRAGMA table_info("{table}")').fetchall():
                if kind.upper().startswith(("VARCHAR", "TEXT")):
                    database.execute(
                        f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)',
                        (str(workspace), str(into), str(workspace)),
                    )
    utils._artifact_repos_cache.clear()  # MLflow keeps where the files of a run lay
    return into


def _database(folders: pytest.TempPathFactory, name: str, script: str) -> Path:
    """An empty database, migrated once for all workers of this session."""

    def migrate(folder: Path) -> None:
        around = {**os.environ, "PREFECT_HOME": str(folder), "DO_NOT_TRACK": "1"}
        subprocess.run([sys.executable, "-c", script, str(folder)], env=around, check=True, capture_output=True)

    return once(folders, name, migrate) / f"{name}.db"
