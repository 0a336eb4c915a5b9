"""Follows the champion: what the registry's alias names is what answers, without a restart.

When the alias moves, the new release is loaded beside the old one and warmed with one answer; new requests then go
to it, those under way end with the old one, and the old one is unloaded. A registry that is down, or a release that
does not load, leaves what serves as it is.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from perpetune.generation import Generation
from perpetune.records import Message, with_instruction
from perpetune.release import Release, Routed
from perpetune.serving.engine import Engine
from perpetune.serving.metrics import Metrics

logger = logging.getLogger(__name__)

_LONGEST_WAIT = 60.0  # seconds between two tries of a release that does not load

_LONGEST_REPORT = 500  # characters


class ReleaseSource(Protocol):
    """Where releases come from. Its calls may take seconds; they are made off the event loop."""

    def champion(self) -> str | None:
        """The version that should answer; None where there is none yet."""

    def fetch(self, version: str) -> Release:
        """That version with its adapter on local disk."""


class NothingServed(Exception):
    """No release has been loaded yet."""


class UnknownVersion(Exception):
    """A request pins a version that is not loaded."""


@dataclass(frozen=True)
class FollowState:
    """What serves and what should, and what is wrong (None: nothing) with the registry and with the release."""

    serving: str | None
    champion: str | None
    registry_trouble: str | None
    release_trouble: str | None


class _Loaded:
    """A release in the engine, with the number of requests that use it."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.idle = asyncio.Event()
        self.idle.set()
        self._users = 0

    @contextmanager
    def used(self) -> Iterator[Release]:
        self._users += 1
        self.idle.clear()
        try:
            yield self.release
        finally:
            self._users -= 1
            if not self._users:
                self.idle.set()


class Follower:
    def __init__(self, source: ReleaseSource, engine: Engine, metrics: Metrics, poll_seconds: float) -> None:
        self._source = source
        self._engine = engine
        self._metrics = metrics
        self._poll_seconds = poll_seconds
        self._loaded: dict[str, _Loaded] = {}
        self._current: _Loaded | None = None
        self._champion: str | None = None
        self._registry_trouble: str | None = None
        self._release_trouble: str | None = None
        self._failures = 0
        self._try_again_at = 0.0
        self._one_at_a_time = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> FollowState:
        serving = self._current.release.version if self._current else None
        return FollowState(serving, self._champion, self._registry_trouble, self._release_trouble)

    @property
    def versions(self) -> tuple[str, ...]:
        """Every version that can be asked for: what serves, and what is ending."""
        return tuple(self._loaded)

    @contextmanager
    def using(self, version: str | None = None, key: str = "") -> Iterator[Routed]:
        """The champion, or the version given, kept loaded for as long as this is open.

        `key` stands for the user or the session. Raises NothingServed or UnknownVersion.
        """
        if version is not None and version not in self._loaded:
            raise UnknownVersion(version)
        chosen = self._loaded[version] if version is not None else self._current
        if chosen is None:
            raise NothingServed
        with chosen.used() as release:
            yield Routed(release, "champion" if version is None else "pinned")

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await self._check(even_if_it_failed=False)
            await asyncio.sleep(self._poll_seconds)

    async def refresh_now(self) -> FollowState:
        """Look at the alias at once and go where it points; returns when new requests go there."""
        await self._check(even_if_it_failed=True)
        return self.state

    async def _check(self, *, even_if_it_failed: bool) -> None:
        async with self._one_at_a_time:
            if not await self._look():
                return
            wanted, now = self._champion, asyncio.get_running_loop().time()
            if wanted is None or wanted == self.state.serving:
                self._release_trouble, self._failures = None, 0
            elif even_if_it_failed or now >= self._try_again_at:
                await self._go_to(wanted)

    async def _look(self) -> bool:
        """Ask the registry who the champion is; False where it does not say."""
        try:
            champion = await asyncio.to_thread(self._source.champion)
        except Exception as fault:  # whatever a registry's client raises, serving goes on
            self._registry_trouble = _noted(self._registry_trouble, fault, "the registry cannot be asked")
            return False
        if self._registry_trouble:
            logger.warning("the registry answers again")
        self._registry_trouble = None
        if champion != self._champion:
            self._champion, self._failures, self._try_again_at = champion, 0, 0.0
        return True

    async def _go_to(self, version: str) -> None:
        try:
            chosen = self._loaded.get(version) or await self._bring(version)
        except Exception as fault:  # whatever is wrong with a release, the one that serves goes on
            self._release_trouble = _noted(self._release_trouble, fault, f"version {version} cannot be served")
            self._metrics.release_failures.inc()
            wait = min(self._poll_seconds * 2**self._failures, _LONGEST_WAIT)
            self._failures += 1
            self._try_again_at = asyncio.get_running_loop().time() + wait
            return
        self._switch(chosen)

    async def _bring(self, version: str) -> _Loaded:
        release = await asyncio.to_thread(self._source.fetch, version)
        await self._engine.load(release)
        try:
            warm_up = with_instruction(release.instruction, (Message(role="user", content="Hello"),))
            await self._engine.answer(version, warm_up, Generation(max_tokens=1))
        except BaseException:
            await self._engine.unload(version)
            raise
        loaded = self._loaded[version] = _Loaded(release)
        return loaded

    def _switch(self, chosen: _Loaded) -> None:
        """No await in here: a request sees the old release or the new one."""
        old, self._current = self._current, chosen
        self._release_trouble, self._failures = None, 0
        self._metrics.serving.clear()
        self._metrics.serving.labels(chosen.release.version).set(1)
        logger.info("version %s serves", chosen.release.version)
        if old:
            self._metrics.swaps.inc()
            task = asyncio.create_task(self._retire(old))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _retire(self, old: _Loaded) -> None:
        """Unload a release once nobody uses it, unless it serves again by then."""
        version = old.release.version
        while True:
            await old.idle.wait()
            async with self._one_at_a_time:
                if old is self._current or self._loaded.get(version) is not old:
                    return
                if old.idle.is_set():
                    del self._loaded[version]
                    await self._engine.unload(version)
                    return


def _noted(before: str | None, fault: Exception, what: str) -> str:
    """The trouble in words, logged where it is news."""
    # Read by anyone in /readyz: credentials that an address in it may carry stay out.
    trouble = re.sub(r"//[^/\s@]*@", "//", f"{what}: {fault}")[:_LONGEST_REPORT]
    if trouble != before:
        logger.warning("%s", trouble)
    return trouble
