"""The gateway of several tasks: one app for each, which does not know of the others, behind one that finds the right one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from perpetune.engines.engine import Engine
from perpetune.gateway.api.errors import ApiError, add_error_handlers
from perpetune.gateway.middleware.access import secret_of
from perpetune.gateway.middleware.draining import DrainingMiddleware
from perpetune.gateway.middleware.head_method import HeadMethodMiddleware
from perpetune.gateway.middleware.request_id import RequestIdMiddleware
from perpetune.gateway.tasks.dispatch import DispatchMiddleware
from perpetune.gateway.tasks.metrics_of_tasks import text_of
from perpetune.gateway.tasks.served_task import ServedTask, ask
from perpetune.gateway.telemetry.metrics import Metrics, MetricsMiddleware


def create_tasks_app(tasks: Sequence[ServedTask], engine: Engine) -> FastAPI:
    """The gateway of these tasks, the first of which answers what is for none. The app closes the engine, last of all.

    The apps of the tasks have engines over `engine` (see `perpetune.engines.engine_of_task`).
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            async with AsyncExitStack() as running:
                for task in tasks:
                    await running.enter_async_context(task.app.router.lifespan_context(task.app))
                yield
        finally:
            await engine.close()

    app = FastAPI(
        title="perpetune", lifespan=lifespan, redirect_slashes=False, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.follower = _Followers(tasks)
    gateway = _Gateway(tasks, Metrics())
    app.get("/v1/models")(gateway.models)
    app.get("/healthz")(gateway.health)
    app.get("/readyz")(gateway.ready)
    app.get("/metrics")(gateway.metrics_text)
    app.router.default = _refuse
    add_error_handlers(app)
    origins = sorted({origin for task in tasks for origin in task.params.cors_origins})
    if origins:  # whether a task takes requests of a page is for the task to say
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("*",),
            expose_headers=("x-request-id", "retry-after"),
        )
    app.add_middleware(MetricsMiddleware, metrics=gateway.metrics)
    app.add_middleware(DispatchMiddleware, tasks=tasks)
    app.add_middleware(DrainingMiddleware)
    app.add_middleware(RequestIdMiddleware)
    app.add_middleware(HeadMethodMiddleware)
    return app


@dataclass(frozen=True)
class _Followers:
    """What is loaded, as the follower of one task says it."""

    tasks: Sequence[ServedTask]

    @property
    def versions(self) -> tuple[str, ...]:
        return tuple(f"{task.name}@{version}" for task in self.tasks for version in task.follower.versions)


@dataclass(frozen=True)
class _Gateway:
    """What is about all tasks. `metrics` are of the requests that were for none."""

    tasks: Sequence[ServedTask]
    metrics: Metrics

    async def models(self, request: Request) -> Response:
        """The models of all tasks that the caller's key is for."""
        # Only those, because a task would count a key that is not for it as one that was tried on it.
        admitting = [task for task in self.tasks if task.admits(secret_of(request.scope))]
        replies = [await ask(task, request.scope) for task in admitting or self.tasks[:1]]
        lists = [json.loads(reply.body)["data"] for reply in replies if reply.status == 200]
        if not lists:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in replies[0].headers}
            return Response(replies[0].body, replies[0].status, headers)
        return JSONResponse({"object": "list", "data": [model for models in lists for model in models]})

    async def health(self) -> dict[str, str]:
        return {"status": "ok"}

    async def ready(self, request: Request) -> JSONResponse:
        """200 once a task is served, and each of the others is too or has an error.

        So a new gateway gets no requests while it still loads, and one task that cannot be served does not take the
        others from the clients.
        """
        states = {task.name: await self._state(task, request.scope) for task in self.tasks}
        served = [state["ready"] for state in states.values()]
        ready = any(served) and not any(_still_loads(task) for task in self.tasks)
        body = {"ready": ready, "workspace": states[self.tasks[0].name]["workspace"], "tasks": states}
        return JSONResponse(body, 200 if ready else 503)

    async def _state(self, task: ServedTask, scope: Scope) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads((await ask(task, scope)).body)
        return found

    async def metrics_text(self) -> Response:
        own = {task.name: task.metrics for task in self.tasks}
        text = await asyncio.to_thread(text_of, own, self.metrics)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _still_loads(task: ServedTask) -> bool:
    state = task.follower.state
    return state.serving is None and state.release_error is None and state.registry_error is None


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Raises the refusal of the dispatch."""
    unknown = ApiError(404, f"There is no {scope['method']} {scope['path']}.", code="unknown_url")
    raise scope.get("refusal", unknown)
