"""A backup of a workspace that has been through the loop, restored into nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from postgres_server import Postgres, postgres_server

from perpetune.backup.create import create_backup
from perpetune.backup.manifest import NAME, Place, read_manifest
from perpetune.backup.restore import restore_backup
from perpetune.errors import PerpetuneError
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import counts, recent_predictions
from perpetune.prediction_log.writes import record_rows
from perpetune.records import Prediction
from perpetune.reproduction.reproduce import reproduce
from perpetune.settings import Settings
from perpetune.tracking import registry
from perpetune.tracking.runs import connect
from perpetune.workspace import Workspace, open_workspace

PARAMS = "task:\n  name: reviews\n  kind: classification\n  instruction: Judge it.\n  labels: null\n"


def quiet(_line: str) -> None:
    """No progress."""


@pytest.fixture
def workspace(tmp_path: Path, prediction: Callable[..., Prediction], monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Settings, data, a log of three requests, a row in the spool, and files that are made again."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # that of a workspace which other tests share
    root = tmp_path / "workspace"
    for name, content in {
        "params.yaml": PARAMS,
        "rules.py": "RULES = []",
        ".env": "PASSWORD=secret",
        "data/inbox/rows.jsonl": '{"input": "a"}\n',
        ".dvc/cache/files/md5/ab/cd": "object",
        ".perpetune/spool/1-2.jsonl": '{"prediction": {}}\n',
        ".perpetune/spool/group.key": "secret",
        ".perpetune/logs/gateway.log": "made again",
        ".perpetune/mlflow/artifacts/model": "weights",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / ".perpetune/spool/group.key").chmod(0o600)
    (root / ".dvc/cache/files/md5/ab/cd").chmod(0o444)
    found = Workspace(root, open_workspace(root).params, Settings(database_url=url(root)))
    log = open_log(found.settings.prediction_log)
    record_rows(log, [prediction(number) for number in range(3)])
    log.dispose()
    return found


def url(root: Path) -> str:
    return f"sqlite:///{root / '.perpetune' / 'predictions.db'}"


def test_what_comes_back_is_what_was_there(workspace: Workspace, tmp_path: Path) -> None:
    made = create_backup(workspace, str(tmp_path / "backup"), quiet)
    assert read_manifest(Place(str(tmp_path / "backup"))) == made
    restored = tmp_path / "restored"
    restore_backup(str(tmp_path / "backup"), restored, quiet)
    assert not (restored / ".env").exists()
    for name in (
        "params.yaml",
        "rules.py",
        "data/inbox/rows.jsonl",
        ".dvc/cache/files/md5/ab/cd",
        ".perpetune/spool/1-2.jsonl",
    ):
        assert (restored / name).read_bytes() == (workspace.root / name).read_bytes()
    assert (restored / ".perpetune/spool/group.key").stat().st_mode & 0o777 == 0o600
    assert (restored / ".dvc/cache/files/md5/ab/cd").stat().st_mode & 0o777 == 0o444
    assert not (restored / ".perpetune/logs").exists()
    assert not list(restored.glob(".perpetune-restore"))
    log = open_log(url(restored))
    assert counts(log, "reviews").predictions == 3
    log.dispose()


def test_to_an_object_store(workspace: Workspace, tmp_path: Path) -> None:
    """fsspec's store in memory has no folders, as S3 has none."""
    create_backup(workspace, "memory://backups/one", quiet)
    restore_backup("memory://backups/one", tmp_path / "restored", quiet)
    assert (tmp_path / "restored" / "params.yaml").read_text() == PARAMS
    with pytest.raises(PerpetuneError, match="files already"):
        create_backup(workspace, "memory://backups/one", quiet)


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_backup_is_refused_with_the_name_of_the_file(
    workspace: Workspace, tmp_path: Path, damage: str
) -> None:
    backup = tmp_path / "backup"
    create_backup(workspace, str(backup), quiet)
    file = backup / "files/data/inbox/rows.jsonl"
    file.write_text('{"input": "b"}\n') if damage == "changed" else file.unlink()
    with pytest.raises(PerpetuneError, match=f"{'damaged' if damage == 'changed' else 'missing'}.*") as caught:
        restore_backup(str(backup), tmp_path / "restored", quiet)
    assert str(caught.value.where).endswith("files/data/inbox/rows.jsonl")
    assert not list((tmp_path / "restored").iterdir())


