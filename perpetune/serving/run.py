"""The real gateway on this machine, from `params.yaml` and the environment."""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path

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
    the log cannot be opened or the base model is not there.
    """
    with listen(host, port) as address:
        log = open_log(settings.prediction_log)
        # Late, because these bring torch and MLflow: a port in use should not take seconds to tell.
        from perpetune.inference.answers import load_answerer
        from perpetune.registry import RegistrySource

        assets = settings.assets or Path("assets")
        model = load_answerer(params.base, assets, params.train.precision, params.evaluate.batch_tokens)
        app = create_app(
            params.task.name,
            engine=TransformersEngine(model, params.base, params.serve),
            source=RegistrySource(params.task.name, settings),
            log=log,
            params=params.serve,
            max_new_tokens=params.evaluate.max_new_tokens,
        )
        grace = int(params.serve.timeout_seconds) + _GRACE
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=grace))
        with contextlib.suppress(KeyboardInterrupt):  # the server has shut down by the time it passes the signal on
            server.run(sockets=[address])
        log.dispose()


def listen(host: str, port: int) -> socket.socket:
    """Take an address (port 0: any free one) before the slow part of starting. Raises PerpetuneError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, OverflowError) as fault:
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
