"""The engine in process: one worker thread owns the model, and requests share its batches.

A request waits up to `max_wait_ms` for others to join it. All of a batch ask the same version, and, where the
answer is free text, for the same number of tokens; whoever does not fit goes with a later batch, in order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar, TypeVarTuple

from perpetune.answer import Answer
from perpetune.generation import Delta, Generation, Hear
from perpetune.params import BaseParams, ServeParams
from perpetune.records import Message
from perpetune.release import Release
from perpetune.serving.adapter_name import adapter_name
from perpetune.serving.base_match import require_base
from perpetune.serving.engine import NotLoaded, Overloaded

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class Model(Protocol):
    """What the engine needs of `perpetune.inference.answers.Answerer`. One thread calls it."""

    def load_adapter(self, name: str, folder: Path) -> None: ...

    def unload_adapter(self, name: str) -> None: ...

    def answer(
        self,
        adapter: str | None,
        conversations: Sequence[Sequence[Message]],
        labels: Sequence[str] | None,
        max_new_tokens: int,
    ) -> list[Answer]: ...


@dataclass(frozen=True)
class _Adapter:
    name: str
    labels: tuple[str, ...] | None


@dataclass(frozen=True, eq=False)
class _Job:
    adapter: _Adapter
    messages: Sequence[Message]
    max_tokens: int
    arrived: float
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def fits(self, other: _Job) -> bool:
        same_length = self.adapter.labels is not None or self.max_tokens == other.max_tokens
        return self.adapter == other.adapter and same_length


class TransformersEngine:
    """An `Engine` over a base model that is loaded already; it refuses releases of any other base."""

    def __init__(self, model: Model, base: BaseParams, params: ServeParams) -> None:
        self._model = model
        self._base = base
        self._params = params
        self._adapters: dict[str, _Adapter] = {}
        self._jobs: deque[_Job] = deque()
        self._arrival = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._batching: asyncio.Task[None] | None = None

    async def load(self, release: Release) -> None:
        require_base(release, self._base)
        adapter = _Adapter(await asyncio.to_thread(adapter_name, release), release.labels)
        await self._on_thread(self._model.load_adapter, adapter.name, release.adapter)
        self._adapters[release.version] = adapter

    async def unload(self, version: str) -> None:
        adapter = self._adapters.pop(version)
        await self._on_thread(self._model.unload_adapter, adapter.name)

    async def answer(
        self, version: str, messages: Sequence[Message], generation: Generation, hear: Hear | None = None
    ) -> tuple[Answer, ...]:
        if version not in self._adapters:
            raise NotLoaded(version)
        if len(self._jobs) >= self._params.max_queue:
            raise Overloaded(len(self._jobs), retry_after=1.0)
        if self._batching is None:
            self._batching = asyncio.create_task(self._batch_forever())
        job = _Job(self._adapters[version], messages, generation.max_tokens, asyncio.get_running_loop().time())
        self._jobs.append(job)
        self._arrival.set()
        try:
            answer = await job.answer
            if hear:
                hear(Delta(0, answer.text))
            return (answer,)
        finally:
            if job in self._jobs:  # the caller gave up before its turn came
                self._jobs.remove(job)

    async def close(self) -> None:
        if self._batching:
            self._batching.cancel()
            await asyncio.wait([self._batching])
        for job in self._jobs:
            job.answer.cancel()
        await asyncio.to_thread(self._thread.shutdown)

    async def _batch_forever(self) -> None:
        while True:
            batch = await self._gather()
            if batch:
                await self._compute(batch)

    async def _gather(self) -> list[_Job]:
        """Wait for a job, then for company, and take them out of the queue."""
        while not self._jobs:
            await self._next_arrival(None)
        first = self._jobs[0]
        leave_at = first.arrived + self._params.max_wait_ms / 1000
        while len(self._company(first)) < self._params.max_batch:
            left = leave_at - asyncio.get_running_loop().time()
            if left <= 0 or not await self._next_arrival(left):
                break
        batch = self._company(first)
        for job in batch:
            self._jobs.remove(job)
        return batch

    def _company(self, first: _Job) -> list[_Job]:
        return [job for job in self._jobs if job.fits(first)][: self._params.max_batch]

    async def _next_arrival(self, seconds: float | None) -> bool:
        """False where none came within these seconds."""
        self._arrival.clear()
        try:
            await asyncio.wait_for(self._arrival.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _compute(self, batch: Sequence[_Job]) -> None:
        """Answer a batch. Where it fails, each of it is tried alone, so that one bad request fails no other."""
        answering = self._on_thread(
            self._model.answer,
            batch[0].adapter.name,
            [job.messages for job in batch],
            batch[0].adapter.labels,
            batch[0].max_tokens,
        )
        await asyncio.wait([answering])
        fault = answering.exception()
        if fault is None:
            for job, answer in zip(batch, answering.result(), strict=True):
                if not job.answer.done():
                    job.answer.set_result(answer)
        elif len(batch) > 1:
            for job in batch:
                await self._compute([job])
        elif not batch[0].answer.done():
            batch[0].answer.set_exception(fault)

    def _on_thread(self, call: Callable[[*Arguments], Result], *arguments: *Arguments) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)
