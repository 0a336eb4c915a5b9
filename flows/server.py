"""`python -m perpetune.flows.server --host HOST --port PORT`: Prefect's server, closed to the pages of other sites.

It is what `prefect server start` runs, behind a `BrowserGuard`: Prefect's own server answers every origin (CORS `*`), so
that any web page could approve a promotion, delete a deployment or, over a WebSocket, start a refresh.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import PREFECT_SERVER_CORS_ALLOWED_ORIGINS, get_current_settings, temporary_settings

from perpetune.flows.alerting.channel import AlertChannel
from perpetune.runtime.browser_guard import ANY, App, BrowserGuard
from perpetune.runtime.ownership import HEADER

# Prefect finds the class of a block among those that its process has imported.
SENDERS = (AlertChannel,)
_HEALTH = ("/api/health", "/api/ready")
# In the environment, "*" is somebody's choice; as Prefect's default it is nobody's.
_CORS = ("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m perpetune.flows.server", description="Serve Prefect's API and UI.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=4200)
    parser.add_argument(
        "--allowed-hosts",
        default="",
        help="names of this server beside localhost, as name:port, with commas between; * for any",
    )
    asked = parser.parse_args()
    hosts = [host.strip() for host in asked.allowed_hosts.split(",") if host.strip()]
    settings = get_current_settings().server
    uvicorn.run(
        guarded(hosts, asked.port),
        host=asked.host,
        port=asked.port,
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        log_level=settings.logging_level.lower(),
    )


def guarded(hosts: Sequence[str], port: int) -> App:
    """Prefect's server, which answers only its own pages under these names and under those of this machine."""
    origins = allowed_origins(hosts, port)
    with temporary_settings({PREFECT_SERVER_CORS_ALLOWED_ORIGINS: ",".join(origins)}):
        app = create_app(final=True)
    mark = os.environ.get("PERPETUNE_WORKSPACE_ID", "")
    headers = [(HEADER.encode(), mark.encode())] if mark else []
    return BrowserGuard(app, hosts=hosts, origins=origins, health=_HEALTH, headers=headers)


def allowed_origins(hosts: Sequence[str], port: int) -> list[str]:
    """The origins of its pages, which call the API by another of its names, and those that Prefect's settings allow."""
    configured = [origin.strip() for origin in PREFECT_SERVER_CORS_ALLOWED_ORIGINS.value().split(",")]
    if configured == [ANY] and any(name in os.environ for name in _CORS):
        return configured
    more = [origin for origin in configured if origin != ANY]
    names = [f"localhost:{port}", f"127.0.0.1:{port}", *(host for host in hosts if host != ANY)]
    return [*more, *(f"{scheme}://{name}" for name in names for scheme in ("http", "https"))]


if __name__ == "__main__":
    main()
