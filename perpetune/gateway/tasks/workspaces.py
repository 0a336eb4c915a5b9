"""The gateway of several workspaces: their apps over one engine, whose base is loaded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import sqlalchemy
from fastapi import FastAPI

from perpetune.engines.engine import Engine
from perpetune.engines.engine_of_task import EngineOfTask
from perpetune.gateway.tasks.app import create_tasks_app
from perpetune.gateway.tasks.served_task import ServedTask
from perpetune.model.release import ServedBase
from perpetune.params import Params
from perpetune.prediction_log.database import open_log
from perpetune.settings import Settings
from perpetune.workspace import Workspace


class AppOf(Protocol):
    """Makes the app of one workspace (`perpetune.gateway.server.app_of`)."""

    def __call__(
        self,
        workspace: Workspace,
        engine: Engine,
        base: ServedBase,
        log: sqlalchemy.Engine,
        *,
        releases: Path | None = None,
        keys: Sequence[sqlalchemy.Engine] = (),
    ) -> FastAPI: ...


@contextmanager
def tasks_app(
    workspaces: Sequence[Workspace],
    log: sqlalchemy.Engine,
    build_engine: Callable[[Params, Settings], tuple[Engine, ServedBase]],
    app_of: AppOf,
) -> Iterator[FastAPI]:
    """The gateway of these workspaces, the first of which has the engine's settings and the log `log`.

    API keys of that log count for all tasks; those of another workspace's own log for its task only. Raises
    PerpetuneError as `build_engine` and `open_log` do.
    """
    first = workspaces[0]
    engine, base = build_engine(_with_room_for(workspaces), first.settings)
    releases = first.settings.home.absolute() / "releases"  # one folder, which a vLLM elsewhere has mounted
    logs = {first.settings.prediction_log: log}
    with ExitStack() as opened:
        served = []
        for each in workspaces:
            url, serve = each.settings.prediction_log, each.params.serve
            if url not in logs:
                logs[url] = open_log(url)
                opened.callback(logs[url].dispose)
            app = app_of(
                each,
                EngineOfTask(engine, each.params.task.name, serve.max_queue),
                base,
                logs[url],
                releases=releases,
                keys=() if logs[url] is log else (log,),
            )
            served.append(ServedTask(each.params.task.name, app, serve, logs[url]))
        yield create_tasks_app(served, engine)


def _with_room_for(workspaces: Sequence[Workspace]) -> Params:
    """The settings of the first, with a queue for the requests of all."""
    params = workspaces[0].params
    room = sum(each.params.serve.max_queue for each in workspaces)
    return params.model_copy(update={"serve": params.serve.model_copy(update={"max_queue": room})})
