"""HTTP servers of a test, on free ports of this machine."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class QuietHandler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


def serve_until_exit(stack: ExitStack, handler: type[BaseHTTPRequestHandler]) -> str:
    """Start a server that stops when the stack closes; its address."""
    server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    stack.callback(thread.join, timeout=5)
    stack.callback(server.shutdown)
    return f"http://127.0.0.1:{server.server_port}"
