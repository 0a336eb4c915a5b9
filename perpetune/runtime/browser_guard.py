"""An ASGI middleware against web pages that reach for a server of this machine or of a private network.

A page of any site may send a browser's requests to 127.0.0.1. CORS alone does not stop them: a simple POST is sent
without asking first, WebSockets know no CORS, and a name that resolves to 127.0.0.1 (DNS rebinding) makes the page one
of the server's own. So a request is refused if its `Host` is not a name of this server, or if its `Origin`, which every
browser sends and no other client does, is not this server. See OWASP's "Cross-Site Request Forgery Prevention".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from perpetune.proxies import is_loopback

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ANY = "*"


class BrowserGuard:
    """Refuses requests with a foreign `Host` or `Origin`: 403, for a WebSocket too.

    Loopback names are allowed with any port (a tunnel may change it); `hosts` are more names, each as "name" or
    "name:port". `origins` are more pages that may send requests, as "https://name:port"; "*" allows all of a kind.
    Probes of `health` may name any host. `headers` are added to every answer.
    """

    def __init__(
        self,
        app: App,
        *,
        hosts: Collection[str] = (),
        origins: Collection[str] = (),
        health: Collection[str] = (),
        headers: Collection[tuple[bytes, bytes]] = (),
    ) -> None:
        self.app = app
        self._hosts = {host.lower() for host in hosts}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._health = frozenset(health)
        self._headers = tuple(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        async def marked(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        fault = self._fault(scope)
        if fault is None:
            await self.app(scope, receive, marked)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": fault})  # before it is accepted: a 403
        else:
            await _refuse(fault, marked)

    def _fault(self, scope: Scope) -> str | None:
        hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
        if scope["path"] not in self._health and not (len(hosts) == 1 and self._knows(hosts[0])):
            return "The Host of this request is not a name of this server."
        if any(not self._is_own(origin, hosts) for origin in origins):
            return "This request comes from a page of another site."
        return None

    def _knows(self, host: str) -> bool:
        name = _name(host)
        return ANY in self._hosts or is_loopback(name) or not self._hosts.isdisjoint((host, name))

    def _is_own(self, origin: str, hosts: Collection[str]) -> bool:
        """Whether the page is one of this server's, under any of its names, or is allowed."""
        if ANY in self._origins or origin in self._origins:
            return True
        host = urlsplit(origin).netloc
        return host in hosts or host in self._hosts


def _name(host: str) -> str | None:
    """A Host header without its port; None if it is none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _values(scope: Scope, header: bytes) -> list[str]:
    return [value.decode("latin-1").lower() for name, value in scope["headers"] if name == header]


async def _refuse(why: str, send: Send) -> None:
    body = why.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
