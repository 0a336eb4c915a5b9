"""An engine wrapper that records latency, time to first token, requests in flight and traces."""

from __future__ import annotations

import time
from collections.abc import Sequence

from perpetune.engines.engine import Engine
from perpetune.gateway.telemetry import tracing
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.generation.answer import Answer
from perpetune.generation.parameters import Delta, GenerationConfig, OnDelta
from perpetune.model.release import Release
from perpetune.records import Message


class ObservedEngine:
    """An `Engine` that delegates to `engine`; a version's metrics are dropped when it is unloaded."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics

    async def load(self, release: Release) -> None:
        await self._engine.load(release)

    async def unload(self, version: str) -> None:
        await self._engine.unload(version)
        self._metrics.forget(version)

    async def answer(
        self, version: str, messages: Sequence[Message], generation: GenerationConfig, on_delta: OnDelta | None = None
    ) -> tuple[Answer, ...]:
        began = time.perf_counter()
        first = True

        def note_first(delta: Delta) -> None:
            nonlocal first
            if first:
                first = False
                self._metrics.series(self._metrics.first_token_seconds, version).observe(time.perf_counter() - began)
            assert on_delta is not None
            on_delta(delta)

        self._metrics.engine_in_flight += 1
        try:
            with tracing.span("engine", {"perpetune.version": version}):
                answers = await self._engine.answer(version, messages, generation, note_first if on_delta else None)
        except Exception as fault:
            self._metrics.engine_refusals.labels(type(fault).__name__).inc()
            raise
        finally:
            self._metrics.engine_in_flight -= 1
        self._metrics.series(self._metrics.engine_seconds, version).observe(time.perf_counter() - began)
        return answers

    async def close(self) -> None:
        await self._engine.close()
