"""The gateway: OpenAI's chat API in front of a task's champion, with a prediction log and feedback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal

import sqlalchemy
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.telemetry import TelemetryConfig
from pydantic import BaseModel
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from perpetune.engines.engine import Engine
from perpetune.gateway.api import embeddings
from perpetune.gateway.api import feedback as feedback_api
from perpetune.gateway.api.approval_routes import Approvals, add_approval_paths
from perpetune.gateway.api.chat.chat_request import model_name, unknown_model
from perpetune.gateway.api.chat.completions import Completions
from perpetune.gateway.api.dialects.responses import PATH as PATH_OF_RESPONSES
from perpetune.gateway.api.dialects.responses import RESPONSES
from perpetune.gateway.api.dialects.text_completions import PATH as PATH_OF_TEXTS
from perpetune.gateway.api.dialects.text_completions import TextCompletions
from perpetune.gateway.api.docs_page import add_docs_page
from perpetune.gateway.api.errors import ErrorReply, add_error_handlers
from perpetune.gateway.api.feedback import FeedbackApi
from perpetune.gateway.api.openapi import PATH_OF_COMPLETIONS, set_openapi
from perpetune.gateway.api.release_routes import Identity, add_release_paths
from perpetune.gateway.api.replay_routes import add_replay_path
from perpetune.gateway.middleware.access import add_middlewares
from perpetune.gateway.middleware.direct import DirectMiddleware
from perpetune.gateway.middleware.peer import user_of
from perpetune.gateway.recording.embedder import Embedder
from perpetune.gateway.recording.recorder import Recorder
from perpetune.gateway.releases.follower import Follower, NoReleaseLoaded, ReleaseSource
from perpetune.gateway.telemetry.metrics import Metrics
from perpetune.gateway.telemetry.observed_engine import ObservedEngine
from perpetune.gateway.telemetry.tracing import Tracing
from perpetune.params import LogParams, ReleaseParams, ServeParams
from perpetune.prediction_log.api_keys import KeyringCache
from perpetune.prediction_log.labels.rule import NO_POLICY, LabelPolicy

# JSON may escape a character as two \uXXXX; the rest is for the fields around the messages.
_BYTES_A_CHAR = 12
_BYTES_AROUND = 64 * 1024

NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
"""Of the framework, which looks for each request whether somebody configured it. `perpetune.gateway.telemetry` traces."""

_NOT_READY: dict[int | str, dict[str, Any]] = {
    503: {"model": dict[str, object], "description": "No release is loaded: the same body."}
}
_ERRORS_BESIDE_TEXT: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "Any error",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorReply"}}},
    }
}


class ServedModel(BaseModel):
    """A name that requests may use as `model`. `created` is a Unix time; 0 if unknown."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: Literal["perpetune"] = "perpetune"


class ServedModels(BaseModel):
    object: Literal["list"] = "list"
    data: list[ServedModel]


