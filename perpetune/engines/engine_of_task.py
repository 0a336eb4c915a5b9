"""One engine for several tasks, whose versions have the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from perpetune.engines.engine import Engine, NotLoaded, Overloaded
from perpetune.generation.answer import Answer
from perpetune.generation.parameters import GenerationConfig, OnDelta
from perpetune.model.release import Release
from perpetune.records import Message


class EngineOfTask:
    """An `Engine` over one that other tasks use too. There a version is named TASK@VERSION, which no two tasks share.

    At most `max_queue` requests of the task are in the engine, so that no task takes the queue of the others. Who made the
    shared engine closes it, after all tasks.
    """

    def __init__(self, engine: Engine, task: str, max_queue: int) -> None:
        self._engine = engine
        self._task = task
        self._max_queue = max_queue
        self._in_flight = 0

    async def load(self, release: Release) -> None:
        await self._engine.load(replace(release, version=self._name(release.version)))

    async def unload(self, version: str) -> None:
        await self._engine.unload(self._name(version))

    async def answer(
        self, version: str, messages: Sequence[Message], generation: GenerationConfig, on_delta: OnDelta | None = None
    ) -> tuple[Answer, ...]:
        if self._in_flight >= self._max_queue:
            raise Overloaded(self._in_flight, retry_after=1.0)
        self._in_flight += 1
        try:
            return await self._engine.answer(self._name(version), messages, generation, on_delta)
        except NotLoaded:
            raise NotLoaded(version) from None
        finally:
            self._in_flight -= 1

    async def close(self) -> None:
        """Nothing: the engine is not this task's."""

    def _name(self, version: str) -> str:
        return f"{self._task}@{version}"
