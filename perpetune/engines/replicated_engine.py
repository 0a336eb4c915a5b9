"""An engine over replicas of one server: every one gets every release, and each request goes to the least busy."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from perpetune.engines.engine import Engine, EngineDown, NotLoaded, Overloaded
from perpetune.generation.answer import Answer
from perpetune.generation.parameters import Delta, GenerationConfig, OnDelta
from perpetune.model.release import Release
from perpetune.records import Message

logger = logging.getLogger(__name__)

_REST_SECONDS = 5.0  # after a failure, in which the other replicas come first


@dataclass(eq=False)
class _Replica:
    engine: Engine
    versions: set[str] = field(default_factory=set)
    in_flight: int = 0
    rests_until: float = 0.0
    fault: str = ""  # why it could not load a release that others have

    @property
    def load(self) -> tuple[bool, int]:
        """What the least busy replica has least of."""
        return time.monotonic() < self.rests_until, self.in_flight


class ReplicatedEngine:
    """An `Engine` that balances over replicas.

    A replica that is down when a release is loaded gets it as soon as it answers, and no request of that version until
    then. A request that fails because its replica is down is answered by the next one, unless a part was sent already.
    """

    def __init__(self, engines: Sequence[Engine], retry_seconds: float = _REST_SECONDS) -> None:
        self._replicas = [_Replica(engine) for engine in engines]
        self._retry_seconds = retry_seconds
        self._releases: dict[str, Release] = {}
        self._catching_up: asyncio.Task[None] | None = None

    async def load(self, release: Release) -> None:
        """Load on every replica. Raises EngineDown if none answers, and PerpetuneError if one cannot serve it."""
        faults = await asyncio.gather(
            *(self._load(replica, release) for replica in self._replicas), return_exceptions=True
        )
        failed = [fault for fault in faults if isinstance(fault, BaseException)]
        refusals = [fault for fault in failed if not isinstance(fault, EngineDown)]
        if refusals or len(failed) == len(self._replicas):
            await self._unload(release.version)
            raise (refusals or failed)[0]
        self._releases[release.version] = release
        if failed:
            logger.warning("version %s is not on %d of the replicas yet: %s", release.version, len(failed), failed[0])
            self._catch_up_later()

    async def unload(self, version: str) -> None:
        self._releases.pop(version, None)
        await self._unload(version)

    async def answer(
        self, version: str, messages: Sequence[Message], generation: GenerationConfig, on_delta: OnDelta | None = None
    ) -> tuple[Answer, ...]:
        replicas = sorted((each for each in self._replicas if version in each.versions), key=lambda each: each.load)
        if not replicas:
            raise NotLoaded(version)
        sent = False

        def note(delta: Delta) -> None:
            nonlocal sent
            sent = True
            assert on_delta is not None
            on_delta(delta)

        for replica in replicas:
            replica.in_flight += 1
            try:
                return await replica.engine.answer(version, messages, generation, note if on_delta else None)
            except (EngineDown, Overloaded) as fault:
                if isinstance(fault, EngineDown):
                    replica.rests_until = time.monotonic() + _REST_SECONDS
                if sent or replica is replicas[-1]:
                    raise
            finally:
                replica.in_flight -= 1
        raise AssertionError("the last replica answers or raises")

    async def close(self) -> None:
        if self._catching_up:
            self._catching_up.cancel()
            await asyncio.wait([self._catching_up])
        await asyncio.gather(*(replica.engine.close() for replica in self._replicas))

    async def _load(self, replica: _Replica, release: Release) -> None:
        await replica.engine.load(release)
        replica.versions.add(release.version)

    async def _unload(self, version: str) -> None:
        holders = [replica for replica in self._replicas if version in replica.versions]
        for replica in holders:
            replica.versions.discard(version)
        await asyncio.gather(*(replica.engine.unload(version) for replica in holders))

    def _catch_up_later(self) -> None:
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.create_task(self._catch_up())

    async def _catch_up(self) -> None:
        """Load what replicas lack, until they lack nothing."""
        while missing := self._missing():
            await asyncio.sleep(self._retry_seconds)
            for replica, release in missing:
                await self._try_again(replica, release)

    async def _try_again(self, replica: _Replica, release: Release) -> None:
        try:
            await self._load(replica, release)
        except EngineDown:
            return
        except Exception as fault:  # the others serve it meanwhile
            if str(fault) != replica.fault:
                logger.error("a replica cannot load version %s: %s", release.version, fault)
            replica.fault = str(fault)
            return
        if self._releases.get(release.version) is not release:  # unloaded meanwhile
            replica.versions.discard(release.version)
            await replica.engine.unload(release.version)
            return
        logger.info("version %s is on one more replica", release.version)

    def _missing(self) -> list[tuple[_Replica, Release]]:
        return [
            (replica, release)
            for replica in self._replicas
            for version, release in self._releases.items()
            if version not in replica.versions
        ]
