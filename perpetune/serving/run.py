"""The real gateway on this machine, from `params.yaml` and the environment."""

from __future__ import annotations

import contextlib
import errno
import os
import socket

import uvicorn

from perpetune.errors import PerpetuneError
from perpetune.params import Params
from perpetune.serving.gateway import create_app
from perpetune.serving.log import open_log
from perpetune.serving.transformers_engine import TransformersEngine
from perpetune.settings import Settings

_GRACE = 5  # seconds beyond the time-out of a request


def serve(params: Params, settings: Settings, host: str, port: int) -> None:
    """Answer at this address until a signal ends it.

    Requests under way are answered and the log is flushed first. Raises PerpetuneError where the port is in use,
    the log cannot be opened, the base model is not there or no registry is named; one that is down is waited for.
    """
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
    with listen(host, port) as address:
        log = open_log(settings.prediction_log)
        # Late, because these bring torch and MLflow: a port in use should not take seconds to tell.
        from perpetune.inference.answers import load_answerer
        from perpetune.registry import RegistrySource

        model = load_answerer(params.base, settings.assets, params.train.precision, params.evaluate.batch_tokens)
        app = create_app(
            params.task.name,
            engine=TransformersEngine(model, params.base, params.serve),
            source=RegistrySource(params.task.name, settings.home.absolute() / "releases"),
            log=log,
            params=params.serve,
            max_new_tokens=params.evaluate.max_new_tokens,
            log_params=params.log,
            spool=settings.home.absolute() / "spool",
        )
        grace = int(params.serve.timeout_seconds) + _GRACE
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=grace))
        with contextlib.suppress(KeyboardInterrupt):  # the server has shut down by the time it passes the signal on
            server.run(sockets=[address])
        log.dispose()


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
