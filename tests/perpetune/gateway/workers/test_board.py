from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from perpetune.files import write_atomic
from perpetune.gateway.workers.board import Board


def test_what_a_worker_was_writing_when_it_was_killed_is_not_read(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.report(1, "2")
    board.count(1, b"mine")
    asked = board.ask(1)
    (tmp_path / "serving-2.unfinished").write_text('{"pid"')
    (tmp_path / "metrics-2.unfinished").write_text(f"{os.getpid()}\n# HELP")
    (tmp_path / "asked-2.unfinished").write_text("9" * 30)
    assert board.reports() == {1: "2"}
    assert board.counted(0) == (["mine"], [])
    assert board.asked() == asked


def test_of_two_requests_at_once_the_later_number_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the earlier one in its place, the later request would wait for an answer that never comes."""
    board = Board(tmp_path)
    first_writes, go_on = threading.Event(), threading.Event()

    def slow_first(path: Path, text: str) -> Path:
        if not first_writes.is_set():
            first_writes.set()
            go_on.wait(0.2)
        return write_atomic(path, text)

    monkeypatch.setattr("perpetune.gateway.workers.board.write_atomic", slow_first)
    first = threading.Thread(target=board.ask, args=(1,))
    first.start()
    assert first_writes.wait(5)
    later = board.ask(1)
    go_on.set()
    first.join(5)
    assert board.asked() == later
