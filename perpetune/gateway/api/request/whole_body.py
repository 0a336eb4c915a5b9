"""Reading a request's body."""

from __future__ import annotations

from starlette.types import Receive

from perpetune.gateway.api.request.disconnect import ClientDisconnected


async def whole_body(receive: Receive) -> bytes:
    """The body, whose size must be bounded before. Raises ClientDisconnected."""
    parts, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)
