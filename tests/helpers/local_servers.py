"""HTTP servers of a test, on free ports of this machine."""

from __future__ import annotations

import ssl
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class QuietHandler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


def serve_until_exit(stack: ExitStack, handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> str:
    """Start a server that stops when the stack closes; its address."""
    server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    stack.callback(thread.join, timeout=5)
    stack.callback(server.shutdown)
    return f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
