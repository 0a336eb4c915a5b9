"""Follows the registry: what its aliases name is what answers, without a restart.

When `champion` moves, the new release is loaded beside the old one, warmed, and asked the golden prompts; new requests
then go to it, those under way end with the old one. The previous champion stays loaded, so that going back to it takes
no time; what no alias names is unloaded once nobody uses it. A release that does not answer as it did at evaluation is
refused, and its alias goes back. A registry that is down, or a release that does not load, leaves what serves as it is.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from perpetune.engines.engine import Engine
from perpetune.errors import PerpetuneError
from perpetune.gateway.api.output_constraint import constrained
from perpetune.gateway.releases.parity import ParityError, require_parity
from perpetune.gateway.releases.routing import is_routed_to_trial
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.generation.parameters import GenerationConfig
from perpetune.model.release import DesiredReleases, Release, RoutedRelease, Trial
from perpetune.params import ReleaseParams
from perpetune.records import Message

logger = logging.getLogger(__name__)

_LONGEST_WAIT = 60.0  # seconds between two tries of a release that does not load

_LONGEST_REPORT = 500  # characters


class ReleaseSource(Protocol):
    """Where releases come from. Its calls may take seconds; they are made off the event loop."""

    def wanted(self) -> DesiredReleases:
        """What should be loaded, and who of it answers."""

    def fetch(self, version: str) -> Release:
        """That version with its adapter on local disk."""

    def refuse(self, version: str, back_to: str | None, why: str) -> None:
        """Take the aliases away from a version that may not serve; `back_to` is champion again, if this one was."""

    def roll_back(self) -> tuple[str, str]:
        """Make the previous version champion; returns (from, to). Raises PerpetuneError where there is none."""


class NoReleaseLoaded(Exception):
    """No release has been loaded yet."""


class UnknownVersion(Exception):
    """A request pins a version that is not loaded."""


@dataclass(frozen=True)
class FollowerState:
    """What serves, what should, what is on trial, and what is wrong (None: nothing) with the registry and releases."""

    serving: str | None
    champion: str | None
    trial: str | None
    registry_trouble: str | None
    release_trouble: str | None


@dataclass(frozen=True)
class RollbackResult:
    """The version that no longer answers, the one that does again, and after how many seconds."""

    rolled_back: str
    restored: str
    seconds: float


@dataclass
class _Retry:
    """A release that did not load: how often it was tried, and when it will be again."""

    failures: int = 0
    at: float = 0.0


class _Loaded:
    """A release in the engine, with the number of requests that use it."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.idle = asyncio.Event()
        self.idle.set()
        self.retiring = False
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
    """`params` None leaves out the check of parity."""

    def __init__(
        self,
        source: ReleaseSource,
        engine: Engine,
        metrics: Metrics,
        poll_seconds: float,
        params: ReleaseParams | None = None,
        max_tokens: int = 1,
    ) -> None:
        self._source = source
        self._engine = engine
        self._metrics = metrics
        self._poll_seconds = poll_seconds
        self._params = params
        self._max_tokens = max_tokens
        self._loaded: dict[str, _Loaded] = {}
        self._current: _Loaded | None = None
        self._trial: Trial | None = None  # one that is loaded
        self._wanted = DesiredReleases(None)
        self._rollbacks = 0
        self._registry_trouble: str | None = None
        self._release_trouble: str | None = None
        self._refusal: str | None = None
        self._retries: dict[str, _Retry] = {}
        self._one_at_a_time = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> FollowerState:
        return FollowerState(
            self._current.release.version if self._current else None,
            self._wanted.champion,
            self._trial.version if self._trial else None,
            self._registry_trouble,
            self._release_trouble or self._refusal,
        )

    @property
    def versions(self) -> tuple[str, ...]:
        """Every version that can be asked for."""
        return tuple(self._loaded)

    @contextmanager
    def using(self, version: str | None = None, key: str = "") -> Iterator[RoutedRelease]:
        """The release for a request, kept loaded for as long as this is open.

        It is the version given, else that on trial for its share of the users or sessions `key`, else the champion.
        Raises NothingServed or UnknownVersion.
        """
        with ExitStack() as kept:
            yield self._route(kept, version, key)

    def _route(self, kept: ExitStack, version: str | None, key: str) -> RoutedRelease:
        if version is not None:
            if version not in self._loaded:
                raise UnknownVersion(version)
            return RoutedRelease(kept.enter_context(self._loaded[version].used()), "pinned")
        if self._current is None:
            raise NoReleaseLoaded
        if self._trial is None or not is_routed_to_trial(self._trial, key):
            return RoutedRelease(kept.enter_context(self._current.used()), "champion")
        challenger = kept.enter_context(self._loaded[self._trial.version].used())
        if self._trial.strategy == "canary":
            return RoutedRelease(challenger, "canary")
        return RoutedRelease(kept.enter_context(self._current.used()), "champion", shadow=challenger)

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await self._check(even_if_it_failed=False)
            await asyncio.sleep(self._poll_seconds)

    async def refresh_now(self) -> FollowerState:
        """Look at the aliases at once and go where they point; returns when new requests go there."""
        await self._check(even_if_it_failed=True)
        return self.state

    async def roll_back(self, reason: str) -> RollbackResult:
        """Make the previous champion champion again, here and in the registry.

        It does not wait for a swap under way. Raises PerpetuneError where there is nothing to go back to.
        """
        began = time.monotonic()
        old, restored = await asyncio.to_thread(self._source.roll_back)
        logger.warning("version %s is rolled back to %s: %s", old, restored, reason)
        self._wanted = DesiredReleases(restored, None, self._wanted.trial)
        self._rollbacks += 1
        loaded = self._loaded.get(restored)
        if loaded is not None:
            self._switch(loaded)
            self._retire_unwanted()
        else:
            await self._check(even_if_it_failed=True)
        if self.state.serving != restored:
            raise PerpetuneError(f"version {restored} is champion again and cannot be served: {self._release_trouble}")
        self._metrics.release_rollbacks.inc()
        return RollbackResult(old, restored, time.monotonic() - began)

    async def _check(self, *, even_if_it_failed: bool) -> None:
        async with self._one_at_a_time:
            if not await self._look():
                return
            champion = self._wanted.champion
            if champion is not None and champion != self.state.serving:
                await self._try(champion, even_if_it_failed)
            elif champion is not None:
                self._release_trouble = None
            await self._follow_trial(even_if_it_failed)
            await self._keep_previous_ready()
            self._retire_unwanted()

    async def _look(self) -> bool:
        """Ask the registry what it wants; False where it does not say."""
        rollbacks = self._rollbacks
        try:
            wanted = await asyncio.to_thread(self._source.wanted)
        except Exception as fault:  # whatever a registry's client raises, serving goes on
            self._registry_trouble = _noted(self._registry_trouble, fault, "the registry cannot be asked")
            return False
        if self._registry_trouble:
            logger.warning("the registry answers again")
        self._registry_trouble = None
        if rollbacks != self._rollbacks:  # it may have been read before the rollback, which is newer
            return True
        if wanted != self._wanted:
            self._retries.clear()
        self._wanted = wanted
        return True

    async def _follow_trial(self, even_if_it_failed: bool) -> None:
        trial = self._wanted.trial
        if trial is not None and trial.version not in self._loaded:
            self._trial = None
            await self._try(trial.version, even_if_it_failed)
        there = trial is not None and trial == self._wanted.trial and trial.version in self._loaded
        if there and trial != self._trial:
            logger.info("version %s is on trial: %s, share %g", trial.version, trial.strategy, trial.share)  # type: ignore[union-attr]
        self._trial = trial if there else None
        self._metrics.trial.clear()
        if self._trial is not None:
            self._metrics.trial.labels(self._trial.version, self._trial.strategy).set(1)

    async def _try(self, version: str, even_if_it_failed: bool) -> None:
        """Have a wanted version loaded, and answer if it is champion. One that fails waits longer each time."""
        retry = self._retries.setdefault(version, _Retry())
        if not even_if_it_failed and asyncio.get_running_loop().time() < retry.at:
            return
        try:
            loaded = self._loaded.get(version) or await self._bring(version)
        except Exception as fault:  # whatever is wrong with a release, the one that serves goes on
            self._release_trouble = _noted(self._release_trouble, fault, f"version {version} cannot be served")
            self._metrics.release_failures.inc()
            retry.at = asyncio.get_running_loop().time() + min(self._poll_seconds * 2**retry.failures, _LONGEST_WAIT)
            retry.failures += 1
            if isinstance(fault, ParityError):
                await self._refuse(version, fault)
            return
        if version == self._wanted.champion:  # it may have been rolled back meanwhile
            self._switch(loaded)

    async def _keep_previous_ready(self) -> None:
        """Load it where a gateway has just started. It is no trouble where that fails: nobody asks for it yet."""
        version = self._wanted.previous
        if version is None or version in self._loaded or version in self._retries or self._current is None:
            return
        self._retries[version] = _Retry()
        try:
            release = await asyncio.to_thread(self._source.fetch, version)
            if _is_small(release):
                await self._load(release)
        except Exception as fault:  # whatever is wrong with it, the one that serves goes on
            logger.warning("the previous version %s cannot be kept ready: %s", version, fault)

    async def _bring(self, version: str) -> _Loaded:
        return await self._load(await asyncio.to_thread(self._source.fetch, version))

    async def _load(self, release: Release) -> _Loaded:
        version = release.version
        await self._engine.load(release)
        try:
            await self._warm(release)
        except BaseException:
            await self._engine.unload(version)
            raise
        loaded = self._loaded[version] = _Loaded(release)
        return loaded

    async def _warm(self, release: Release) -> None:
        warm_up = release.conversation((Message(role="user", content="Hello"),))
        await self._engine.answer(release.version, warm_up, constrained(GenerationConfig(max_tokens=1), release))
        if self._params is not None:
            parity = await require_parity(self._engine, release, self._params, self._max_tokens)
            logger.info("version %s answers %d of %d golden prompts alike", release.version, parity.alike, parity.asked)

    async def _refuse(self, version: str, why: ParityError) -> None:
        """Take its aliases away. Where nothing serves yet, they stay: it is this gateway that may be at fault."""
        serving = self.state.serving
        if serving is None:
            return
        self._metrics.release_refusals.inc()
        self._refusal, self._release_trouble = f"version {version} was refused: {why}"[:_LONGEST_REPORT], None
        try:
            await asyncio.to_thread(self._source.refuse, version, serving, str(why))
        except Exception as fault:  # the next look meets the same alias, and refuses again
            self._registry_trouble = _noted(self._registry_trouble, fault, "the registry did not take the refusal")
            return
        if self._wanted.champion == version:
            self._wanted = DesiredReleases(serving, None, self._wanted.trial)
        else:
            self._wanted = DesiredReleases(self._wanted.champion, self._wanted.previous, None)

    def _switch(self, chosen: _Loaded) -> None:
        """No await in here: a request sees the old release or the new one."""
        old, self._current = self._current, chosen
        self._release_trouble = self._refusal = None
        self._metrics.serving.clear()
        self._metrics.serving.labels(chosen.release.version).set(1)
        logger.info("version %s serves", chosen.release.version)
        if old and old is not chosen:
            self._metrics.swaps.inc()

    def _retire_unwanted(self) -> None:
        for version, loaded in self._loaded.items():
            if not loaded.retiring and not self._is_wanted(version):
                loaded.retiring = True
                task = asyncio.create_task(self._retire(version, loaded))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)

    def _is_wanted(self, version: str) -> bool:
        wanted = self._wanted
        if version == wanted.previous and _is_small(self._loaded[version].release):
            return True
        return version in (self.state.serving, wanted.champion, wanted.trial.version if wanted.trial else None)

    async def _retire(self, version: str, loaded: _Loaded) -> None:
        """Unload a release once nobody uses it, unless it is wanted again by then."""
        while True:
            await loaded.idle.wait()
            async with self._one_at_a_time:
                if self._is_wanted(version):
                    loaded.retiring = False
                    return
                if loaded.idle.is_set():
                    del self._loaded[version]
                    await self._engine.unload(version)
                    self._metrics.forget(version)
                    return


def _is_small(release: Release) -> bool:
    """All but a fully trained model, which takes as much room as the base."""
    return not any(release.adapter.glob("model*.safetensors"))


def _noted(before: str | None, fault: Exception, what: str) -> str:
    """The trouble in words, logged where it is news."""
    # Read by anyone in /readyz: credentials that an address in it may carry stay out.
    trouble = re.sub(r"//[^/\s@]*@", "//", f"{what}: {fault}")[:_LONGEST_REPORT]
    if trouble != before:
        logger.warning("%s", trouble)
    return trouble
