"""Chat completions: validate the request, call the engine, log and return the answer, streamed or not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from perpetune.classifiers.temperature_scaling import scale_temperature
from perpetune.engines.engine import Engine, NotLoaded, Overloaded, Unsupported
from perpetune.gateway.api.chat.answer_errors import api_error, failure_code
from perpetune.gateway.api.chat.chat_reply import Reply
from perpetune.gateway.api.chat.chat_request import ValidRequest, validate_request
from perpetune.gateway.api.chat.output_constraint import constrained
from perpetune.gateway.api.chat.sent_answers import SentAnswers
from perpetune.gateway.api.dialects.dialect import CHAT, Dialect, Replies, WriteAs
from perpetune.gateway.api.errors import ApiError
from perpetune.gateway.api.request.content_type import is_json
from perpetune.gateway.api.request.disconnect import CLIENT_GONE, ClientDisconnected, until_disconnect
from perpetune.gateway.api.request.first_headers import first_headers
from perpetune.gateway.api.request.own_id import own_id
from perpetune.gateway.api.request.request_id import new_request_id
from perpetune.gateway.api.request.whole_body import whole_body
from perpetune.gateway.releases.follower import Follower
from perpetune.gateway.releases.shadows import Shadows
from perpetune.gateway.telemetry import tracing
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.generation.answer import Answer, PromptTooLong
from perpetune.generation.parameters import BadSchema, Delta, OnDelta
from perpetune.model.release import RoutedRelease
from perpetune.params import ServeParams
from perpetune.records import Failure, Prediction, Shadow

_LABEL_SECONDS = 1.0  # in which an engine ends after it has streamed a label


class AnswerLog(Protocol):
    """The log of answers and failures; `failed` and `shadow` return at once and never raise."""

    async def record(self, prediction: Prediction) -> None: ...

    def failed(self, failure: Failure) -> None: ...

    def shadow(self, feedback: Shadow) -> None: ...


@dataclass
class _Call:
    """A request in flight: its id, arrival time and the engine's time."""

    dialect: Dialect
    id: str = field(init=False)
    arrived: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.perf_counter)
    engine_seconds: float = 0.0
    own_id: str | None = None  # the client's
    write_as: WriteAs = lambda reply: reply

    def __post_init__(self) -> None:
        self.id = new_request_id(self.dialect.id_prefix)

    @property
    def milliseconds(self) -> float:
        return (time.perf_counter() - self.began) * 1000

    def headers(self) -> dict[str, str]:
        return {"x-request-id": self.id}

    def timing(self) -> str:
        return f"engine;dur={self.engine_seconds * 1000:.3f}, total;dur={self.milliseconds:.3f}"


