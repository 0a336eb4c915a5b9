"""Running the gateway from `params.yaml` and the environment."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy
import uvicorn
from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from perpetune.engines.engine import Engine
from perpetune.engines.engine_by_system import EngineBySystem
from perpetune.engines.linear_engine import LinearEngine
from perpetune.engines.openai_api.tls import remote_tls, vllm_tls
from perpetune.engines.remote_engine import RemoteEngine
from perpetune.engines.replicated_engine import ReplicatedEngine
from perpetune.errors import PerpetuneError
from perpetune.gateway.api.approval_routes import Approvals, Waiting
from perpetune.gateway.app import create_app
from perpetune.gateway.lasting_objects import LastingObjects
from perpetune.gateway.middleware.draining import DrainingProtocol, drain
from perpetune.gateway.middleware.peer import PeerMiddleware
from perpetune.gateway.recording.embedder import Embedder, encoder_loader
from perpetune.gateway.releases.first_release import BootstrappingSource
from perpetune.gateway.tasks.workspaces import tasks_app
from perpetune.gateway.workers.seat import FOLLOW_SECONDS, Seat
from perpetune.gateway.workers.supervisor import Supervisor
from perpetune.generation.prompt_format import prompt_format
from perpetune.model.release import ServedBase, System
from perpetune.params import Params, ServeParams
from perpetune.prediction_log.api_keys import read_keyring
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.rule import policy_of
from perpetune.prediction_log.redaction import require_presidio
from perpetune.records import Message
from perpetune.runtime.served.fitting import require_one_worker
from perpetune.runtime.served.registered import served_workspaces
from perpetune.settings import Settings
from perpetune.workspace import Workspace

if TYPE_CHECKING:
    from perpetune.model.chat.chat_tokenizer import ChatTokenizer

logger = logging.getLogger(__name__)

_DEFAULTS = ServeParams()
_GRACE_SECONDS = 5  # beyond the timeout of a request
# After which the writer of the log hands the interpreter over to requests, which ask for it some five times; Python's are 5 ms.
_SWITCH_SECONDS = 0.0001
_DRAIN_SECONDS = 1.0  # between "not ready" and refusing connections, for load balancers to notice


def serve(workspace: Workspace, host: str, port: int, workers: int | None = None) -> None:
    """Serve at this address until a signal, with so many processes (None: `serve.workers`).

    The tasks of the workspaces that are registered here (`served`) are served too.

    On a signal, requests in flight are answered and the log is flushed. Raises PerpetuneError if the port is in use,
    the log cannot be opened, Presidio is needed but missing, the base model is missing, a registered workspace is missing
    or does not fit, no registry is configured (one that is down is waited for), a second signal cut the shutdown short, or
    several workers are wanted of several tasks or of an engine that answers in the gateway's process.
    """
    params, settings = workspace.params, workspace.settings
    count = params.serve.workers if workers is None else workers
    if count < 1:
        raise PerpetuneError(f"{count} workers cannot serve", where="--workers", do="give 1 or more")
    if count > 1 and params.serve.engine == "transformers":
        raise PerpetuneError(
            "serve.engine transformers holds the model in the gateway's process, so it has one worker",
            where="params.yaml: serve.workers",
            do="set serve.workers to 1, or serve.engine to vllm",
        )
    if settings.mlflow_tracking_uri is None:
        raise PerpetuneError(
            "no MLflow registry is configured",
            where="MLFLOW_TRACKING_URI",
            do="set it to the MLflow server, or use `perpetune up`, which starts one",
        )
    # Detect within seconds that the registry is down; MLflow's defaults retry for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    others = served_workspaces(workspace)
    if others:
        require_one_worker(count)
    if any(each.params.log.redact for each in (workspace, *others)):
        require_presidio()  # before the model is loaded, which takes long
    with listen(host, port) as address:
        if others:
            log = open_log(settings.prediction_log)
            warn_if_open(log, host)
            with tasks_app([workspace, *others], log, build_engine, app_of) as app:
                run(app, address, grace_seconds=_grace([workspace, *others]), params=params.serve)
            log.dispose()
        elif count == 1:
            _work(workspace, host, address)
        else:
            with tempfile.TemporaryDirectory(prefix="perpetune-workers-") as folder:
                Supervisor(
                    count, lambda number: _work(workspace, host, address, Seat(number, Path(folder))), address.close
                ).run()


def _work(workspace: Workspace, host: str, address: socket.socket, seat: Seat | None = None) -> None:
    """Serve one task in this process, which is a worker if it has a seat among others."""
    params, settings = workspace.params, workspace.settings
    log = open_log(settings.prediction_log)
    if seat is None or seat.leads:
        warn_if_open(log, host)
    engine, base = build_engine(params, settings)
    app = app_of(workspace, engine, base, log, seat=seat)
    tick = seat.take(app) if seat else _alone
    run(app, address, grace_seconds=_grace([workspace]), params=params.serve, tick=tick)
    log.dispose()


def _alone() -> bool:
    return True


def app_of(
    workspace: Workspace,
    engine: Engine,
    base: ServedBase,
    log: sqlalchemy.Engine,
    *,
    releases: Path | None = None,
    keys: Sequence[sqlalchemy.Engine] = (),
    seat: Seat | None = None,
) -> FastAPI:
    """The app of one workspace's task. A task without a champion gets its first version, of a worker only if it leads.

    `releases` is the folder of downloaded versions, if it is not in the workspace's home; `keys` are other logs whose API
    keys count too.
    """
    # Late, because importing MLflow takes seconds: a port in use is reported at once.
    from perpetune.loop.first_version import make_first_version
    from perpetune.tracking.registry import RegistrySource

    params, settings = workspace.params, workspace.settings
    leads = seat is None or seat.leads
    registry = RegistrySource(params.task.name, releases or settings.home.absolute() / "releases")
    source = BootstrappingSource(registry, lambda: make_first_version(workspace, base)) if leads else registry
    return create_app(
        params.task.name,
        engine=engine,
        source=seat.source(source) if seat else source,
        log=log,
        params=params.serve if leads else params.serve.model_copy(update={"poll_seconds": FOLLOW_SECONDS}),
        max_new_tokens=params.evaluate.max_new_tokens,
        release_params=params.release,
        log_params=params.log,
        spool=settings.home.absolute() / "spool",
        labels=policy_of(params),
        workspace_id=settings.workspace_id,
        embedder=_embedder(params, settings, log) if leads else None,
        approvals=_approvals(workspace),
        keys=keys,
    )


def _grace(workspaces: Sequence[Workspace]) -> float:
    """How long requests in flight may take when the gateway stops, in seconds."""
    return max(each.params.serve.timeout_seconds for each in workspaces) + _GRACE_SECONDS


def _embedder(params: Params, settings: Settings, log: sqlalchemy.Engine) -> Embedder | None:
    """None if the settings name no encoder or no requests to embed."""
    if params.evaluate.encoder is None or not params.log.embeddings_per_hour:
        return None
    load = encoder_loader(params.evaluate.encoder, settings.assets)
    return Embedder(log, params.task.name, params.log.embeddings_per_hour, load)


def _approvals(workspace: Workspace) -> Approvals:
    """Approvals in MLflow's tags, whose answers resume a run of Prefect."""
    # Late, because it imports MLflow.
    from perpetune.loop.approve import ApprovalResponse, answer_approval, pending_approvals

    def waiting() -> list[Waiting]:
        return [
            Waiting(version=each.version, until=each.until, flow_run=each.flow_run)
            for each in pending_approvals(workspace)
            if not each.approved
        ]

    def answer(version: str, approve: bool, by: str, comment: str) -> str:
        return answer_approval(workspace, version, ApprovalResponse(approve, by, comment)).id

    return Approvals(waiting, answer)


