"""The in-process engine: one worker thread owns the model, and requests are batched.

A request waits up to `max_wait_ms` for others. A batch has one version; requests that do not fit wait for a later
batch, in order. Free text uses continuous batching: a request joins a running batch of its version at the next token,
unless a request of another version has waited longer.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar, TypeVarTuple

from perpetune.engines.adapter_name import adapter_name
from perpetune.engines.base_match import require_base
from perpetune.engines.engine import NotLoaded, Overloaded, Unsupported, require_supported
from perpetune.engines.openai_api.forced_tool import forced_tool
from perpetune.engines.openai_api.free_tools import free_tools
from perpetune.generation.answer import Answer, PromptRejected
from perpetune.generation.parameters import BadSchema, Delta, GenerationConfig, OnDelta
from perpetune.generation.prompt_format import PromptFormat
from perpetune.generation.request import GenerationRequest, ignore_delta
from perpetune.model.release import Release
from perpetune.params import BaseParams, ServeParams
from perpetune.records import Message

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class Model(Protocol):
    """The part of `perpetune.inference.predictor.Predictor` that the engine uses, from one thread."""

    def load_adapter(self, name: str, folder: Path) -> None: ...

    def unload_adapter(self, name: str) -> None: ...

    def answer(
        self,
        adapter: str | None,
        conversations: Sequence[Sequence[Message]],
        labels: Sequence[str] | None,
        max_new_tokens: int,
        *,
        prompt_format: PromptFormat,
    ) -> list[Answer]: ...

    def generate(self, adapter: str | None, next_requests: Callable[[int], Sequence[GenerationRequest]]) -> None: ...


@dataclass(frozen=True)
class _Adapter:
    """`name` None is the base model, for prompted versions."""

    name: str | None
    labels: tuple[str, ...] | None
    prompt_format: PromptFormat


@dataclass(frozen=True, eq=False)
class _Job:
    adapter: _Adapter
    messages: Sequence[Message]
    generation: GenerationConfig
    on_delta: OnDelta | None
    arrived: float
    answers: asyncio.Future[tuple[Answer, ...]]
    has_streamed: threading.Event = field(default_factory=threading.Event)

    def request(self) -> GenerationRequest:
        """The request as the model's thread receives it."""
        return GenerationRequest(
            messages=self.messages,
            generation=self.generation,
            on_answers=self.finish,
            on_error=self.fail,
            on_delta=self._stream if self.on_delta else ignore_delta,
            is_cancelled=self.answers.done,
            prompt_format=self.adapter.prompt_format,
        )

    def finish(self, answers: tuple[Answer, ...]) -> None:
        self._on_loop(self.answers.set_result, answers)

    def fail(self, fault: BaseException) -> None:
        self._on_loop(self.answers.set_exception, fault)

    def _stream(self, delta: Delta) -> None:
        assert self.on_delta is not None
        self.has_streamed.set()
        self._on_loop(self.on_delta, delta)

    def _on_loop(self, call: Callable[[Result], object], argument: Result) -> None:
        """Call on the event loop, unless the request was cancelled by then."""
        self.answers.get_loop().call_soon_threadsafe(lambda: self.answers.done() or call(argument))