def test_what_is_not_finished_is_no_backup(workspace: Workspace, tmp_path: Path) -> None:
    def stop(line: str) -> None:
        if line.startswith("settings"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create_backup(workspace, str(tmp_path / "backup"), stop)
    assert list((tmp_path / "backup").iterdir())
    with pytest.raises(PerpetuneError, match="no backup, or one that was interrupted"):
        restore_backup(str(tmp_path / "backup"), tmp_path / "restored", quiet)


def test_a_folder_with_files_is_not_restored_into(workspace: Workspace, tmp_path: Path) -> None:
    create_backup(workspace, str(tmp_path / "backup"), quiet)
    with pytest.raises(PerpetuneError, match=r"not empty: \.dvc, \.env, \.perpetune, data, params\.yaml"):
        restore_backup(str(tmp_path / "backup"), workspace.root, quiet)


def test_a_manifest_that_names_files_elsewhere_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    create_backup(workspace, str(backup), quiet)
    manifest = json.loads((backup / NAME).read_text())
    manifest["files"][0]["name"] = "../../../outside"
    (backup / NAME).write_text(json.dumps(manifest))
    with pytest.raises(PerpetuneError, match="outside the workspace"):
        restore_backup(str(backup), tmp_path / "restored", quiet)


def test_rows_that_come_meanwhile_break_nothing(
    workspace: Workspace, tmp_path: Path, prediction: Callable[..., Prediction]
) -> None:
    """A log is written all the time while backups are made: each is whole, and has what was there when it began."""
    log, stop, written = open_log(workspace.settings.prediction_log), threading.Event(), [3]

    def write() -> None:
        while not stop.is_set():
            record_rows(log, [prediction(written[0])])
            written[0] += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(5):
            before = written[0]
            create_backup(workspace, str(tmp_path / f"backup{number}"), quiet)
            copy = tmp_path / f"backup{number}/files/.perpetune/predictions.db"
            with closing(sqlite3.connect(copy)) as database:
                assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                assert database.execute("SELECT count(*) FROM predictions").fetchone()[0] >= before
    finally:
        stop.set()
        thread.join()
        log.dispose()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as postgres:
        yield postgres


@pytest.mark.slow
def test_a_log_on_postgresql(
    workspace: Workspace, tmp_path: Path, prediction: Callable[..., Prediction], postgres: Postgres
) -> None:
    log = open_log(postgres.url)
    record_rows(log, [prediction(number) for number in range(4)])
    before = recent_predictions(log, "reviews", limit=None)
    there = Workspace(workspace.root, workspace.params, Settings(database_url=postgres.url))
    create_backup(there, str(tmp_path / "backup"), quiet)
    with pytest.raises(PerpetuneError, match="PERPETUNE_DATABASE_URL"):
        restore_backup(str(tmp_path / "backup"), tmp_path / "restored", quiet)
    with pytest.raises(PerpetuneError, match="tables already"):
        restore_backup(str(tmp_path / "backup"), tmp_path / "restored", quiet, log=postgres.url)
    with log.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("CREATE DATABASE empty")
    log.dispose()
    empty = postgres.url.replace("/postgres?", "/empty?")
    restore_backup(str(tmp_path / "backup"), tmp_path / "restored", quiet, log=empty)
    log = open_log(empty)
    assert recent_predictions(log, "reviews", limit=None) == before
    record_rows(log, [prediction(9)])
    assert counts(log, "reviews").predictions == 5, "triggers are restored too"
    log.dispose()


@pytest.mark.slow
def test_a_champion_is_reproduced_from_a_backup(tmp_path: Path, twice_again: Workspace) -> None:
    workspace, root, version = twice_again, twice_again.root, "1"
    digest = registry.get("colours", version).tags["adapter.digest"]
    create_backup(workspace, str(tmp_path / "backup"), quiet)

    shutil.rmtree(root)  # the machine is lost
    restore_backup(str(tmp_path / "backup"), root, quiet)
    connect(str(workspace.settings.mlflow_tracking_uri))
    champion = registry.find("colours", "champion")
    assert champion is not None and champion.version == version
    assert champion.tags["adapter.digest"] == digest
    found = reproduce(Workspace(root, open_workspace(root).params, workspace.settings), version, quiet, lambda _: None)
    assert found.comparison.verdict == "identical"


def test_the_digest_is_that_of_the_content(workspace: Workspace, tmp_path: Path) -> None:
    made = create_backup(workspace, str(tmp_path / "backup"), quiet)
    for each in made.files:
        assert hashlib.sha256((tmp_path / "backup/files" / each.name).read_bytes()).hexdigest() == each.sha256
