"""A worker's place among the workers of a gateway: it follows, or is followed, while its server runs."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI

from perpetune.errors import PerpetuneError
from perpetune.gateway.releases.follower import Follower, ReleaseSource
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.gateway.workers.board import Board
from perpetune.gateway.workers.following_source import FollowingSource
from perpetune.gateway.workers.summed_metrics import summed
from perpetune.model.release import DesiredReleases

logger = logging.getLogger(__name__)

FOLLOW_SECONDS = 0.2  # between a worker's looks at what the first one serves
SETTLE_SECONDS = 5.0  # in which all workers serve a new champion
_POST_SECONDS = 2.0  # between posts if nothing changes
_COUNT_SECONDS = 1.0  # between a worker's metrics


class Seat:
    """The place of worker `number`; the first, 0, leads. `tick` must be called every tenth of a second or so."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number = number
        self.leads = number == 0
        self._board = Board(folder)
        self._parent = os.getppid()
        self._following: FollowingSource | None = None
        self._leading: asyncio.Task[None] | None = None
        self._posted: DesiredReleases | None = None
        self._answered = 0
        self._reported: str | None = None
        self._fault: str | None = None  # that was logged
        self._post_at = self._count_at = 0.0
        self._counter = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._counting: Future[None] | None = None
        self._count_fault: str | None = None

    def source(self, source: ReleaseSource) -> ReleaseSource:
        """The registry for the leader, and the leader for the others."""
        if self.leads:
            return source
        self._following = FollowingSource(source, self._board, self.number)
        return self._following

    def take(self, app: FastAPI) -> Callable[[], bool]:
        """Connect the app with the other workers. The result is called at each tick; False if the parent has ended."""
        follower: Follower = app.state.follower
        follower.peers = self
        metrics: Metrics = app.state.metrics
        before = self._board.counted_before(self.number)

        def join(own: bytes) -> bytes:
            alive, ended = self._board.counted(self.number)
            return summed(own, alive, [*before, *ended])

        metrics.join = join

        def tick() -> bool:
            try:
                self._exchange(follower, lambda: summed(metrics.own_text(), ended=before))
            except PerpetuneError as fault:  # a full disk is no reason to answer no more requests
                self._log(str(fault))
            else:
                self._log(self._count_fault)
            return os.getppid() == self._parent

        return tick

    @property
    def release_error(self) -> str | None:
        """The leader's, which the others get from no registry."""
        return self._following.release_error if self._following else None

    async def before_check(self) -> None:
        """Let the leader read the registry, unless this is the leader, which is about to."""
        if self._following:
            await asyncio.to_thread(self._following.wait_for_leader)

    async def settle(self, serving: str | None) -> None:
        """Wait until all workers serve this version; not longer than `SETTLE_SECONDS`, in case one hangs."""
        with suppress(PerpetuneError):  # logged at the next tick
            self._report(serving)
        until = time.monotonic() + SETTLE_SECONDS
        while set(self._board.reports().values()) - {serving} and time.monotonic() < until:
            await asyncio.sleep(0.02)

    def _exchange(self, follower: Follower, counts: Callable[[], bytes]) -> None:
        self._report(follower.state.serving)
        if self.leads:
            self._lead(follower)
        if time.monotonic() >= self._count_at and (self._counting is None or self._counting.done()):
            self._count_at = time.monotonic() + _COUNT_SECONDS
            self._counting = self._counter.submit(self._count, counts)

    def _count(self, counts: Callable[[], bytes]) -> None:
        """In a thread of its own: it takes milliseconds, in which no request would be answered."""
        try:
            self._board.count(self.number, counts())
        except PerpetuneError as fault:
            self._count_fault = str(fault)
        else:
            self._count_fault = None

    def _log(self, fault: str | None) -> None:
        if fault is not None and fault != self._fault:
            logger.error("%s", fault)
        self._fault = fault

    def _report(self, serving: str | None) -> None:
        if serving != self._reported:
            self._board.report(self.number, serving)
            self._reported = serving

    def _lead(self, follower: Follower) -> None:
        asked = self._board.asked()
        if asked > self._answered and self._leading is None:
            self._leading = asyncio.create_task(self._answer(follower, asked))
        self._post(follower)

    async def _answer(self, follower: Follower, asked: int) -> None:
        try:
            await follower.check_now()
        finally:
            self._answered, self._leading = asked, None
            self._post_at = 0.0

    def _post(self, follower: Follower) -> None:
        served = follower.served
        if served.champion is None and self._posted is None:
            return  # not yet started: what a worker before it has posted stands
        if served != self._posted or time.monotonic() >= self._post_at:
            state = follower.state
            self._board.post(served, self._answered, state.registry_error, state.release_error)
            self._posted, self._post_at = served, time.monotonic() + _POST_SECONDS
