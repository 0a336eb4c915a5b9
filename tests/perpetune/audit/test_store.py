"""Entries in the database: one after the other from any number of threads, once each, and never changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner
from workspaces import write_params

from perpetune.audit.entry import Event, verify
from perpetune.audit.store import append, entries, head_of
from perpetune.cli import app
from perpetune.prediction_log.database import open_log

EVENT = Event("ana@host", "promoted", "colours version 3", {"reason": "5 points better"})


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Engine]:
    found = open_log(f"sqlite:///{tmp_path / 'log.db'}")
    yield found
    found.dispose()


def test_what_is_appended_is_read_back_and_verified(log: Engine) -> None:
    first, second = append(log, EVENT), append(log, Event("a\0b", "c\ud800", "d", {"e\0": "f\0"}))
    assert [*entries(log)] == [first, second]
    assert second is not None and [*entries(log, 1)] == [second]
    assert verify(entries(log)) == head_of(log)
    assert head_of(log).number == 2


def test_an_event_with_the_same_key_is_recorded_once(log: Engine) -> None:
    assert append(log, EVENT, once="decision of run 1") is not None
    assert append(log, EVENT, once="decision of run 1") is None
    assert append(log, EVENT) is not None and append(log, EVENT) is not None
    assert len([*entries(log)]) == 3


def test_appends_at_the_same_time_make_one_chain(log: Engine) -> None:
    with ThreadPoolExecutor(8) as pool:
        [*pool.map(lambda number: append(log, Event("a", "b", str(number))), range(40))]
    assert verify(entries(log)).number == 40
    assert {each.event.subject for each in entries(log)} == {str(number) for number in range(40)}


@pytest.mark.parametrize(
    "change", ["UPDATE audit SET actor = 'bob'", "DELETE FROM audit", "DELETE FROM audit WHERE number = 1"]
)
def test_the_database_refuses_to_change_entries(log: Engine, change: str) -> None:
    append(log, EVENT)
    with pytest.raises(DBAPIError, match="append-only"), log.begin() as connection:
        connection.execute(text(change))
    assert verify(entries(log)).number == 1


def perpetune(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*arguments])
    assert done.exit_code == code, done.output
    return done.output if code else done.stdout


def test_keys_are_recorded_and_a_log_without_its_triggers_shows_what_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERPETUNE_DATABASE_URL", f"sqlite:///{tmp_path / 'log.db'}")
    assert perpetune("audit", "show").strip() == "there are no entries"
    perpetune("keys", "add", "shop", "--role", "ask", "--role", "feedback")
    perpetune("keys", "revoke", "shop")
    found = json.loads(perpetune("audit", "show", "--json"))
    assert [(each["event"]["action"], each["event"]["subject"]) for each in found] == [
        ("added the key", "shop"),
        ("revoked the key", "shop"),
    ]
    assert found[0]["event"]["details"] == {"roles": "ask, feedback"}
    assert "revoked the key shop" in perpetune("audit", "show", "--after", "1")
    head = json.loads(perpetune("audit", "verify", "--json"))["head"]
    assert "is intact: 2 entries" in perpetune("audit", "verify", "--head", head)

    log = open_log(f"sqlite:///{tmp_path / 'log.db'}")
    with log.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_is_kept_delete"))
        connection.execute(text("DELETE FROM audit WHERE number = 2"))
    log.dispose()
    assert "is intact: 1 entries" in perpetune("audit", "verify")
    assert "missing at the end" in perpetune("audit", "verify", "--head", head, code=1)
