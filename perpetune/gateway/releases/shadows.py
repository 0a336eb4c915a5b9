"""A version on trial answers beside the champion: its answers are recorded and shown to nobody."""

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
from perpetune.gateway.api.output_constraint import constrained
from perpetune.gateway.releases.follower import Follower, UnknownVersion
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.generation.parameters import GenerationConfig
from perpetune.model.release import Release
from perpetune.records import Message, Shadow

logger = logging.getLogger(__name__)


class ShadowLog(Protocol):
    def shadow(self, said: Shadow) -> None: ...


class Shadows:
    """Asks for the answers of shadows in the background, at most `most` at once; beyond that they are left out."""

    def __init__(
        self, engine: Engine, follower: Follower, log: ShadowLog, metrics: Metrics, *, most: int, timeout: float
    ) -> None:
        self._engine = engine
        self._follower = follower
        self._log = log
        self._metrics = metrics
        self._most = most
        self._timeout = timeout
        self._asking: set[asyncio.Task[None]] = set()

    def ask(
        self, release: Release, request_id: str, messages: tuple[Message, ...], generation: GenerationConfig
    ) -> None:
        """Have this release answer too, and return at once. Call it while the request keeps the release loaded."""
        if len(self._asking) >= self._most:
            self._metrics.shadows_skipped.inc()
            return
        kept = ExitStack()
        try:
            kept.enter_context(self._follower.using(release.version))
        except UnknownVersion:  # its trial has just ended
            return
        task = asyncio.create_task(self._answer(release, request_id, messages, generation))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        task.add_done_callback(lambda _: kept.close())

    async def close(self) -> None:
        """Give up what is being asked."""
        for task in self._asking:
            task.cancel()
        if self._asking:
            await asyncio.wait(self._asking)

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
                asked = constrained(replace(generation, n=1, top_logprobs=None), release)
                answers = await self._engine.answer(
                    release.version, release.conversation(messages), asked.capped(release.max_new_tokens)
                )
            answer = scale_temperature(answers[0], release.evaluated.temperature)
            output, confidence = answer.text, answer.confidence
        except (Overloaded, NotLoaded):  # says nothing about the version
            self._metrics.shadows_skipped.inc()
            return
        except Exception as fault:  # whatever a version on trial does wrong is what its trial is to show
            logger.warning("version %s, a shadow, did not answer: %r", release.version, fault)
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
