"""A real gateway on a free port of this machine, over a fake model and a registry in memory."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import pytest
import sqlalchemy
import uvicorn
from fastapi import FastAPI

from perpetune.engines.engine import Engine
from perpetune.gateway.app import create_app
from perpetune.gateway.server import listen, server_config
from perpetune.model.release import Release
from perpetune.params import BaseParams, ServeParams
from perpetune.prediction_log.database import open_log
from perpetune.records import Message, Prediction
from perpetune.testing.fake_engine import FakeEngine
from perpetune.testing.fake_registry import FakeSource

BASE = BaseParams(model="path:tiny", revision=None)
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Gateway:
    url: str
    engine: Engine
    source: FakeSource
    app: FastAPI
    database: sqlalchemy.Engine

    @property
    def log(self) -> sqlalchemy.Engine:
        """The log, once what was answered so far is in it."""
        self.app.state.recorder.flush()
        return self.database

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10)

    def post(self, path: str, body: object) -> httpx.Response:
        # In ASCII, so that half a character travels as the escape that a client would send.
        content = json.dumps(body)
        return httpx.post(self.url + path, content=content, headers={"content-type": "application/json"}, timeout=10)

    def ask(self, text: str, **more: object) -> httpx.Response:
        body = {"model": "reviews", "messages": [{"role": "user", "content": text}], **more}
        return self.post("/v1/chat/completions", body)


PARAMS = ServeParams(
    engine="transformers",
    poll_seconds=0.05,
    max_batch=4,
    max_wait_ms=5,
    max_request_chars=1000,
    max_queue=8,
    timeout_seconds=5,
    requests_per_minute=None,
    cors_origins=(),
)


@pytest.fixture
def release(tmp_path: Path) -> Callable[..., Release]:
    return partial(_release, tmp_path)


def _release(folder: Path, version: str, labels: tuple[str, ...] | None = None, base: BaseParams = BASE) -> Release:
    adapter = folder / f"adapter-{version}"
    adapter.mkdir(exist_ok=True)
    (adapter / "adapter_model.safetensors").write_text(version)
    return Release("reviews", version, adapter, "Judge it.", labels, base)


@pytest.fixture
def prediction() -> Callable[..., Prediction]:
    """Number `n` was answered at noon and `n` minutes."""

    def make(number: int, **more: object) -> Prediction:
        text = str(more.pop("input", f"question {number}"))
        values: dict[str, object] = {
            "id": f"chatcmpl-{number}",
            "time": NOON + timedelta(minutes=number),
            "task": "reviews",
            "version": "1",
            "messages": (Message(role="user", content=text),),
            "input": text,
            "output": "good",
            "prompt_tokens": 3,
            "completion_tokens": 1,
            "latency_ms": 12.5,
            "confidence": 0.75,
            **more,
        }
        return Prediction.model_validate(values)

    return make


@pytest.fixture
def log(tmp_path: Path) -> Iterator[sqlalchemy.Engine]:
    log = open_log(f"sqlite:///{tmp_path / 'log' / 'predictions.db'}")
    yield log
    log.dispose()


@pytest.fixture
def start(release: Callable[..., Release], log: sqlalchemy.Engine) -> Iterator[Callable[..., Gateway]]:
    """Start a gateway of versions 1 and 2, champion 1, and wait until it is ready."""
    with ExitStack() as stack:

        def begin(
            engine: Engine | None = None,
            *,
            source: FakeSource | None = None,
            params: ServeParams = PARAMS,
            ready: bool = True,
            max_new_tokens: int = 16,
        ) -> Gateway:
            source = source or FakeSource([release("1"), release("2")], champion="1")
            gateway = stack.enter_context(_gateway(engine or FakeEngine(), source, log, params, max_new_tokens))
            if ready:
                _wait_for(gateway)
            return gateway

        yield begin


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for the requests that it refuses, which leave nothing behind."""
    with gateway_over(FakeEngine(), tmp_path_factory.mktemp("standing")) as gateway:
        yield gateway


@contextmanager
def gateway_over(engine: Engine, folder: Path, version: str = "1", previous: str | None = None) -> Iterator[Gateway]:
    """A gateway of a champion and the one before it, when it is ready."""
    log = open_log(f"sqlite:///{folder / 'predictions.db'}")
    releases = [_release(folder, each) for each in (version, previous) if each]
    source = FakeSource(releases, champion=version, previous=previous)
    with _gateway(engine, source, log, PARAMS) as gateway:
        _wait_for(gateway)
        yield gateway
    log.dispose()


@contextmanager
def _gateway(
    engine: Engine, source: FakeSource, log: sqlalchemy.Engine, params: ServeParams, max_new_tokens: int = 16
) -> Iterator[Gateway]:
    spool = Path(str(log.url.database)).parent / "spool"
    app = create_app(
        "reviews",
        engine=engine,
        source=source,
        log=log,
        params=params,
        max_new_tokens=max_new_tokens,
        spool=spool,
    )
    with running_app(app, params) as url:
        yield Gateway(url, engine, source, app, log)


def _wait_for(gateway: Gateway) -> None:
    deadline = time.monotonic() + 10
    while gateway.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline, gateway.get("/readyz").text
        time.sleep(0.02)


@contextmanager
def running_app(app: FastAPI, params: ServeParams) -> Iterator[str]:
    with listen("127.0.0.1", 0) as address:
        server = uvicorn.Server(server_config(app, params, grace_seconds=5))
        url = f"http://127.0.0.1:{address.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [address]}, daemon=True)
        thread.start()
        try:
            yield url
        finally:
            server.should_exit = True
            thread.join(timeout=10)
            assert not thread.is_alive(), "the server did not stop"
