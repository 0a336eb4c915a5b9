"""Chat completions: from a request's bytes to an answer that is logged, whole or as it is written."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from perpetune.classifiers.temperature_scaling import scale_temperature
from perpetune.engines.engine import Engine, EngineDown, NotLoaded, Overloaded, Unsupported
from perpetune.gateway.api.chat_reply import DONE, Reply, event
from perpetune.gateway.api.chat_request import ValidRequest, model_name, parse_request, unknown_model, validate_request
from perpetune.gateway.api.disconnect import ClientDisconnected, until_disconnect
from perpetune.gateway.api.errors import ApiError
from perpetune.gateway.api.output_constraint import constrained
from perpetune.gateway.releases.follower import Follower, NoReleaseLoaded, UnknownVersion
from perpetune.gateway.releases.shadows import Shadows
from perpetune.gateway.telemetry import tracing
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.generation.answer import Answer, PromptTooLong
from perpetune.generation.parameters import BadSchema, Delta, OnDelta
from perpetune.model.release import RoutedRelease
from perpetune.params import ServeParams
from perpetune.records import Failure, Prediction, Shadow

logger = logging.getLogger(__name__)

_CLIENT_GONE = 499  # nginx's status for it; nobody reads the reply
_INTERNAL_ERROR = ApiError(500, "The server failed on this request.", code="internal_error")


class AnswerLog(Protocol):
    """Where answers and failures go; `failed` and `shadow` return at once and never raise."""

    async def record(self, prediction: Prediction) -> None: ...

    def failed(self, failure: Failure) -> None: ...

    def shadow(self, said: Shadow) -> None: ...


@dataclass
class _Call:
    """One request under way: its id, when it came, and how long the engine took of it."""

    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    arrived: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.perf_counter)
    engine_seconds: float = 0.0

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
        self._read, self._written = metrics.tokens.labels("prompt"), metrics.tokens.labels("completion")
        self._params = params
        self._max_new_tokens = max_new_tokens
        self._shadows = Shadows(engine, follower, log, metrics, most=params.max_batch, timeout=params.timeout_seconds)

    async def respond(self, request: Request) -> Response:
        """The id of the response is the request id that feedback names."""
        call = _Call()
        try:
            return await self._respond(call, request)
        except ClientDisconnected:
            return Response(status_code=_CLIENT_GONE)
        except Exception as fault:  # the framework's own reply to a fault would lack the request's id
            return _as_api_error(fault).response(call.headers())

    async def close(self) -> None:
        """Give up the shadows' answers under way."""
        await self._shadows.close()

    async def _respond(self, call: _Call, request: Request) -> Response:
        if not _is_json(request.headers.get("content-type", "")):
            raise ApiError(400, "The body must come as content-type: application/json.", code="invalid_content_type")
        question = validate_request(
            parse_request(await request.body()),
            self._task,
            max_chars=self._params.max_request_chars,
            max_tokens=self._max_new_tokens,
        )
        key = question.user or request.headers.get("x-session-id") or call.id
        if question.stream:
            events = self._stream(call, question, key)
            try:
                async with until_disconnect(request.receive):
                    first = await anext(events)
            except BaseException:
                await events.aclose()
                raise
            return EventStream(first, events, call.headers())
        return await self._whole(call, question, key, request.receive)

    async def _whole(self, call: _Call, question: ValidRequest, key: str, receive: Receive) -> Response:
        with self._translated(), self._follower.using(question.version, key) as routed:
            with self._failures_noted(call, routed):
                async with until_disconnect(receive):
                    answers = await self._ask(call, routed, question)
            reply = self._reply(call, routed, question)
            await self._keep(call, routed, question, answers)
        headers = {**call.headers(), "server-timing": call.timing()}
        return Response(reply.body(answers), headers=headers, media_type="application/json")

    async def _stream(self, call: _Call, question: ValidRequest, key: str) -> AsyncGenerator[bytes, None]:
        """The events of an answer. Raises Problem before the first; what fails later is an event itself."""
        with self._translated(), self._follower.using(question.version, key) as routed:
            deltas: asyncio.Queue[Delta | None] = asyncio.Queue()
            asking = asyncio.create_task(self._ask(call, routed, question, deltas.put_nowait))
            asking.add_done_callback(lambda _: deltas.put_nowait(None))
            reply = self._reply(call, routed, question)
            try:
                delta = await deltas.get()
                if delta is None and asking.exception():
                    with self._failures_noted(call, routed):
                        await asking
                yield reply.beginning(question.generation.n)
                while delta is not None:
                    yield reply.piece(delta)
                    delta = await deltas.get()
                try:
                    with self._translated(), self._failures_noted(call, routed):
                        answers = await asking
                except Exception as fault:  # the status is out: all that can be told now is an event
                    yield event(_as_api_error(fault).body()) + DONE
                    return
                await self._keep(call, routed, question, answers)
                yield reply.end(answers)
            finally:
                asking.cancel()
                await asyncio.wait([asking])  # the release stays loaded for as long as the engine works with it

    async def _ask(
        self, call: _Call, routed: RoutedRelease, question: ValidRequest, on_delta: OnDelta | None = None
    ) -> tuple[Answer, ...]:
        release = routed.release
        messages = release.conversation(question.messages)
        generation = constrained(question.generation, release).capped(release.max_new_tokens)
        began = time.perf_counter()
        async with asyncio.timeout(self._params.timeout_seconds):
            if on_delta is None:
                answers = await self._engine.answer(release.version, messages, generation)
            else:
                answers = await self._engine.answer(release.version, messages, generation, on_delta)
        call.engine_seconds = time.perf_counter() - began
        return tuple(scale_temperature(answer, release.evaluated.temperature) for answer in answers)

    async def _keep(
        self, call: _Call, routed: RoutedRelease, question: ValidRequest, answers: tuple[Answer, ...]
    ) -> None:
        """Log the first answer, count them all, and have the shadow answer too."""
        first, version = answers[0], routed.release.version
        written = sum(answer.completion_tokens for answer in answers)
        prediction = Prediction(
            id=call.id,
            time=call.arrived,
            task=self._task,
            version=version,
            messages=question.messages,
            input=question.input,
            output=_output(first),
            prompt_tokens=first.prompt_tokens,
            completion_tokens=written,
            latency_ms=call.milliseconds,
            confidence=None if first.confidence is None else min(1.0, max(0.0, first.confidence)),
            group=question.user,
            route=routed.route,
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
        self._metrics.answered(version, routed.route, answers)
        self._read.inc(first.prompt_tokens)
        self._written.inc(written)
        if routed.shadow:
            self._shadows.ask(routed.shadow, call.id, question.messages, question.generation)

    def _reply(self, call: _Call, routed: RoutedRelease, question: ValidRequest) -> Reply:
        return Reply(
            id=call.id,
            created=int(call.arrived.timestamp()),
            task=self._task,
            version=routed.release.version,
            route=routed.route,
            with_logprobs=question.generation.top_logprobs is not None,
            include_usage=question.include_usage,
        )

    @contextmanager
    def _failures_noted(self, call: _Call, routed: RoutedRelease) -> Iterator[None]:
        """Record what the version is to blame for: not a client's mistake, nor a full queue."""
        try:
            yield
        except (Overloaded, NotLoaded, PromptTooLong, BadSchema, Unsupported, ClientDisconnected):
            raise
        except Exception as fault:
            self._log.failed(
                Failure(
                    id=call.id,
                    time=call.arrived,
                    task=self._task,
                    version=routed.release.version,
                    route=routed.route,
                    code=_code(fault),
                    latency_ms=call.milliseconds,
                )
            )
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the follower and the engine raise into what the client is told."""
        try:
            yield
        except NoReleaseLoaded:
            raise ApiError(503, "No release is loaded yet.", code="not_ready", retry_after=2) from None
        except (UnknownVersion, NotLoaded) as fault:
            raise unknown_model(model_name(self._task, str(fault))) from None
        except PromptTooLong as fault:
            raise ApiError(400, str(fault), param="messages", code="context_length_exceeded") from None
        except BadSchema as fault:
            raise ApiError(400, f"response_format: {fault}", param="response_format", code="invalid_value") from None
        except Unsupported as fault:
            message = f"{fault.param}: {fault}"
            raise ApiError(400, message, param=fault.param, code="unsupported_parameter") from None
        except Overloaded as fault:
            message = f"Too many requests are waiting; try again in {fault.retry_after:g} s."
            raise ApiError(429, message, code="overloaded", retry_after=fault.retry_after) from None
        except EngineDown:
            message = "The engine does not answer; try again in 5 s."
            raise ApiError(503, message, code=_ENGINE_DOWN, retry_after=5) from None
        except TimeoutError:
            message = f"There was no answer within {self._params.timeout_seconds:g} s."
            raise ApiError(504, message, code=_TIMEOUT) from None


class EventStream(Response):
    """Server-sent events as they come. Their source is closed whatever ends the stream, a client that goes too."""

    def __init__(self, first: bytes, events: AsyncGenerator[bytes, None], headers: dict[str, str]) -> None:
        # Without x-accel-buffering a proxy like nginx would hold the events back.
        more = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(headers={**headers, **more}, media_type="text/event-stream")
        del self.headers["content-length"]
        self._first = first
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            try:
                async with until_disconnect(receive):
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    await send({"type": "http.response.body", "body": self._first, "more_body": True})
                    async for events in self._events:
                        await send({"type": "http.response.body", "body": events, "more_body": True})
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
            except ClientDisconnected:
                return


_ENGINE_DOWN = "engine_unavailable"
_TIMEOUT = "timeout"


def _code(fault: Exception) -> str:
    if isinstance(fault, EngineDown):
        return _ENGINE_DOWN
    return _TIMEOUT if isinstance(fault, TimeoutError) else "internal_error"


def _as_api_error(fault: Exception) -> ApiError:
    if isinstance(fault, ApiError):
        return fault
    logger.error("a request failed", exc_info=fault)
    return _INTERNAL_ERROR


def _output(answer: Answer) -> str:
    """What is logged as the answer: its text, or the tools it called instead."""
    return answer.text if answer.text or not answer.tool_calls else json.dumps(answer.tool_calls)


def _is_json(content_type: str) -> bool:
    # A page of another site can have a browser send text/plain without asking, and this not.
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