def build_engine(params: Params, settings: Settings) -> tuple[Engine, ServedBase]:
    """The engine of `serve.engine` combined with the linear and remote engines, and the base model that it serves.

    Raises PerpetuneError if the base model is missing, or the vLLM server has no URL.
    """
    engine, base = _engine_of_base(params, settings)
    engines: dict[System, Engine] = {
        "tuned": engine,
        "prompted": engine,
        "linear": LinearEngine(settings.assets),
        "remote": RemoteEngine(settings.remote_api_key, remote_tls(settings)),
    }
    return EngineBySystem(engines), base


def _engine_of_base(params: Params, settings: Settings) -> tuple[Engine, ServedBase]:
    if params.serve.engine == "vllm":
        if not settings.vllm_urls:
            raise PerpetuneError(
                "serve.engine is vllm, but no vLLM server is configured",
                where="PERPETUNE_VLLM_URL",
                do="set it to the vLLM server, or use `perpetune up`, which starts one; see docs/guides/vllm.md",
            )
        from perpetune.engines.vllm_engine import VllmEngine

        load = cache(lambda: _chat_tokenizer(params, settings))
        # The weights of a vLLM server and its --max-model-len may not be known on this machine.
        base = ServedBase(digest="unknown", tokens=_counting(load, params), context=sys.maxsize)
        tls = vllm_tls(settings)
        replicas = [
            VllmEngine(url, params.base, params.serve, load, settings.vllm_api_key, tls) for url in settings.vllm_urls
        ]
        return replicas[0] if len(replicas) == 1 else ReplicatedEngine(replicas), base
    # Late, because these import torch.
    from perpetune.engines.transformers_engine import TransformersEngine
    from perpetune.inference.predictor import load_predictor

    model = load_predictor(params.base, settings.assets, params.train.precision, params.evaluate.batch_tokens)
    base = ServedBase(
        digest=model.base.digest,
        tokens=_counting(lambda: model.chat, params),
        context=model.context,
    )
    return TransformersEngine(model, params.base, params.serve), base


