"""Shadow answers: a version on trial answers too, and its answers are only recorded."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from perpetune.classifiers.temperature_scaling import scale_temperature
from perpetune.engines.engine import Engine, NotLoaded, Overloaded
from perpetune.gateway.api.chat.output_constraint import constrained
from perpetune.gateway.releases.follower import Follower, UnknownVersion
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.generation.parameters import GenerationConfig
from perpetune.model.release import Release
from perpetune.records import Message, Shadow

logger = logging.getLogger(__name__)


class ShadowLog(Protocol):
    def shadow(self, shadow: Shadow) -> None: ...


class Shadows:
    """Computes shadow answers in the background, at most `max_concurrent` at once; others are skipped."""

    def __init__(
        self,
        engine: Engine,
        follower: Follower,
        log: ShadowLog,
        metrics: Metrics,
        *,
        max_concurrent: int,
        timeout: float,
    ) -> None:
        self._engine = engine
        self._follower = follower
        self._log = log
        self._metrics = metrics
        self._most = max_concurrent
        self._timeout = timeout
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(
        self, release: Release, request_id: str, messages: tuple[Message, ...], generation: GenerationConfig
    ) -> None:
        """Start a shadow answer and return at once. The caller's request must keep the release loaded."""
        if len(self._tasks) >= self._most:
            self._metrics.shadows_skipped.inc()
            return
        stack = ExitStack()
        try:
            stack.enter_context(self._follower.using(release.version))
        except UnknownVersion:  # its trial has just ended
            return
        task = asyncio.create_task(self._answer(release, request_id, messages, generation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: stack.close())

    async def close(self) -> None:
        """Cancel the answers in flight."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _answer(
        self,
        release: Release,
        request_id: str,
        messages: tuple[Message, ...],
        generation: GenerationConfig,
    ) -> None:
        began, arrived = time.perf_counter(), datetime.now(UTC)
        error: str | None = None
        output, confidence = "", None
        try:
            async with asyncio.timeout(self._timeout):
                config = constrained(replace(generation, n=1, top_logprobs=None), release)
                answers = await self._engine.answer(
                    release.version, release.conversation(messages), config.capped(release.max_new_tokens)
                )
            answer = scale_temperature(answers[0], release.evaluated.temperature)
            output, confidence = answer.text, answer.confidence
        except (Overloaded, NotLoaded):  # no evidence about the version
            self._metrics.shadows_skipped.inc()
            return
        except Exception as fault:  # any failure is evidence about the version
            logger.warning("the shadow version %s failed to answer: %r", release.version, fault)
            error = "timeout" if isinstance(fault, TimeoutError) else type(fault).__name__
        self._log.shadow(
            Shadow(
                request_id=request_id,
                time=arrived,
                task=release.task,
                version=release.version,
                output=output,
                latency_ms=(time.perf_counter() - began) * 1000,
                confidence=None if confidence is None else min(1.0, max(0.0, confidence)),
                error=error,
            )
        )
