"""The real gateway on this machine, from `params.yaml` and the environment."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

import sqlalchemy
import uvicorn
from fastapi import FastAPI

from perpetune.engines.engine import Engine
from perpetune.engines.engine_by_system import EngineBySystem
from perpetune.engines.linear_engine import LinearEngine
from perpetune.engines.remote_engine import RemoteEngine
from perpetune.errors import PerpetuneError
from perpetune.gateway.app import create_app
from perpetune.gateway.middleware.draining import drain
from perpetune.gateway.middleware.head_limit import BoundedHead
from perpetune.gateway.releases.first_release import SourceWithFirst
from perpetune.model.release import ServedBase, System
from perpetune.params import Params
from perpetune.prediction_log.api_keys import read_keyring
from perpetune.prediction_log.log import open_log
from perpetune.prediction_log.redaction import require_presidio
from perpetune.settings import Settings
from perpetune.workspace import Workspace

# vLLM may run elsewhere. Of a conversation we then know that it has no more tokens than bytes.
_UNSEEN_BASE = ServedBase(
    digest="unknown",
    tokens=lambda messages: sum(len(message.content.encode()) for message in messages),
    context=sys.maxsize,
)

logger = logging.getLogger(__name__)

_GRACE = 5  # seconds beyond the time-out of a request
_NOTICE = 1.0  # seconds between "not ready" and the end of accepting, in which load balancers hear of it


def serve(workspace: Workspace, host: str, port: int) -> None:
    """Answer at this address until a signal ends it. A task without a champion gets its first version from here.

    Requests under way are answered and the log is flushed first. Raises PerpetuneError where the port is in use,
    the log cannot be opened, Presidio is wanted and missing, the base model is not there or no registry is named (one that is down is waited for),
    and where a second signal ended it before that was done.
    """
    params, settings = workspace.params, workspace.settings
    if settings.mlflow_tracking_uri is None:
        raise PerpetuneError(
            "no registry is known to take the model from",
            where="MLFLOW_TRACKING_URI",
            do="set it to the MLflow server, or use `perpetune up`, which starts one",
        )
    # A registry that is down must show within seconds; MLflow's own default keeps trying for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    if params.log.redact:
        require_presidio()  # before the model is loaded, which takes long
    with listen(host, port) as address:
        log = open_log(settings.prediction_log)
        warn_if_open(log, host)
        # Late, because this brings MLflow: a port in use should not take seconds to tell.
        from perpetune.loop.first_version import make_first
        from perpetune.tracking.registry import RegistrySource

        engine, base = build_engine(params, settings)
        app = create_app(
            params.task.name,
            engine=engine,
            source=SourceWithFirst(
                RegistrySource(params.task.name, settings.home.absolute() / "releases"),
                lambda: make_first(workspace, base),
            ),
            log=log,
            params=params.serve,
            max_new_tokens=params.evaluate.max_new_tokens,
            release_params=params.release,
            log_params=params.log,
            spool=settings.home.absolute() / "spool",
        )
        run(app, address, grace_seconds=params.serve.timeout_seconds + _GRACE)
        log.dispose()


def build_engine(params: Params, settings: Settings) -> tuple[Engine, ServedBase]:
    """The engine that `serve.engine` names, beside those that need no base, and the base that it serves.

    Raises PerpetuneError where it has no base model, or no address.
    """
    engine, base = _engine_of_base(params, settings)
    engines: dict[System, Engine] = {
        "tuned": engine,
        "prompted": engine,
        "linear": LinearEngine(settings.assets),
        "remote": RemoteEngine(settings.remote_api_key),
    }
    return EngineBySystem(engines), base


def _engine_of_base(params: Params, settings: Settings) -> tuple[Engine, ServedBase]:
    if params.serve.engine == "vllm":
        if settings.vllm_url is None:
            raise PerpetuneError(
                "serve.engine is vllm, and no vLLM is known",
                where="PERPETUNE_VLLM_URL",
                do="set it to the vLLM server, or use `perpetune up`, which starts one; see docs/guides/vllm.md",
            )
        from perpetune.engines.vllm_engine import VllmEngine

        return VllmEngine(settings.vllm_url, params.base, params.serve, settings.vllm_api_key), _UNSEEN_BASE
    # Late, because these bring torch, which a gateway before vLLM does without.
    from perpetune.engines.transformers_engine import TransformersEngine
    from perpetune.inference.answerer import load_answerer
    from perpetune.model.chat_format import prompt_tokens

    model = load_answerer(params.base, settings.assets, params.train.precision, params.evaluate.batch_tokens)
    base = ServedBase(
        digest=model.base.digest,
        tokens=lambda messages: len(prompt_tokens(model.base.tokenizer, messages)),
        context=model.context,
    )
    return TransformersEngine(model, params.base, params.serve), base


def run(app: FastAPI, address: socket.socket, *, grace_seconds: float, notice_seconds: float = _NOTICE) -> None:
    """Answer until SIGTERM or SIGINT, then end what has begun, for at most `grace_seconds`.

    It says that it is not ready at once, and accepts requests for `notice_seconds` more. Raises PerpetuneError where
    a second signal ended it at once.
    """
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=BoundedHead,
        ws="none",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=int(grace_seconds),
    )
    server = _Server(config, app, notice_seconds)
    server.run(sockets=[address])
    if server.force_exit:
        raise PerpetuneError(
            "a second signal ended the gateway at once", do="send one, and give requests under way the time to end"
        )


def warn_if_open(log: sqlalchemy.Engine, host: str) -> None:
    """Say where anybody on the network could ask."""
    if not _is_loopback(host) and read_keyring(log).open:
        logger.warning(
            "anybody who reaches %s may ask, judge and release: make a key with `perpetune keys add NAME --role admin`",
            host,
        )


class _Server(uvicorn.Server):
    """uvicorn, with a notice before it stops accepting, and with a graceful end as a success."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, notice_seconds: float) -> None:
        super().__init__(config)
        self._app = app
        self._notice = notice_seconds
        self._stop_at: float | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._stop_at is None:
            drain(self._app)
            self._stop_at = time.monotonic() + self._notice
        else:
            self.should_exit = self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """Take an address (port 0: any free one) before the slow part of starting. Raises PerpetuneError."""
    if not 0 <= port <= 65535:
        raise PerpetuneError(f"there is no port {port} to listen on", do="choose one from 1 to 65535 with --port")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as fault:
        raise PerpetuneError(f"not an address to listen on: {fault}", where=f"{host}:{port}") from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(socket.SOMAXCONN)
    except OSError as fault:
        listener.close()
        taken = fault.errno == errno.EADDRINUSE
        raise PerpetuneError(
            f"port {port} is in use" if taken else f"cannot listen here: {fault.strerror}",
            where=f"{host}:{port}",
            do="stop what listens there, or choose another port with --port",
        ) from None
    return listener
