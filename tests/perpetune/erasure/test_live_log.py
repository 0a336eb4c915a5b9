"""Erasing from a prediction log that a gateway is writing to: on SQLite, and on PostgreSQL if this machine has it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from gateways import PARAMS
from postgres_server import Postgres, gateway, postgres_server
from sqlalchemy import text
from workspaces import write_params

from perpetune.erasure.erase import Erasure, erase
from perpetune.erasure.selection import Selector
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import recent_predictions
from perpetune.settings import Settings
from perpetune.tracking.runs import connect
from perpetune.workspace import Workspace, open_workspace

pytestmark = [pytest.mark.slow, pytest.mark.integration]

MARKER = 'Quincy "Ö\'Zé" Zanzibarson'
WORD = b"zanzibarson"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'predictions.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.url


def test_a_gateway_goes_on_answering_and_brings_nothing_back(
    tmp_path: Path, url: str, new_mlflow_store: object, request: pytest.FixtureRequest
) -> None:
    assert callable(new_mlflow_store)
    write_params(tmp_path, task={"name": "killed"})
    store = new_mlflow_store(tmp_path)
    connect(store)
    workspace = Workspace(
        tmp_path, open_workspace(tmp_path).params, Settings(mlflow_tracking_uri=store, database_url=url)
    )
    with gateway(workspace.home, url, PARAMS) as (process, client), asking(client) as replies:
        eventually_logged(url)
        done = erase(workspace, Selector(match=MARKER), "", lambda _: None)
        answered = len(replies)
        time.sleep(1)
        assert process.poll() is None and len(replies) > answered
        assert set(replies) == {200}
    assert done.rows and done.removed
    log = open_log(url)
    left = recent_predictions(log, "killed", limit=None)
    log.dispose()
    assert len(left) > 3 and not any(MARKER in row.input for row in left)
    assert said_of_postgresql(done) == url.startswith("postgresql")
    for folder in (tmp_path, *([request.getfixturevalue("postgres").data] if said_of_postgresql(done) else [])):
        assert holders(folder) == []


def said_of_postgresql(done: Erasure) -> bool:
    return any("write-ahead log" in note for note in done.notes)


@contextmanager
def asking(client: httpx.Client) -> Iterator[list[int]]:
    """Requests without end in a thread; the first ones name the marker. Gives the status codes."""
    replies: list[int] = []
    ended = threading.Event()

    def ask() -> None:
        for number in range(10_000):
            if ended.is_set():
                return
            said = f"request {number} of {MARKER if number < 20 else 'somebody'}"
            body = {"model": "killed", "messages": [{"role": "user", "content": said}]}
            replies.append(client.post("/v1/chat/completions", json=body).status_code)

    with ExitStack() as stack:
        thread = threading.Thread(target=ask)
        stack.callback(thread.join)
        stack.callback(ended.set)
        thread.start()
        yield replies


def eventually_logged(url: str) -> None:
    log = open_log(url)
    deadline = time.monotonic() + 20
    while len(recent_predictions(log, "killed", limit=None)) < 30:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with log.connect() as connection:
        connection.execute(text("ANALYZE predictions"))  # so that the statistics hold texts too
        connection.commit()
    log.dispose()


def holders(folder: Path) -> list[str]:
    """Files with the marker; not PostgreSQL's write-ahead log, of which the command says that it cannot be changed."""
    files = [path for path in folder.rglob("*") if path.is_file() and "pg_wal" not in path.parts]
    return sorted(path.name for path in files if WORD in path.read_bytes().lower())
