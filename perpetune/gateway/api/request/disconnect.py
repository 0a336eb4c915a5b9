"""Cancelling work when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive

CLIENT_GONE = 499
"""nginx's status for a connection that the client closed; nobody gets it, but it is counted."""


class ClientDisconnected(Exception):
    """The client closed its connection before the answer was complete."""


@asynccontextmanager
async def until_disconnect(receive: Receive) -> AsyncIterator[None]:
    """Cancel the block when the client disconnects, and raise ClientDisconnected. The body must have been read."""
    working = asyncio.current_task()
    assert working is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        working.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if gone and working.uncancel() == 0:
            raise ClientDisconnected from None
        raise
    finally:
        watching.cancel()
