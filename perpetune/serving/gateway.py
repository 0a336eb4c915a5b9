"""The gateway: OpenAI's chat API over one task's champion; every answer is logged and can be judged afterwards."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import sqlalchemy
from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from perpetune.answer import Answer, PromptTooLong
from perpetune.generation import Generation
from perpetune.params import LogParams, ServeParams
from perpetune.records import Feedback, Prediction, with_instruction
from perpetune.serving.body_limit import BodyLimit
from perpetune.serving.chat import ChatRequest, Question, Reply, model_name, read_question, unknown_model
from perpetune.serving.engine import Engine, NotLoaded, Overloaded
from perpetune.serving.follow import Follower, NothingServed, ReleaseSource, UnknownVersion
from perpetune.serving.log import UnknownRequest
from perpetune.serving.metrics import Measured, Metrics
from perpetune.serving.problems import Problem, answer_in_openai_shape
from perpetune.serving.recorder import LogUnavailable, NotStored, Recorder

# JSON may write a character as a pair of \uXXXX escapes; the rest is what stands around the messages.
_BYTES_A_CHAR = 12
_BYTES_AROUND = 64 * 1024


class FeedbackRequest(BaseModel):
    """What is said of an answer: at least one of label, score and comment."""

    request_id: str
    label: Annotated[str, Field(min_length=1)] | None = None
    score: Annotated[float, Field(allow_inf_nan=False)] | None = None
    comment: Annotated[str, Field(min_length=1)] | None = None


def create_app(
    task: str,
    *,
    engine: Engine,
    source: ReleaseSource,
    log: sqlalchemy.Engine,
    params: ServeParams,
    max_new_tokens: int,
    log_params: LogParams | None = None,
    spool: Path | None = None,
) -> FastAPI:
    """The gateway of one task. The app starts and closes the engine; the log stays the caller's to dispose of.

    `max_new_tokens` is both what an answer may have where the request does not say, and the most it may ask for.
    Rows wait for the log in the folder `spool`, without one in memory.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        gateway.recorder.start()
        following = asyncio.create_task(gateway.follower.run())
        yield
        following.cancel()
        await asyncio.wait([following])
        await gateway.recorder.close()
        await engine.close()

    app = FastAPI(title=f"perpetune: {task}", lifespan=lifespan)
    gateway = _Gateway(
        task=task,
        engine=engine,
        follower=Follower(source, engine, metrics, params.poll_seconds),
        recorder=Recorder(log, metrics, task=task, params=log_params, spool=spool),
        metrics=metrics,
        params=params,
        max_new_tokens=max_new_tokens,
    )
    app.state.recorder = gateway.recorder
    app.add_middleware(BodyLimit, max_bytes=_BYTES_A_CHAR * params.max_request_chars + _BYTES_AROUND)
    app.add_middleware(Measured, metrics=metrics)
    answer_in_openai_shape(app)
    app.post("/v1/chat/completions")(gateway.complete)
    app.get("/v1/models")(gateway.models)
    app.get("/v1/models/{model}")(gateway.model)
    app.post("/v1/feedback")(gateway.feedback)
    app.post("/v1/release/check")(gateway.check_release)
    app.get("/healthz")(gateway.health)
    app.get("/readyz")(gateway.ready)
    app.get("/metrics")(gateway.metrics_text)
    return app


