"""The engine in process: one worker thread owns the model, and requests share its batches.

A request waits up to `max_wait_ms` for others to join it. All of a batch ask the same version; whoever does not fit
goes with a later batch, in order. Free text is written token by token, and a request of the version that is writing
joins at the next token, unless one of another version has waited longer.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar, TypeVarTuple

from perpetune.engines.adapter_name import adapter_name
from perpetune.engines.base_match import require_base
from perpetune.engines.engine import NotLoaded, Overloaded, require_supported
from perpetune.generation.answer import Answer
from perpetune.generation.parameters import Delta, GenerationConfig, OnDelta
from perpetune.generation.request import GenerationRequest, ignore_delta
from perpetune.model.release import Release
from perpetune.params import BaseParams, ServeParams
from perpetune.records import Message

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class Model(Protocol):
    """What the engine needs of `perpetune.inference.predictor.Predictor`. One thread calls it."""

    def load_adapter(self, name: str, folder: Path) -> None: ...

    def unload_adapter(self, name: str) -> None: ...

    def answer(
        self,
        adapter: str | None,
        conversations: Sequence[Sequence[Message]],
        labels: Sequence[str] | None,
        max_new_tokens: int,
    ) -> list[Answer]: ...

    def write(self, adapter: str | None, next_asked: Callable[[int], Sequence[GenerationRequest]]) -> None: ...


@dataclass(frozen=True)
class _Adapter:
    """`name` None is the base itself, which a prompted version asks."""

    name: str | None
    labels: tuple[str, ...] | None


@dataclass(frozen=True, eq=False)
class _Job:
    adapter: _Adapter
    messages: Sequence[Message]
    generation: GenerationConfig
    hear: OnDelta | None
    arrived: float
    answers: asyncio.Future[tuple[Answer, ...]]
    on_delta: threading.Event = field(default_factory=threading.Event)

    def asked(self) -> GenerationRequest:
        """What the model's thread sees of it."""
        return GenerationRequest(
            messages=self.messages,
            generation=self.generation,
            answered=self.finish,
            failed=self.fail,
            on_delta=self._tell if self.hear else ignore_delta,
            is_cancelled=self.answers.done,
        )

    def finish(self, answers: tuple[Answer, ...]) -> None:
        self._on_loop(self.answers.set_result, answers)

    def fail(self, fault: BaseException) -> None:
        self._on_loop(self.answers.set_exception, fault)

    def _tell(self, delta: Delta) -> None:
        assert self.hear is not None
        self.on_delta.set()
        self._on_loop(self.hear, delta)

    def _on_loop(self, call: Callable[[Result], object], argument: Result) -> None:
        """On the event loop, unless the request was given up until then."""
        self.answers.get_loop().call_soon_threadsafe(lambda: self.answers.done() or call(argument))