class TransformersEngine:
    """An `Engine` over a loaded base model, for tuned and prompted releases of that base."""

    def __init__(self, model: Model, base: BaseParams, params: ServeParams) -> None:
        self._model = model
        self._base = base
        self._params = params
        self._adapters: dict[str, _Adapter] = {}
        self._jobs: deque[_Job] = deque()
        self._lock = threading.Lock()  # of the jobs: the model's thread takes some while it generates
        self._running: list[_Job] = []
        self._closing = False
        self._arrival = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._batch_task: asyncio.Task[None] | None = None

    async def load(self, release: Release) -> None:
        require_base(release, self._base)
        name = None
        if release.system == "tuned":
            name = await asyncio.to_thread(adapter_name, release)
            await self._on_thread(self._model.load_adapter, name, release.adapter)
        self._adapters[release.version] = _Adapter(name, release.labels, release.prompt_format)

    async def unload(self, version: str) -> None:
        name = self._adapters.pop(version).name
        if name is not None:
            await self._on_thread(self._model.unload_adapter, name)

    async def answer(
        self, version: str, messages: Sequence[Message], generation: GenerationConfig, on_delta: OnDelta | None = None
    ) -> tuple[Answer, ...]:
        if version not in self._adapters:
            raise NotLoaded(version)
        labelled = self._adapters[version].labels is not None
        require_supported(generation, labelled=labelled)
        forced = forced_tool(generation)
        if forced is None:
            return await self._free(version, messages, generation, on_delta)
        asked, send = forced.generation(generation), None if on_delta is None else forced.on_delta(on_delta)
        try:
            return forced.answers(await self._answer(version, messages, asked, send), on_delta)
        except BadSchema as fault:
            raise Unsupported("tools", str(fault)) from fault

    async def _free(
        self, version: str, messages: Sequence[Message], generation: GenerationConfig, on_delta: OnDelta | None
    ) -> tuple[Answer, ...]:
        """Answer with text, or with calls of the tools that the request offers."""
        tools = free_tools(generation) if self._adapters[version].labels is None else None
        if tools is None:
            return await self._answer(version, messages, generation, on_delta)
        send = None if on_delta is None else tools.on_delta(on_delta)
        return tools.answers(await self._answer(version, messages, generation, send), on_delta)

    async def _answer(
        self, version: str, messages: Sequence[Message], generation: GenerationConfig, on_delta: OnDelta | None
    ) -> tuple[Answer, ...]:
        if len(self._jobs) >= self._params.max_queue:
            raise Overloaded(len(self._jobs), retry_after=1.0)
        adapter = self._adapters[version]
        if self._batch_task is None:
            self._batch_task = asyncio.create_task(self._batch_forever())
        loop = asyncio.get_running_loop()
        job = _Job(adapter, messages, generation, on_delta, loop.time(), loop.create_future())
        with self._lock:
            self._jobs.append(job)
        self._arrival.set()
        try:
            return await job.answers
        except PromptRejected as fault:
            raise Unsupported("messages", str(fault)) from fault
        finally:
            self._dequeue(job)  # if the caller was cancelled before its turn

    async def close(self) -> None:
        self._closing = True
        if self._batch_task:
            self._batch_task.cancel()
            await asyncio.wait([self._batch_task])
        await asyncio.to_thread(self._thread.shutdown)
        for job in (*self._jobs, *self._running):
            job.answers.cancel()

    async def _batch_forever(self) -> None:
        while True:
            batch = await self._collect_batch()
            self._running = batch
            if batch and batch[0].adapter.labels is not None:
                await self._score_labels(batch)
            elif batch:
                await self._generate(batch)

    async def _collect_batch(self) -> list[_Job]:
        """Wait for a job and up to `max_wait_ms` for others, and remove the batch from the queue."""
        while not self._jobs:
            await self._next_arrival(None)
        first = self._jobs[0]
        leave_at = first.arrived + self._params.max_wait_ms / 1000
        while not self._is_full(self._same_adapter(first)):
            remaining = leave_at - asyncio.get_running_loop().time()
            if remaining <= 0 or not await self._next_arrival(remaining):
                break
        batch = self._same_adapter(first)
        for job in batch:
            self._dequeue(job)
        return batch

    def _same_adapter(self, first: _Job) -> list[_Job]:
        """The jobs of the same version, up to `max_batch`; the first always fits."""
        batch: list[_Job] = []
        for job in self._jobs:
            if self._is_full(batch):
                break
            if job.adapter == first.adapter:
                batch.append(job)
        return batch

    def _is_full(self, batch: Sequence[_Job]) -> bool:
        return sum(map(_sequence_count, batch)) >= self._params.max_batch

    def _dequeue(self, job: _Job) -> None:
        with self._lock:
            if job in self._jobs:
                self._jobs.remove(job)

    async def _next_arrival(self, seconds: float | None) -> bool:
        """Wait for the next job; False after these seconds."""
        self._arrival.clear()
        try:
            await asyncio.wait_for(self._arrival.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _score_labels(self, batch: Sequence[_Job]) -> None:
        """Answer a batch with labels. If it fails, each job is tried alone, so that a bad request fails no other."""
        answering = self._on_thread(
            partial(self._model.answer, prompt_format=batch[0].adapter.prompt_format),
            batch[0].adapter.name,
            [job.messages for job in batch],
            batch[0].adapter.labels,
            batch[0].generation.max_tokens,
        )
        await asyncio.wait([answering])
        fault = answering.exception()
        if fault is None:
            for job, answer in zip(batch, answering.result(), strict=True):
                for index in range(job.generation.n if job.on_delta else 0):
                    job.request().on_delta(Delta(index, answer.text))
                job.finish((answer,) * job.generation.n)
        elif len(batch) > 1:
            for job in batch:
                await self._score_labels([job])
        else:
            batch[0].fail(fault)

    async def _generate(self, batch: Sequence[_Job]) -> None:
        """Generate free text, together with jobs that arrive meanwhile.

        If it fails, each job is tried alone, except those that have streamed text: it could differ the second time.
        """
        fresh = [*batch]

        def next_requests(writing: int) -> list[GenerationRequest]:
            joining = [*fresh] if fresh else self._take_joining(batch[0].adapter, writing)
            fresh.clear()
            return [job.request() for job in joining]

        writing = self._on_thread(self._model.generate, batch[0].adapter.name, next_requests)
        await asyncio.wait([writing])
        fault = writing.exception()
        unfinished = [job for job in self._running if not job.answers.done()]
        if fault is None:
            return
        for job in unfinished:
            if len(unfinished) == 1 or job.has_streamed.is_set():
                job.fail(fault)
            else:
                await self._generate_alone(job)

    async def _generate_alone(self, job: _Job) -> None:
        request = [[job.request()]]
        writing = self._on_thread(self._model.generate, job.adapter.name, lambda _: request.pop() if request else ())
        await asyncio.wait([writing])
        if fault := writing.exception():
            job.fail(fault)

    def _take_joining(self, adapter: _Adapter, writing: int) -> list[_Job]:
        """The jobs that join the running batch. Called in the model's thread before each token."""
        joining: list[_Job] = []
        with self._lock:
            while (
                self._jobs
                and not self._closing
                and self._jobs[0].adapter == adapter
                and writing + sum(map(_sequence_count, joining)) < self._params.max_batch
            ):
                joining.append(self._jobs.popleft())
        self._running = [job for job in self._running if not job.answers.done()] + joining
        return joining

    def _on_thread(self, call: Callable[[*Arguments], Result], *arguments: *Arguments) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)


def _sequence_count(job: _Job) -> int:
    return job.generation.n if job.adapter.labels is None else 1
