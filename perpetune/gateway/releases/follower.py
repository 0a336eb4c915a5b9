"""Following the registry's aliases without a restart.

When `champion` moves, the new release is loaded beside the old one, warmed up, and checked for parity on the golden
prompts. New requests then go to it, and requests in flight finish on the old one. The previous champion stays loaded
for an instant rollback; a release without an alias is unloaded when its last request ends. A release that fails the
parity check is refused, and its alias moves back. If the registry is down or a release does not load, the serving
release does not change.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from perpetune.engines.engine import Engine
from perpetune.errors import PerpetuneError
from perpetune.gateway.api.chat.output_constraint import constrained
from perpetune.gateway.releases.parity import ParityError, require_parity
from perpetune.gateway.releases.routing import is_routed_to_trial
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.generation.parameters import GenerationConfig
from perpetune.model.release import DesiredReleases, Release, RoutedRelease, Trial
from perpetune.params import ReleaseParams
from perpetune.records import Message

logger = logging.getLogger(__name__)

_MAX_RETRY_SECONDS = 60.0  # between two tries of a release that does not load
_DOUBLINGS = 16  # of the pause: a float has no room for a thousand, which take a day

_MAX_ERROR_CHARS = 500


class ReleaseSource(Protocol):
    """The source of releases. Its methods may block for seconds and are called off the event loop."""

    def wanted(self) -> DesiredReleases:
        """The releases that should be loaded, and which of them serves."""

    def fetch(self, version: str) -> Release:
        """Download a version's adapter to local disk."""

    def refuse(self, version: str, back_to: str | None, why: str) -> None:
        """Remove the aliases of a version that must not serve; if it was champion, `back_to` becomes it again."""

    def roll_back(self) -> tuple[str, str]:
        """Make the previous version champion; returns (from, to). Raises PerpetuneError if there is none."""


class Peers(Protocol):
    """The other processes of this gateway, which follow the same registry."""

    @property
    def leads(self) -> bool:
        """Whether this process is the one that the others follow, and so counts for all of them."""

    @property
    def release_error(self) -> str | None:
        """Why the process that this one follows does not serve a version that it should; None if it does."""

    async def before_check(self) -> None:
        """Called before the registry is read because a request says so. Raises PerpetuneError."""

    async def settle(self, serving: str | None) -> None:
        """Wait until they serve this version too."""


class _NoPeers:
    leads = True
    release_error: str | None = None

    async def before_check(self) -> None:
        return

    async def settle(self, serving: str | None) -> None:
        return


class NoReleaseLoaded(Exception):
    """No release is loaded yet."""


class UnknownVersion(Exception):
    """A request pins a version that is not loaded."""


@dataclass(frozen=True)
class FollowerState:
    """The serving version, the registry's champion, the trial, and the current errors (None: none)."""

    serving: str | None
    champion: str | None
    trial: str | None
    registry_error: str | None
    release_error: str | None


@dataclass(frozen=True)
class RollbackResult:
    """The version rolled back, the version that serves again, and how long it took."""

    rolled_back: str
    restored: str
    seconds: float


@dataclass
class _Retry:
    """A release that did not load: the number of failures, and the loop time of the next try."""

    failures: int = 0
    at: float = 0.0


class _Loaded:
    """A loaded release with a count of the requests that use it."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.idle = asyncio.Event()
        self.idle.set()
        self.retiring = False
        self._users = 0

    def take(self) -> None:
        self._users += 1
        self.idle.clear()

    def give_back(self) -> None:
        self._users -= 1
        if not self._users:
            self.idle.set()


class _InUse:
    """A context in which the releases of a request stay loaded. A generator's would take several times as long."""

    __slots__ = ("_loaded", "_routed")

    def __init__(self, routed: RoutedRelease, *loaded: _Loaded) -> None:
        self._routed = routed
        self._loaded = loaded

    def __enter__(self) -> RoutedRelease:
        for each in self._loaded:
            each.take()
        return self._routed

    def __exit__(self, *_: object) -> None:
        for each in self._loaded:
            each.give_back()