class TransformersEngine:
    """An `Engine` over a base model that is loaded already, for tuned and prompted releases of that base alone."""

    def __init__(self, model: Model, base: BaseParams, params: ServeParams) -> None:
        self._model = model
        self._base = base
        self._params = params
        self._adapters: dict[str, _Adapter] = {}
        self._jobs: deque[_Job] = deque()
        self._lock = threading.Lock()  # on the jobs: the model's thread takes some of them while it writes
        self._under_way: list[_Job] = []
        self._closing = False
        self._arrival = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._batching: asyncio.Task[None] | None = None

    async def load(self, release: Release) -> None:
        require_base(release, self._base)
        name = None
        if release.system == "tuned":
            name = await asyncio.to_thread(adapter_name, release)
            await self._on_thread(self._model.load_adapter, name, release.adapter)
        self._adapters[release.version] = _Adapter(name, release.labels)

    async def unload(self, version: str) -> None:
        name = self._adapters.pop(version).name
        if name is not None:
            await self._on_thread(self._model.unload_adapter, name)

    async def answer(
        self, version: str, messages: Sequence[Message], generation: GenerationConfig, hear: OnDelta | None = None
    ) -> tuple[Answer, ...]:
        if version not in self._adapters:
            raise NotLoaded(version)
        if len(self._jobs) >= self._params.max_queue:
            raise Overloaded(len(self._jobs), retry_after=1.0)
        adapter = self._adapters[version]
        require_supported(generation, labelled=adapter.labels is not None)
        if self._batching is None:
            self._batching = asyncio.create_task(self._batch_forever())
        loop = asyncio.get_running_loop()
        job = _Job(adapter, messages, generation, hear, loop.time(), loop.create_future())
        with self._lock:
            self._jobs.append(job)
        self._arrival.set()
        try:
            return await job.answers
        finally:
            self._forget(job)  # where the caller gave up before its turn came

    async def close(self) -> None:
        self._closing = True
        if self._batching:
            self._batching.cancel()
            await asyncio.wait([self._batching])
        await asyncio.to_thread(self._thread.shutdown)
        for job in (*self._jobs, *self._under_way):
            job.answers.cancel()

    async def _batch_forever(self) -> None:
        while True:
            batch = await self._gather()
            self._under_way = batch
            if batch and batch[0].adapter.labels is not None:
                await self._choose(batch)
            elif batch:
                await self._write(batch)

    async def _gather(self) -> list[_Job]:
        """Wait for a job, then for company, and take them out of the queue."""
        while not self._jobs:
            await self._next_arrival(None)
        first = self._jobs[0]
        leave_at = first.arrived + self._params.max_wait_ms / 1000
        while not self._is_full(self._company(first)):
            left = leave_at - asyncio.get_running_loop().time()
            if left <= 0 or not await self._next_arrival(left):
                break
        batch = self._company(first)
        for job in batch:
            self._forget(job)
        return batch

    def _company(self, first: _Job) -> list[_Job]:
        """Those that ask the same version, until there is no room for another; the first always has it."""
        company: list[_Job] = []
        for job in self._jobs:
            if self._is_full(company):
                break
            if job.adapter == first.adapter:
                company.append(job)
        return company

    def _is_full(self, company: Sequence[_Job]) -> bool:
        return sum(map(_rows, company)) >= self._params.max_batch

    def _forget(self, job: _Job) -> None:
        with self._lock:
            if job in self._jobs:
                self._jobs.remove(job)

    async def _next_arrival(self, seconds: float | None) -> bool:
        """False where none came within these seconds."""
        self._arrival.clear()
        try:
            await asyncio.wait_for(self._arrival.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _choose(self, batch: Sequence[_Job]) -> None:
        """Answer a batch with labels. Where it fails, each is tried alone, so that one bad request fails no other."""
        answering = self._on_thread(
            self._model.answer,
            batch[0].adapter.name,
            [job.messages for job in batch],
            batch[0].adapter.labels,
            batch[0].generation.max_tokens,
        )
        await asyncio.wait([answering])
        fault = answering.exception()
        if fault is None:
            for job, answer in zip(batch, answering.result(), strict=True):
                for index in range(job.generation.n if job.hear else 0):
                    job.asked().on_delta(Delta(index, answer.text))
                job.finish((answer,) * job.generation.n)
        elif len(batch) > 1:
            for job in batch:
                await self._choose([job])
        else:
            batch[0].fail(fault)

    async def _write(self, batch: Sequence[_Job]) -> None:
        """Write free text, with those that arrive meanwhile. Where it fails, each is tried alone.

        But for those whose text was heard already: written again it could be another.
        """
        fresh = [*batch]

        def next_asked(writing: int) -> list[GenerationRequest]:
            joining = [*fresh] if fresh else self._joining(batch[0].adapter, writing)
            fresh.clear()
            return [job.asked() for job in joining]

        writing = self._on_thread(self._model.write, batch[0].adapter.name, next_asked)
        await asyncio.wait([writing])
        fault = writing.exception()
        left = [job for job in self._under_way if not job.answers.done()]
        if fault is None:
            return
        for job in left:
            if len(left) == 1 or job.on_delta.is_set():
                job.fail(fault)
            else:
                await self._write_alone(job)

    async def _write_alone(self, job: _Job) -> None:
        asked = [[job.asked()]]
        writing = self._on_thread(self._model.write, job.adapter.name, lambda _: asked.pop() if asked else ())
        await asyncio.wait([writing])
        if fault := writing.exception():
            job.fail(fault)

    def _joining(self, adapter: _Adapter, writing: int) -> list[_Job]:
        """Called in the model's thread before each token: whose turn it is, and is there room beside those writing."""
        joining: list[_Job] = []
        with self._lock:
            while (
                self._jobs
                and not self._closing
                and self._jobs[0].adapter == adapter
                and writing + sum(map(_rows, joining)) < self._params.max_batch
            ):
                joining.append(self._jobs.popleft())
        self._under_way = [job for job in self._under_way if not job.answers.done()] + joining
        return joining

    def _on_thread(self, call: Callable[[*Arguments], Result], *arguments: *Arguments) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)


def _rows(job: _Job) -> int:
    return job.generation.n if job.adapter.labels is None else 1
