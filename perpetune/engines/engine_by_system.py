"""An engine that dispatches each version to the engine of its system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perpetune.engines.engine import Engine, NotLoaded
from perpetune.generation.answer import Answer
from perpetune.generation.parameters import GenerationConfig, OnDelta
from perpetune.model.release import Release, System
from perpetune.records import Message


class EngineBySystem:
    """An `Engine` that delegates to one engine per system (tuned, prompted, linear, remote)."""

    def __init__(self, engines: Mapping[System, Engine]) -> None:
        self._engines = engines
        self._serving: dict[str, Engine] = {}

    async def load(self, release: Release) -> None:
        engine = self._engines[release.system]
        await engine.load(release)
        self._serving[release.version] = engine

    async def unload(self, version: str) -> None:
        await self._serving.pop(version).unload(version)

    async def answer(
        self, version: str, messages: Sequence[Message], generation: GenerationConfig, on_delta: OnDelta | None = None
    ) -> tuple[Answer, ...]:
        engine = self._serving.get(version)
        if engine is None:
            raise NotLoaded(version)
        return await engine.answer(version, messages, generation, on_delta)

    async def close(self) -> None:
        for engine in set(self._engines.values()):
            await engine.close()