class Follower:
    """Keeps the engine's releases in line with the registry. `params` None skips the parity check."""

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
        self._trial: Trial | None = None  # only if it is loaded
        self._wanted = DesiredReleases(None)
        self._rollbacks = 0
        self._registered = 0  # when the model was registered, of which the versions are
        self._registry_error: str | None = None
        self._release_error: str | None = None
        self._refusal: str | None = None
        self._retries: dict[str, _Retry] = {}
        self._swap_lock = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self.peers: Peers = _NoPeers()

    @property
    def state(self) -> FollowerState:
        return FollowerState(
            self._current.release.version if self._current else None,
            self._wanted.champion,
            self._trial.version if self._trial else None,
            self._registry_error,
            self._release_error or self._refusal or self.peers.release_error,
        )

    @property
    def served(self) -> DesiredReleases:
        """What of the desired releases is loaded: what another process that follows this one should load."""
        previous = self._wanted.previous if self._wanted.previous in self._loaded else None
        return DesiredReleases(self.state.serving, previous, self._trial, self._registered)

    @property
    def previous(self) -> str | None:
        """The previous champion, loaded or not."""
        return self._wanted.previous

    @property
    def versions(self) -> tuple[str, ...]:
        """Every loaded version."""
        return tuple(self._loaded)

    @property
    def releases(self) -> tuple[Release, ...]:
        """Every loaded release, the serving one first."""
        loaded = sorted(self._loaded.values(), key=lambda each: each is not self._current)
        return tuple(each.release for each in loaded)

    def using(self, version: str | None = None, key: str = "") -> AbstractContextManager[RoutedRelease]:
        """The release for a request, kept loaded while the context is open.

        It is the given version, or the trial for its part of the users or sessions `key`, or the champion. Raises
        NoReleaseLoaded or UnknownVersion.
        """
        if version is not None:
            if version not in self._loaded:
                raise UnknownVersion(version)
            pinned = self._loaded[version]
            return _InUse(RoutedRelease(pinned.release, "pinned"), pinned)
        current = self._current
        if current is None:
            raise NoReleaseLoaded
        if self._trial is None or not is_routed_to_trial(self._trial, key):
            return _InUse(RoutedRelease(current.release, "champion"), current)
        challenger = self._loaded[self._trial.version]
        if self._trial.strategy == "shadow":
            return _InUse(RoutedRelease(current.release, "champion", shadow=challenger.release), current, challenger)
        if self._params is not None and self._params.paired:
            return _InUse(RoutedRelease(challenger.release, "canary", shadow=current.release), challenger, current)
        return _InUse(RoutedRelease(challenger.release, "canary"), challenger)

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await self._check(force=False)
            await asyncio.sleep(self._poll_seconds)

    async def refresh_now(self) -> FollowerState:
        """Read the aliases now and follow them; returns when new requests go to the new champion, in all processes.

        Raises PerpetuneError if the process that reads the registry does not answer.
        """
        await self.peers.before_check()
        await self.check_now()
        await self.peers.settle(self.state.serving)
        return self.state

    async def check_now(self) -> None:
        """Read the aliases now and follow them, in this process."""
        await self._check(force=True)

    async def roll_back(self, reason: str) -> RollbackResult:
        """Make the previous champion champion again, here and in the registry.

        It does not wait for a swap in progress. Raises PerpetuneError if there is no previous champion.
        """
        began = time.monotonic()
        old, restored = await asyncio.to_thread(self._source.roll_back)
        logger.warning("version %s is rolled back to %s: %s", old, restored, reason)
        self._wanted = DesiredReleases(restored, None, self._wanted.trial)
        self._rollbacks += 1
        loaded = self._loaded.get(restored)
        if loaded is not None:
            self._switch(loaded)
            self._retire_unused()
        else:
            await self._check(force=True)
        if self.state.serving != restored:
            raise PerpetuneError(f"version {restored} is champion again and cannot be served: {self._release_error}")
        await self.peers.settle(restored)
        self._metrics.release_rollbacks.inc()
        return RollbackResult(old, restored, time.monotonic() - began)

    async def _check(self, *, force: bool) -> None:
        async with self._swap_lock:
            if not await self._read_registry():
                return
            champion = self._wanted.champion
            if champion is not None and champion != self.state.serving:
                await self._ensure_loaded(champion, force)
            elif champion is not None:
                self._release_error = None
            await self._follow_trial(force)
            await self._preload_previous()
            self._retire_unused()

    async def _read_registry(self) -> bool:
        """Read the registry; False if it failed."""
        rollbacks = self._rollbacks
        try:
            wanted = await asyncio.to_thread(self._source.wanted)
        except Exception as fault:  # a registry client may raise anything; serving continues
            self._registry_error = _log_new_error(self._registry_error, fault, "the registry cannot be read")
            return False
        if self._registry_error:
            logger.warning("the registry can be read again")
        self._registry_error = None
        if rollbacks != self._rollbacks:  # it may have been read before the rollback
            return True
        if wanted != self._wanted:
            self._retries.clear()
        if wanted.registered and self._registered not in (0, wanted.registered):
            await self._unload_all()
        self._registered = wanted.registered or self._registered
        self._wanted = wanted
        return True

    async def _unload_all(self) -> None:
        """Forget every release: the model was deleted and registered again, with other versions of the same numbers.

        Until its champion is loaded there is no release: a wrong answer would be worse than none.
        """
        logger.warning("the model was registered again: its versions are loaded again")
        self._current, self._trial = None, None
        self._retries.clear()
        stale, self._loaded = self._loaded, {}
        for version, loaded in stale.items():
            await loaded.idle.wait()
            await self._engine.unload(version)
            self._metrics.forget(version)

    async def _follow_trial(self, force: bool) -> None:
        trial = self._wanted.trial
        if trial is not None and trial.version not in self._loaded:
            self._trial = None
            await self._ensure_loaded(trial.version, force)
        if trial is not None and (trial != self._wanted.trial or trial.version not in self._loaded):
            trial = None
        if trial is not None and trial != self._trial:
            logger.info(
                "version %s is on trial: %s, traffic ratio %g", trial.version, trial.strategy, trial.traffic_ratio
            )
        self._trial = trial
        self._metrics.trial.clear()
        if self._trial is not None:
            self._metrics.trial.labels(self._trial.version, self._trial.strategy).set(1)

    async def _ensure_loaded(self, version: str, force: bool) -> None:
        """Load a desired version, and serve it if it is champion; failures are retried with exponential backoff."""
        retry = self._retries.setdefault(version, _Retry())
        if not force and asyncio.get_running_loop().time() < retry.at:
            return
        try:
            loaded = self._loaded.get(version) or await self._fetch_and_load(version)
        except Exception as fault:  # a release may fail in any way; the serving one continues
            self._release_error = _log_new_error(self._release_error, fault, f"version {version} cannot be served")
            self._metrics.release_failures.inc()
            retry.at = asyncio.get_running_loop().time() + min(
                self._poll_seconds * 2 ** min(retry.failures, _DOUBLINGS), _MAX_RETRY_SECONDS
            )
            retry.failures += 1
            if isinstance(fault, ParityError):
                await self._refuse(version, fault)
            return
        if version == self._wanted.champion:  # it may have been rolled back meanwhile
            self._switch(loaded)

    async def _preload_previous(self) -> None:
        """Load the previous champion of a restarted gateway. A failure is only logged, because no request needs it."""
        version = self._wanted.previous
        if version is None or version in self._loaded or version in self._retries or self._current is None:
            return
        self._retries[version] = _Retry()
        try:
            release = await asyncio.to_thread(self._source.fetch, version)
            if _is_small(release):
                await self._load(release)
        except Exception as fault:  # see `_ensure_loaded`
            logger.warning("the previous version %s cannot be preloaded: %s", version, fault)

    async def _fetch_and_load(self, version: str) -> _Loaded:
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
            logger.info(
                "version %s passes parity on %d of %d golden prompts", release.version, parity.matching, parity.prompts
            )

    async def _refuse(self, version: str, why: ParityError) -> None:
        """Remove the version's aliases, unless nothing serves yet: the cause may then be this gateway."""
        serving = self.state.serving
        if serving is None:
            return
        self._metrics.release_refusals.inc()
        self._refusal, self._release_error = f"version {version} was refused: {why}"[:_MAX_ERROR_CHARS], None
        try:
            await asyncio.to_thread(self._source.refuse, version, serving, str(why))
        except Exception as fault:  # the next poll finds the same alias and refuses again
            self._registry_error = _log_new_error(
                self._registry_error, fault, "the refusal could not be written to the registry"
            )
            return
        if self._wanted.champion == version:
            self._wanted = DesiredReleases(serving, None, self._wanted.trial)
        else:
            self._wanted = DesiredReleases(self._wanted.champion, self._wanted.previous, None)

    def _switch(self, chosen: _Loaded) -> None:
        """Without await, so that a request sees either the old release or the new one."""
        old, self._current = self._current, chosen
        self._release_error = self._refusal = None
        self._metrics.serving.clear()
        self._metrics.serving.labels(chosen.release.version).set(1)
        logger.info("version %s serves", chosen.release.version)
        if old and old is not chosen and self.peers.leads:
            self._metrics.swaps.inc()

    def _retire_unused(self) -> None:
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
        """Unload a release when its last request ends, unless it is needed again by then."""
        while True:
            await loaded.idle.wait()
            async with self._swap_lock:
                if self._loaded.get(version) is not loaded:  # unloaded with all others
                    return
                if self._is_wanted(version):
                    loaded.retiring = False
                    return
                if loaded.idle.is_set():
                    del self._loaded[version]
                    await self._engine.unload(version)
                    self._metrics.forget(version)
                    return


def _is_small(release: Release) -> bool:
    """Whether it is an adapter or a linear model; a fully trained model takes as much memory as the base."""
    return not any(release.adapter.glob("model*.safetensors"))


def _log_new_error(before: str | None, fault: Exception, what: str) -> str:
    """The error message, logged if it is new."""
    # It is public in /readyz: remove credentials in URLs.
    error = re.sub(r"//[^/\s@]*@", "//", f"{what}: {fault}")[:_MAX_ERROR_CHARS]
    if error != before:
        logger.warning("%s", error)
    return error