def create_app(
    task: str,
    *,
    engine: Engine,
    source: ReleaseSource,
    log: sqlalchemy.Engine,
    params: ServeParams,
    max_new_tokens: int,
    release_params: ReleaseParams | None = None,
    log_params: LogParams | None = None,
    spool: Path | None = None,
    labels: LabelPolicy = NO_POLICY,
    workspace_id: str | None = None,
    embedder: Embedder | None = None,
    approvals: Approvals | None = None,
    keys: Sequence[sqlalchemy.Engine] = (),
) -> FastAPI:
    """The gateway of one task. The app closes the engine; the caller disposes of the log.

    `max_new_tokens` is the default and the maximum of a request's max_tokens. Rows for the log are spooled in the
    folder `spool`, or in memory without one. `labels` says which labels feedback may have. A release that carries
    another `workspace_id` is refused. `embedder` embeds requests in the background. Without
    `approvals` there are no paths of approvals. `keys` are other logs whose API keys count here too.
    """
    metrics, keyholder, tracing = Metrics(), KeyringCache(log, *keys), Tracing()
    engine = ObservedEngine(engine, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await keyholder.start()
        gateway.recorder.start()
        if embedder:
            embedder.start()
        following = asyncio.create_task(gateway.follower.run())
        yield
        following.cancel()
        await asyncio.wait([following])
        await completions.close()
        if embedder:
            await asyncio.to_thread(embedder.close)
        await gateway.recorder.close()
        await engine.close()
        await keyholder.close()
        await asyncio.to_thread(tracing.close)

    # Without redirects of /path/ to /path: they would lead to whatever host the request's Host header names.
    app = FastAPI(
        title=f"perpetune: {task}",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        telemetry=NO_TELEMETRY,
    )
    follower = Follower(source, engine, metrics, params.poll_seconds, release_params, max_new_tokens)
    recorder = Recorder(log, metrics, task=task, params=log_params, spool=spool)
    gateway = _Gateway(task=task, workspace_id=workspace_id, follower=follower, recorder=recorder, metrics=metrics)
    completions = Completions(
        task,
        engine=engine,
        follower=follower,
        log=recorder,
        metrics=metrics,
        params=params,
        max_new_tokens=max_new_tokens,
    )
    app.state.recorder, app.state.follower = recorder, follower
    app.state.metrics, app.state.keyholder = metrics, keyholder
    max_bytes = max_body_bytes(params)
    chat = _Named(PATH_OF_COMPLETIONS, completions.respond, methods=["POST"])
    app.add_middleware(DirectMiddleware, route=chat)
    add_middlewares(app, params, task=task, keyholder=keyholder, metrics=metrics, tracing=tracing, max_bytes=max_bytes)
    add_error_handlers(app)
    app.router.routes.append(chat)  # for other methods, and to say which paths there are
    feedback = FeedbackApi(recorder, lambda: follower.releases, labels, metrics)
    app.router.routes.append(_Named(feedback_api.PATH, feedback.respond, methods=["POST"]))
    texts = TextCompletions(completions.respond)
    app.router.routes.append(
        _Named(PATH_OF_RESPONSES, partial(completions.respond, dialect=RESPONSES), methods=["POST"])
    )
    app.router.routes.append(_Named(PATH_OF_TEXTS, texts.respond, methods=["POST"]))
    app.router.routes.append(_Named(embeddings.PATH, embeddings.refuse, methods=["GET", "POST"]))
    app.get("/v1/models", responses=_errors())(gateway.models)
    app.get("/v1/models/{model}", responses=_errors(404))(gateway.model)
    identity = Identity(task, workspace_id)
    add_release_paths(app, follower, identity, params.cors_origins, _errors(400, 403, 409), log)
    add_replay_path(app, follower, engine, identity, params.cors_origins, max_new_tokens, _errors(400, 403, 404, 409))
    if approvals:
        allowed = _errors(400, 401, 403, 409)
        add_approval_paths(app, task, approvals, partial(_identity, params), params.cors_origins, allowed, log)
    app.get("/healthz", responses=_errors())(gateway.health)
    app.get("/readyz", response_model=dict[str, object], responses=_NOT_READY | _errors())(gateway.ready)
    app.get("/metrics", response_class=PlainTextResponse, responses=_ERRORS_BESIDE_TEXT)(gateway.metrics_text)
    add_docs_page(app)
    set_openapi(app)
    return app


def max_body_bytes(params: ServeParams) -> int:
    """The largest body of a request with a prompt."""
    return _BYTES_A_CHAR * params.max_request_chars + _BYTES_AROUND


class _Named(Route):
    """A route that bypasses FastAPI's request parsing and is visible to middleware like FastAPI's routes."""

    def __init__(self, path: str, respond: Callable[[Request], Awaitable[Response]], methods: list[str]) -> None:
        # As an app: around a function Starlette puts another handler of errors, and the app has one.
        super().__init__(path, _Endpoint(respond), methods=methods)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        return match, {**child_scope, "route": self}


@dataclass(frozen=True)
class _Endpoint:
    respond: Callable[[Request], Awaitable[Response]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.respond(Request(scope, receive, send))
        await response(scope, receive, send)


@dataclass(frozen=True)
class _Gateway:
    task: str
    workspace_id: str | None
    follower: Follower
    recorder: Recorder
    metrics: Metrics

    async def models(self) -> ServedModels:
        """List the task, and each version that a request may pin."""
        return ServedModels(data=[self._model(name) for name in self._model_names()])

    async def model(self, model: str) -> ServedModel:
        """Get one model."""
        if model not in self._model_names():
            raise unknown_model(model)
        return self._model(model)

    async def health(self) -> dict[str, str]:
        return {"status": "ok"}

    async def ready(self) -> JSONResponse:
        """200 while a release is served. Errors of the registry and of the log are reported but do not change it."""
        state = self.follower.state
        body = {
            "ready": state.serving is not None,
            "task": self.task,
            "workspace": self.workspace_id,
            "serving": state.serving,
            "champion": state.champion,
            "trial": state.trial,
            "release": state.release_error or ("ok" if state.serving else "no release is loaded yet"),
            "registry": state.registry_error or "ok",
            "log": str(self.recorder.state),
        }
        return JSONResponse(body, 200 if state.serving is not None else 503)

    async def metrics_text(self) -> Response:
        text = await asyncio.to_thread(self.metrics.text)  # which takes milliseconds, and more with each worker
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    def _model_names(self) -> list[str]:
        return [self.task, *(model_name(self.task, version) for version in self.follower.versions)]

    def _model(self, name: str) -> ServedModel:
        try:
            with self.follower.using(name.partition("@")[2] or None) as routed:
                return ServedModel(id=name, created=_adapter_time(routed.release.adapter))
        except NoReleaseLoaded:
            return ServedModel(id=name)


def _identity(params: ServeParams, request: Request) -> str | None:
    """Who sends the request: a user whom a trusted proxy names, else the API key. An address is no identity."""
    user = user_of(request.scope, params.identity_header, [ip_network(each) for each in params.trusted_proxies])
    caller = str(request.scope.get("caller", ""))
    return f"user {user}" if user else caller if caller.startswith("key ") else None


def _adapter_time(adapter: Path) -> int:
    """When the adapter was downloaded, as Unix time; 0 if unknown."""
    try:
        return int(adapter.stat().st_mtime)
    except OSError:
        return 0


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these error statuses and for any other."""
    responses: dict[int | str, dict[str, Any]] = {status: {"model": ErrorReply} for status in statuses}
    return {**responses, "default": {"model": ErrorReply, "description": "Any other error"}}