def _chat_tokenizer(params: Params, settings: Settings) -> ChatTokenizer:
    # Late, because it imports torch: a gateway in front of vLLM is ready before it.
    from perpetune.model.chat.chat_tokenizer import load_chat_tokenizer

    return load_chat_tokenizer(params.base, settings.assets)


def _counting(load: Callable[[], ChatTokenizer], params: Params) -> Callable[[Sequence[Message]], int]:
    """A function that counts a conversation's tokens."""
    chosen = prompt_format(params.base.chat_template_kwargs, None)
    return lambda messages: len(load().prompt(messages, chosen=chosen))


def run(
    app: FastAPI,
    address: socket.socket,
    *,
    grace_seconds: float,
    drain_seconds: float = _DRAIN_SECONDS,
    params: ServeParams = _DEFAULTS,
    tick: Callable[[], bool] = _alone,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish requests in flight, for at most `grace_seconds`.

    On the signal it becomes not ready, but accepts requests for `drain_seconds` more. `tick` is called every tenth of a
    second; if it is false, that is as a signal. Raises PerpetuneError if a second signal stopped it at once.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    server = _Server(server_config(app, params, grace_seconds), app, drain_seconds, tick)
    server.run(sockets=[address])
    if server.force_exit:
        raise PerpetuneError(
            "a second signal stopped the gateway at once", do="send one signal, and let requests in flight finish"
        )


def server_config(app: FastAPI, params: ServeParams, grace_seconds: float) -> uvicorn.Config:
    """How uvicorn serves the app: its protocol, timeouts, and the proxies that it believes."""
    # uvicorn's own default is whatever runs on this machine, so that a client could name any address through a proxy.
    proxies = list(params.trusted_proxies) or os.environ.get("FORWARDED_ALLOW_IPS", "")
    # In here, and not by uvicorn, so that it stays known whose connection it is. uvicorn's types of ASGI are its own.
    inner: Any = ProxyHeadersMiddleware(cast(Any, app), trusted_hosts=proxies) if proxies else app
    return uvicorn.Config(
        PeerMiddleware(inner),
        loop="uvloop",
        http=DrainingProtocol,
        ws="none",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=params.keep_alive_seconds,
        timeout_graceful_shutdown=int(grace_seconds),
        proxy_headers=False,
    )


def warn_if_open(log: sqlalchemy.Engine, host: str) -> None:
    """Log a warning if the gateway needs no API key and is reachable from the network."""
    if not _is_loopback(host) and read_keyring(log).open:
        logger.warning(
            "%s is open to the network without API keys: add one with `perpetune keys add NAME --role admin`",
            host,
        )


class _Server(uvicorn.Server):
    """uvicorn that drains before it stops accepting connections, and exits successfully after a graceful shutdown."""

    def __init__(
        self, config: uvicorn.Config, app: FastAPI, drain_seconds: float, tick: Callable[[], bool] = _alone
    ) -> None:
        super().__init__(config)
        self._app = app
        self._drain_seconds = drain_seconds
        self._tick = tick
        self._stop_at: float | None = None
        self._lasting = LastingObjects(lambda: app.state.follower.versions)

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
            self._stop_at = time.monotonic() + self._drain_seconds
        else:
            self.should_exit = self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        self._lasting.freeze_new()
        if not self._tick() and self._stop_at is None:
            self.handle_exit(signal.SIGTERM, None)
        return await super().on_tick(counter)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """Bind an address (port 0: any free one) before the slow part of starting. Raises PerpetuneError if it cannot."""
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
        in_use = fault.errno == errno.EADDRINUSE
        raise PerpetuneError(
            f"port {port} is in use" if in_use else f"cannot listen here: {fault.strerror}",
            where=f"{host}:{port}",
            do="stop the process that listens there, or choose another port with --port",
        ) from None
    return listener