class Completions:
    """Answers `POST /v1/chat/completions` of one task."""

    def __init__(
        self,
        task: str,
        *,
        engine: Engine,
        follower: Follower,
        log: AnswerLog,
        metrics: Metrics,
        params: ServeParams,
        max_new_tokens: int,
    ) -> None:
        self._task = task
        self._engine = engine
        self._follower = follower
        self._log = log
        self._metrics = metrics
        self._prompt_tokens, self._completion_tokens = (
            metrics.tokens.labels("prompt"),
            metrics.tokens.labels("completion"),
        )
        self._params = params
        self._max_new_tokens = max_new_tokens
        self._recording: set[asyncio.Task[None]] = set()
        self._shadows = Shadows(
            engine, follower, log, metrics, max_concurrent=params.max_batch, timeout=params.timeout_seconds
        )

    async def respond(self, request: Request, dialect: Dialect = CHAT) -> Response:
        """Answer a request. The response's id is the request id for feedback."""
        call = _Call(dialect)
        try:
            return await self._respond(call, request)
        except ClientDisconnected:
            return Response(status_code=CLIENT_GONE)
        except Exception as fault:  # the framework's error response would lack the request id
            return self._error(call, fault).response(call.headers())

    async def close(self) -> None:
        """Finish what is being recorded, and cancel shadow answers in flight."""
        if self._recording:
            await asyncio.wait(self._recording)
        await self._shadows.close()

    async def _respond(self, call: _Call, request: Request) -> Response:
        headers = first_headers(request.scope)
        if not is_json(headers.get("content-type", "")):
            raise ApiError(400, "Send the body with content-type: application/json.", code="invalid_content_type")
        asked, call.write_as = call.dialect.read(await whole_body(request.receive))
        chat = validate_request(
            asked,
            self._task,
            max_chars=self._params.max_request_chars,
            max_tokens=self._max_new_tokens,
        )
        call.own_id = own_id(chat.metadata, headers)
        key = chat.user or headers.get("x-session-id") or call.id
        if chat.stream:
            events = self._stream(call, chat, key)
            try:
                async with until_disconnect(request.scope, request.receive):
                    first = await anext(events)
            except BaseException:
                await events.aclose()
                raise
            return EventStream(first, events, call.headers())
        return await self._complete(call, chat, key, request)

    async def _complete(self, call: _Call, chat: ValidRequest, key: str, request: Request) -> Response:
        with self._follower.using(chat.version, key) as routed:
            async with until_disconnect(request.scope, request.receive):
                answers = await self._answers(call, routed, self._generate(call, routed, chat))
            reply = self._reply(call, routed, chat)
            await self._record(call, routed, chat, answers)
        headers = {**call.headers(), "server-timing": call.timing()}
        return Response(reply.body(answers), headers=headers, media_type="application/json")

    async def _stream(self, call: _Call, chat: ValidRequest, key: str) -> AsyncGenerator[bytes, None]:
        """The events of an answer. Raises before the first event; later errors are events."""
        with self._follower.using(chat.version, key) as routed:
            deltas: asyncio.Queue[Delta | None] = asyncio.Queue()
            asking = asyncio.create_task(self._generate(call, routed, chat, deltas.put_nowait))
            asking.add_done_callback(lambda _: deltas.put_nowait(None))
            reply, sent = self._reply(call, routed, chat), SentAnswers(chat.generation.n)
            try:
                delta = await deltas.get()
                if delta is None and asking.exception():
                    await self._answers(call, routed, asking)
                try:
                    yield reply.beginning(chat.generation.n)  # from here on the client has the id
                    while delta is not None:
                        sent.add(delta)
                        yield reply.piece(delta)
                        delta = await deltas.get()
                    answers = await self._answers(call, routed, asking)
                except Exception as fault:  # the status is sent already
                    await self._undisturbed(self._record_cut_off(call, routed, chat, sent.answers("failed")))
                    yield reply.error(self._error(call, fault))
                    return
                except BaseException:  # cancelled, or closed at a yield
                    await self._undisturbed(self._record_stopped(call, routed, chat, sent, asking))
                    raise
                await self._undisturbed(self._record(call, routed, chat, answers))
                yield reply.end(answers)
            finally:
                asking.cancel()
                await asyncio.wait([asking])  # keeps the release loaded while the engine uses it

    async def _record_stopped(
        self,
        call: _Call,
        routed: RoutedRelease,
        chat: ValidRequest,
        sent: SentAnswers,
        asking: asyncio.Task[tuple[Answer, ...]],
    ) -> None:
        """Record a stream that its client stopped: as a whole answer, if nothing was left to send."""
        if routed.release.labels is not None:
            await asyncio.wait([asking], timeout=_LABEL_SECONDS)  # the label is sent in one piece, just before
        if asking.done() and not asking.cancelled() and not asking.exception() and sent.is_all_of(asking.result()):
            await self._record(call, routed, chat, asking.result())
        else:
            await self._record_cut_off(call, routed, chat, sent.answers("cancelled"))

    async def _record_cut_off(
        self, call: _Call, routed: RoutedRelease, chat: ValidRequest, answers: tuple[Answer, ...]
    ) -> None:
        """Log what was sent of the first answer, and count all tokens."""
        await self._log_answer(call, routed, chat, answers)
        self._metrics.cut_off.labels(routed.release.version, answers[0].finish_reason).inc(len(answers))

    async def _undisturbed(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for this work, which goes on if the waiting is cancelled."""
        task = asyncio.create_task(work)
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)
        await asyncio.shield(task)

    async def _generate(
        self, call: _Call, routed: RoutedRelease, chat: ValidRequest, on_delta: OnDelta | None = None
    ) -> tuple[Answer, ...]:
        release = routed.release
        messages = release.conversation(chat.messages)
        generation = constrained(chat.generation, release).capped(release.max_new_tokens)
        began = time.perf_counter()
        async with asyncio.timeout(self._params.timeout_seconds):
            if on_delta is None:
                answers = await self._engine.answer(release.version, messages, generation)
            else:
                answers = await self._engine.answer(release.version, messages, generation, on_delta)
        call.engine_seconds = time.perf_counter() - began
        return tuple(scale_temperature(answer, release.evaluated.temperature) for answer in answers)

    async def _record(
        self, call: _Call, routed: RoutedRelease, chat: ValidRequest, answers: tuple[Answer, ...]
    ) -> None:
        """Log the first answer, update the metrics, and start the shadow answer."""
        await self._log_answer(call, routed, chat, answers)
        self._metrics.answered(routed.release.version, routed.route, answers)
        if routed.shadow:
            self._shadows.submit(routed.shadow, call.id, chat.messages, chat.generation)

    async def _log_answer(
        self, call: _Call, routed: RoutedRelease, chat: ValidRequest, answers: tuple[Answer, ...]
    ) -> None:
        """Log the first answer, and count and trace the tokens of all."""
        first, version = answers[0], routed.release.version
        written = sum(answer.completion_tokens for answer in answers)
        prediction = Prediction(
            id=call.id,
            time=call.arrived,
            task=self._task,
            version=version,
            messages=chat.messages,
            input=chat.input,
            output=_output(first),
            prompt_tokens=first.prompt_tokens,
            completion_tokens=written,
            latency_ms=call.milliseconds,
            confidence=None if first.confidence is None else min(1.0, max(0.0, first.confidence)),
            group=chat.user,
            route=routed.route,
            finish_reason=first.finish_reason,
            client_id=call.own_id,
            other_outputs=tuple(map(_output, answers[1:])),
            likelihood=first.likelihood,
        )
        with tracing.span("record"):
            await self._log.record(prediction)
        tracing.note_answer(
            model=self._task,
            version=version,
            route=routed.route,
            prompt_tokens=first.prompt_tokens,
            completion_tokens=written,
        )
        self._prompt_tokens.inc(first.prompt_tokens)
        self._completion_tokens.inc(written)

    def _reply(self, call: _Call, routed: RoutedRelease, chat: ValidRequest) -> Replies:
        reply = Reply(
            id=call.id,
            created=int(call.arrived.timestamp()),
            task=self._task,
            version=routed.release.version,
            route=routed.route,
            with_logprobs=chat.generation.top_logprobs is not None,
            include_usage=chat.include_usage,
        )
        return call.write_as(reply)

    async def _answers(
        self, call: _Call, routed: RoutedRelease, asking: Awaitable[tuple[Answer, ...]]
    ) -> tuple[Answer, ...]:
        """Wait for the answers, and log a failure of the version. The client's errors and a full queue are none."""
        try:
            return await asking
        except (Overloaded, NotLoaded, PromptTooLong, BadSchema, Unsupported):
            raise
        except Exception as fault:
            self._log.failed(
                Failure(
                    id=call.id,
                    time=call.arrived,
                    task=self._task,
                    version=routed.release.version,
                    route=routed.route,
                    code=failure_code(fault),
                    latency_ms=call.milliseconds,
                )
            )
            raise

    def _error(self, call: _Call, fault: Exception) -> ApiError:
        return call.dialect.in_own_words(api_error(fault, self._task, self._params.timeout_seconds))


class EventStream(Response):
    """A stream of server-sent events. The generator is closed however the stream ends, also by a disconnect."""

    def __init__(self, first: bytes, events: AsyncGenerator[bytes, None], headers: dict[str, str]) -> None:
        # Without x-accel-buffering, proxies such as nginx buffer the events.
        more = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(headers={**headers, **more}, media_type="text/event-stream")
        del self.headers["content-length"]
        self._first = first
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            try:
                async with until_disconnect(scope, receive):
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    await send({"type": "http.response.body", "body": self._first, "more_body": True})
                    async for events in self._events:
                        await send({"type": "http.response.body", "body": events, "more_body": True})
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
            except ClientDisconnected:
                return


def _output(answer: Answer) -> str:
    """The logged output: the answer's text, its tool calls as JSON, or one below the other."""
    calls = [json.dumps(answer.tool_calls)] if answer.tool_calls else []
    return "\n".join([*filter(None, [answer.text]), *calls])
