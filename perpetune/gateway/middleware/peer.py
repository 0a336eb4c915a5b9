"""Who sends a request, as a trusted proxy says that has authenticated them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network

from starlette.types import ASGIApp, Receive, Scope, Send

_MOST = 254  # characters, of an address of mail (RFC 5321)


class PeerMiddleware:
    """ASGI middleware that notes in `scope["peer"]` whose connection it is, before X-Forwarded-For changes the client."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["peer"] = (scope.get("client") or (None,))[0]
        await self.app(scope, receive, send)


def user_of(scope: Scope, header: str | None, proxies: Sequence[IPv4Network | IPv6Network]) -> str | None:
    """The user that a proxy of `proxies` names in the header; None from any other address.

    None too if the header is there twice: one of them may be what the client wrote.
    """
    if header is None or not _is_of(scope.get("peer"), proxies):
        return None
    named = [value for name, value in scope["headers"] if name == header.lower().encode()]
    user = named[0].decode("utf-8", errors="replace").strip() if len(named) == 1 else ""
    return user if user.isprintable() and 0 < len(user) <= _MOST else None


def _is_of(peer: object, proxies: Sequence[IPv4Network | IPv6Network]) -> bool:
    try:
        address = ipaddress.ip_address(str(peer))
    except ValueError:
        return False
    return any(address in network for network in proxies)
