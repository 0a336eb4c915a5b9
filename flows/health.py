"""The health check of the worker: `GET /health` and nothing else.

Prefect's own web server of a runner would also stop it on `POST /shutdown`, which any web page can send.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATH = "/health"


@contextmanager
def health_server(host: str, port: int, healthy: Callable[[], bool]) -> Iterator[int]:
    """Answer `GET /health` with 200, or with 503 if not `healthy`, while the block runs; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30.0  # of an idle connection

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != PATH:
                self._answer(404, "there is only /health here")
            elif healthy():
                self._answer(200, "OK")
            else:
                self._answer(503, "the worker does not ask Prefect for runs at this time")

        def _answer(self, status: int, message: str) -> None:
            body = json.dumps({"message": message}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """No line for each check."""

    with ThreadingHTTPServer((host, port), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
