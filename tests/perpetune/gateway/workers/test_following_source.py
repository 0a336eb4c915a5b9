from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from perpetune.errors import PerpetuneError
from perpetune.gateway.workers.board import Board
from perpetune.gateway.workers.following_source import FollowingSource
from perpetune.model.release import DesiredReleases, GoldenPrompt, Release, ServingFacts, Trial
from perpetune.params import BaseParams
from perpetune.records import Message
from perpetune.testing.fake_registry import FakeSource

SERVED = DesiredReleases("2", "1", Trial("3", "canary", 0.1), registered=7)


def release(version: str, folder: Path) -> Release:
    golden = GoldenPrompt(messages=(Message(role="user", content="a"),), output="b", confidence=None)
    base = BaseParams(model="path:tiny", revision=None)
    return Release("reviews", version, folder, "", None, base, ServingFacts(temperature=2.0, golden=(golden,)))


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def test_what_the_first_worker_serves_is_wanted(board: Board) -> None:
    board.post(SERVED, answered=0, error=None)
    found = FollowingSource(FakeSource(), board, 1).wanted()
    assert (found, found.registered) == (SERVED, 7)


def test_a_first_worker_that_is_silent_or_has_no_registry_says_nothing_new(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FollowingSource(FakeSource(), board, 1)
    with pytest.raises(PerpetuneError, match="serves no release yet"):
        source.wanted()
    board.post(SERVED, answered=0, error="the registry cannot be read: down")
    with pytest.raises(PerpetuneError, match="cannot be read: down"):
        source.wanted()
    board.post(SERVED, answered=0, error=None)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 11)
    with pytest.raises(PerpetuneError, match="has said nothing for 11 s"):
        source.wanted()


def test_golden_prompts_are_compared_by_the_first_worker_only(board: Board, tmp_path: Path) -> None:
    fetched = FollowingSource(FakeSource([release("2", tmp_path)]), board, 1).fetch("2")
    assert fetched.evaluated == ServingFacts(temperature=2.0)


def test_a_rollback_ends_when_the_first_worker_serves_the_version(board: Board) -> None:
    board.post(SERVED, answered=0, error=None)
    source = FakeSource(champion="2", previous="1")
    done: list[tuple[str, str]] = []
    rolling = threading.Thread(target=lambda: done.append(FollowingSource(source, board, 1).roll_back()))
    rolling.start()
    while not (asked := board.asked()):
        time.sleep(0.01)
    board.post(SERVED, answered=asked, error=None)
    rolling.join(0.3)
    assert rolling.is_alive(), "it has read the registry, and still serves the version that was rolled back"
    board.post(DesiredReleases("1"), answered=asked, error=None)
    rolling.join(10)
    assert done == [("2", "1")]
