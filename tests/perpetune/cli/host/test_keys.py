"""`perpetune keys add --key-file`: a key that was made elsewhere, as Compose and Kubernetes bring it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import perpetune
from workspaces import write_params


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERPETUNE_DATABASE_URL", f"sqlite:///{tmp_path / 'log.db'}")
    write_params(tmp_path)
    return tmp_path


def test_a_key_of_a_file_is_stored_and_not_shown(workspace: Path) -> None:
    file = workspace / "key"
    file.write_text("ppt_" + 48 * "b" + "\n")
    add = ("keys", "add", "compose", "--role", "admin", "--key-file", str(file))
    first, second = perpetune(workspace, *add), perpetune(workspace, *add)
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "was stored" in first.output and "is there already" in second.output
    assert "bbbb" not in first.output + second.output
    file.write_text("ppt_" + 48 * "c")
    assert perpetune(workspace, *add).exit_code == 1


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"short"])
def test_a_file_without_a_usable_key_is_refused(workspace: Path, content: bytes | None) -> None:
    file = workspace / "key"
    if content is not None:
        file.write_bytes(content)
    done = perpetune(workspace, "keys", "add", "compose", "--role", "admin", "--key-file", str(file))
    assert done.exit_code == 1
    assert "key" in done.output


def test_a_key_of_tasks_is_listed_with_them(workspace: Path) -> None:
    for more in (["shop"], ["desk", "--task", "intents", "--task", "reviews"]):
        done = perpetune(workspace, "keys", "add", *more, "--role", "ask")
        assert done.exit_code == 0, done.output
    listed = json.loads(perpetune(workspace, "keys", "list", "--json").stdout)
    assert [(key["name"], key["tasks"]) for key in listed] == [("shop", []), ("desk", ["intents", "reviews"])]
    rows = perpetune(workspace, "keys", "list").output.splitlines()
    assert any("shop" in row and "all" in row for row in rows)
    assert any("desk" in row and "intents, reviews" in row for row in rows)
    wrong = perpetune(workspace, "keys", "add", "wrong", "--role", "ask", "--task", "No Task")
    assert wrong.exit_code == 1 and "'No Task' is no name of a task" in wrong.output
