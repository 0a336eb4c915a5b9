from __future__ import annotations

import asyncio
import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from waiting import eventually, eventually_async

from perpetune.gateway.releases.follower import Follower
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.gateway.workers.seat import Seat
from perpetune.model.release import Release
from perpetune.params import BaseParams
from perpetune.testing.fake_engine import FakeEngine
from perpetune.testing.fake_registry import FakeSource


def seated(
    number: int, board: Path, source: FakeSource, metrics: Metrics | None = None
) -> tuple[Follower, Callable[[], bool]]:
    """The follower of a worker, and its tick."""
    seat, metrics = Seat(number, board), metrics or Metrics()
    follower = Follower(seat.source(source), FakeEngine(), metrics, poll_seconds=3600)
    return follower, seat.take(cast(Any, SimpleNamespace(state=SimpleNamespace(follower=follower, metrics=metrics))))


def counted(tick: Callable[[], bool], file: Path) -> None:
    """Tick, and wait until the worker has written what it has counted."""
    before = file.stat().st_mtime_ns if file.is_file() else None
    tick()
    eventually(lambda: file.is_file() and file.stat().st_mtime_ns != before)


def release(version: str, folder: Path) -> Release:
    return Release("reviews", version, folder, "", None, BaseParams(model="path:tiny", revision=None))


def test_any_worker_says_why_the_champion_is_not_served(tmp_path: Path) -> None:
    """The check after a promotion may reach any, and names what it says as the reason of the refusal."""

    async def run() -> None:
        source = FakeSource([release("1", tmp_path)], champion="1")
        leading, lead = seated(0, tmp_path / "board", source)
        following, follow = seated(1, tmp_path / "board", source)

        async def tick_on() -> None:
            while True:
                assert lead() and follow()
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick_on())
        await leading.check_now()
        assert (await following.refresh_now()).serving == "1"
        source.champion_version = "2"
        source.releases["2"] = cast(Release, None)
        state = await following.refresh_now()
        assert state.serving == "1"
        assert state.release_error is not None and "version 2 cannot be served" in state.release_error
        source.releases["2"] = release("2", tmp_path)
        state = await following.refresh_now()
        assert (state.serving, state.release_error) == ("2", None)
        ticking.cancel()

    asyncio.run(run())


def test_a_swap_is_counted_once_for_all_workers(tmp_path: Path) -> None:
    async def run() -> None:
        source = FakeSource([release(version, tmp_path) for version in "12"], champion="1")
        metrics = [Metrics(), Metrics()]
        (leading, lead), (following, follow) = (seated(n, tmp_path / "board", source, metrics[n]) for n in (0, 1))
        await leading.check_now()
        for champion in ("1", "2", "1"):
            source.champion_version = champion
            await leading.check_now()
            assert lead() and follow()
            await following.check_now()
            assert following.state.serving == champion
        swaps = [each.registry.get_sample_value("perpetune_release_swaps_total") for each in metrics]
        assert swaps == [2, 0]

    asyncio.run(run())


def test_a_worker_goes_on_while_the_disk_is_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        board = tmp_path / "board"
        follower, tick = seated(0, board, FakeSource([release("1", tmp_path)], champion="1"))
        board.write_text("nothing can be written below a file")
        await follower.check_now()
        with caplog.at_level(logging.ERROR):
            assert tick() and tick()
        assert len([row for row in caplog.messages if "cannot tell each other" in row]) == 1
        board.unlink()
        assert tick()
        await eventually_async(lambda: (board / "post.json").is_file())

    asyncio.run(run())


def test_what_ended_processes_have_counted_does_not_grow_with_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is killed every few minutes would make each scrape slower than the one before."""
    board = tmp_path / "board"
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    for _ in range(3):
        metrics = Metrics()
        metrics.answers.labels("1", "champion").inc(2)
        metrics.log_waiting.set(7)
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: dead.pid)
            _, tick = seated(1, board, FakeSource(), metrics)
            counted(tick, board / "metrics-1")
            assert "perpetune_log_rows_waiting 7.0" in metrics.text().decode()
    metrics = Metrics()
    metrics.answers.labels("1", "champion").inc()
    _, tick = seated(0, board, FakeSource(), metrics)
    counted(tick, board / "metrics-0")
    assert 'perpetune_answers_total{route="champion",version="1"} 7.0' in metrics.text().decode()
    assert "perpetune_log_rows_waiting 0.0" in metrics.text().decode(), "an ended process has none"
    assert len(list(board.glob("metrics-*"))) == 2
