"""`perpetune status` beside an MLflow server whose health is fine and whose database hangs."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from command_line import perpetune
from local_servers import QuietHandler, serve_until_exit
from workspaces import write_params


@pytest.mark.slow
def test_a_server_that_hangs_costs_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            if self.path != "/health":
                over.wait(60)
            if over.is_set():
                return
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"OK")

    write_params(tmp_path)
    # The last two are set by commands that ran in this process before.
    for name in (
        "PREFECT_API_URL",
        "PERPETUNE_GATEWAY_URL",
        "PERPETUNE_DATABASE_URL",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
        "MLFLOW_HTTP_REQUEST_TIMEOUT",
    ):
        monkeypatch.delenv(name, raising=False)
    with ExitStack() as stack:
        stack.callback(over.set)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", serve_until_exit(stack, Handler))
        perpetune(tmp_path, "status", "--help")  # its imports take seconds
        began = time.monotonic()
        said = perpetune(tmp_path, "status")
        seconds = time.monotonic() - began
        over.set()
    assert said.exit_code == 1
    assert "the MLflow server does not answer" in said.stderr
    assert seconds < 15, f"{seconds:.1f} s"
