"""`python -m perpetune.gateway --host HOST --port PORT`: the gateway of the workspace in this folder."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from perpetune.errors import PerpetuneError
from perpetune.gateway.server import serve
from perpetune.params import load_params
from perpetune.proxies import spare_this_machine
from perpetune.settings import Settings
from perpetune.workspace import Workspace


def main() -> int:
    """Serve until a signal; returns 1 if it could not start."""
    parser = argparse.ArgumentParser(prog="python -m perpetune.gateway", description="Serve the champion.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, help="processes that serve (default: serve.workers of params.yaml)")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    asked = parser.parse_args()
    spare_this_machine()
    log_to_stderr()
    try:
        folder = asked.params.absolute().parent
        workspace = Workspace(folder, load_params(asked.params), Settings())
        serve(workspace, asked.host, asked.port, asked.workers)
    except PerpetuneError as fault:
        print(fault, file=sys.stderr)
        return 1
    return 0


def log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("perpetune").setLevel(logging.INFO)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # the follower reports once that the registry is down


if __name__ == "__main__":
    sys.exit(main())