@dataclass(frozen=True)
class _Gateway:
    task: str
    engine: Engine
    follower: Follower
    recorder: Recorder
    metrics: Metrics
    params: ServeParams
    max_new_tokens: int

    async def complete(self, request: ChatRequest) -> Response:
        """Answer a conversation. The id of the response is the request id that feedback names."""
        arrived = datetime.now(UTC)
        question = read_question(
            request, self.task, max_chars=self.params.max_request_chars, max_tokens=self.max_new_tokens
        )
        version, answer = await self._answer(question)
        reply = Reply(f"chatcmpl-{uuid.uuid4().hex}", int(arrived.timestamp()), self.task, version, answer)
        await self.recorder.record(self._prediction(reply, question, arrived, request.user))
        self.metrics.tokens.labels("prompt").inc(answer.prompt_tokens)
        self.metrics.tokens.labels("completion").inc(answer.completion_tokens)
        headers = {"x-request-id": reply.id}
        if not request.stream:
            return JSONResponse(reply.body(), headers=headers)
        include_usage = request.stream_options is not None and request.stream_options.include_usage
        events = reply.events(include_usage=include_usage)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def models(self) -> dict[str, object]:
        """The task, and each version that a request may pin."""
        return {"object": "list", "data": [_model(name) for name in self._model_names()]}

    async def model(self, model: str) -> dict[str, object]:
        if model not in self._model_names():
            raise unknown_model(model)
        return _model(model)

    async def feedback(self, request: FeedbackRequest) -> dict[str, str]:
        """Say of an answer what would have been right, how good it was, or anything else."""
        said = Feedback(time=datetime.now(UTC), **request.model_dump())
        if said.label is None and said.score is None and said.comment is None:
            raise Problem(400, "Say at least one of label, score and comment.", code="empty_feedback")
        try:
            await self.recorder.feedback(said)
        except NotStored:
            message = f"Request {said.request_id!r} is not among the share of requests that is stored."
            raise Problem(404, message, param="request_id", code="not_stored") from None
        except UnknownRequest:
            message = f"No request {said.request_id!r} was answered here."
            raise Problem(404, message, param="request_id", code="unknown_request") from None
        except LogUnavailable:
            message = "The feedback could not be stored; send it again."
            raise Problem(503, message, code="log_unavailable", retry_after=5) from None
        self.metrics.feedback.inc()
        return {"request_id": said.request_id, "status": "recorded"}

    async def check_release(self) -> dict[str, object]:
        """Follow the alias at once. `release` says what is wrong where the champion does not serve now, else "ok"."""
        state = await self.follower.refresh_now()
        return {
            "serving": state.serving,
            "champion": state.champion,
            "release": state.release_trouble or state.registry_trouble or "ok",
        }

    async def health(self) -> dict[str, str]:
        return {"status": "ok"}

    async def ready(self) -> JSONResponse:
        """200 while a release serves, also where the registry or the log are in trouble: that is said beside it."""
        state = self.follower.state
        body = {
            "ready": state.serving is not None,
            "task": self.task,
            "serving": state.serving,
            "champion": state.champion,
            "release": state.release_trouble or ("ok" if state.serving else "no release is loaded yet"),
            "registry": state.registry_trouble or "ok",
            "log": str(self.recorder.state),
        }
        return JSONResponse(body, 200 if state.serving is not None else 503)

    async def metrics_text(self) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _answer(self, question: Question) -> tuple[str, Answer]:
        """The version that answered, and its answer. Raises Problem."""
        try:
            with self.follower.using(question.version) as routed:
                release = routed.release
                messages = with_instruction(release.instruction, question.messages)
                async with asyncio.timeout(self.params.timeout_seconds):
                    generation = Generation(max_tokens=question.max_tokens)
                    answers = await self.engine.answer(release.version, messages, generation)
                return release.version, answers[0]
        except NothingServed:
            raise Problem(503, "No release is loaded yet.", code="not_ready", retry_after=2) from None
        except (UnknownVersion, NotLoaded) as fault:
            raise unknown_model(model_name(self.task, str(fault))) from None
        except PromptTooLong as fault:
            raise Problem(400, str(fault), param="messages", code="context_length_exceeded") from None
        except Overloaded as fault:
            message = f"Too many requests are waiting; try again in {fault.retry_after:g} s."
            raise Problem(429, message, code="overloaded", retry_after=fault.retry_after) from None
        except TimeoutError:
            message = f"There was no answer within {self.params.timeout_seconds:g} s."
            raise Problem(504, message, code="timeout") from None

    def _prediction(self, reply: Reply, question: Question, arrived: datetime, user: str | None) -> Prediction:
        answer = reply.answer
        return Prediction(
            id=reply.id,
            time=arrived,
            task=self.task,
            version=reply.version,
            messages=question.messages,
            input=question.input,
            output=answer.text,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            latency_ms=(datetime.now(UTC) - arrived).total_seconds() * 1000,
            confidence=None if answer.confidence is None else min(1.0, max(0.0, answer.confidence)),
            group=user or None,
        )

    def _model_names(self) -> list[str]:
        return [self.task, *(model_name(self.task, version) for version in self.follower.versions)]


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "perpetune"}
