"""A gateway of two tasks, over one fake engine, each with a log and a registry of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy
from fastapi import FastAPI
from gateways import BASE, PARAMS, running_app

from perpetune.engines.engine import Engine
from perpetune.engines.engine_of_task import EngineOfTask
from perpetune.gateway.api.approval_routes import Approvals
from perpetune.gateway.app import create_app
from perpetune.gateway.tasks.app import create_tasks_app
from perpetune.gateway.tasks.served_task import ServedTask
from perpetune.model.release import Release
from perpetune.params import ServeParams
from perpetune.prediction_log.database import open_log
from perpetune.testing.fake_engine import FakeEngine
from perpetune.testing.fake_registry import FakeSource

TASKS = {"reviews": ("good", "bad"), "intents": None}


@dataclass(frozen=True)
class Tasks:
    url: str
    app: FastAPI
    engine: Engine
    tasks: dict[str, ServedTask]
    sources: dict[str, FakeSource]

    def get(self, path: str, key: str | None = None, **more: Any) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers(key), timeout=10, **more)

    def post(self, path: str, body: object, key: str | None = None) -> httpx.Response:
        return httpx.post(
            self.url + path,
            content=json.dumps(body),
            headers={"content-type": "application/json", **headers(key)},
            timeout=10,
        )

    def ask(self, model: str, text: str = "hello", key: str | None = None, **more: object) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        return self.post("/v1/chat/completions", body, key)

    def log(self, task: str) -> sqlalchemy.Engine:
        """The log of a task, once what was answered so far is in it."""
        self.tasks[task].app.state.recorder.flush()
        return self.tasks[task].log


def headers(key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def release_of(folder: Path, task: str, version: str) -> Release:
    adapter = folder / f"{task}-{version}"
    adapter.mkdir(exist_ok=True, parents=True)
    (adapter / "adapter_model.safetensors").write_text("the same in all")
    return Release(task, version, adapter, f"Judge {task}.", TASKS.get(task), BASE)


@contextmanager
def _tasks_gateway(
    folder: Path,
    *,
    engine: Engine | None = None,
    shared_log: bool = False,
    params: dict[str, ServeParams] | None = None,
    approvals: dict[str, Approvals] | None = None,
    sources: dict[str, FakeSource] | None = None,
    ready: bool = True,
) -> Iterator[Tasks]:
    """Versions 1 and 2 of each task, champion 1. `shared_log`: one database, as in production."""
    engine = engine or FakeEngine()
    with ExitStack() as stack:
        logs: dict[str, sqlalchemy.Engine] = {}
        served: dict[str, ServedTask] = {}
        found = sources or {
            task: FakeSource([release_of(folder, task, version) for version in ("1", "2")], champion="1")
            for task in TASKS
        }
        for task in found:
            name = "all" if shared_log else task
            if name not in logs:
                logs[name] = open_log(f"sqlite:///{folder / f'{name}.db'}")
                stack.callback(logs[name].dispose)
            mine = (params or {}).get(task, PARAMS)
            first = next(iter(logs.values()))
            app = create_app(
                task,
                engine=EngineOfTask(engine, task, mine.max_queue),
                source=found[task],
                log=logs[name],
                params=mine,
                max_new_tokens=16,
                spool=folder / f"spool-{task}",
                workspace_id="the-stack",
                approvals=(approvals or {}).get(task),
                keys=() if logs[name] is first else (first,),
            )
            served[task] = ServedTask(task, app, mine, logs[name])
        app = create_tasks_app([*served.values()], engine)
        url = stack.enter_context(running_app(app, PARAMS))
        gateway = Tasks(url, app, engine, served, found)
        deadline = time.monotonic() + 10
        while ready and gateway.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline, gateway.get("/readyz").text
            time.sleep(0.02)
        yield gateway


@pytest.fixture
def start_tasks(tmp_path: Path) -> Iterator[Callable[..., Tasks]]:
    with ExitStack() as stack:
        yield lambda **more: stack.enter_context(_tasks_gateway(tmp_path, **more))


@pytest.fixture(scope="module")
def standing_tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tasks]:
    """One gateway for what changes no release."""
    with _tasks_gateway(tmp_path_factory.mktemp("tasks")) as gateway:
        yield gateway


@pytest.fixture
def tasks_gateway() -> Callable[..., Any]:
    """A context manager: for what happens when it stops."""
    return _tasks_gateway
