"""Cancelling work when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.types import Receive, Scope

WHEN_LOST = "perpetune.when_lost"
"""In a scope: the set of functions that its server calls when the connection is lost. Other servers have none."""

CLIENT_GONE = 499
"""nginx's status for a connection that the client closed; nobody gets it, but it is counted."""


class ClientDisconnected(Exception):
    """The client closed its connection before the answer was complete."""


class _Lost:
    """Cancels a task, once."""

    def __init__(self, working: asyncio.Task[object]) -> None:
        self.working = working
        self.gone = False

    def __call__(self) -> None:
        if not self.gone:
            self.gone = True
            self.working.cancel()


@asynccontextmanager
async def until_disconnect(scope: Scope, receive: Receive) -> AsyncIterator[None]:
    """Cancel the block when the client disconnects, and raise ClientDisconnected. The body must have been read."""
    working = asyncio.current_task()
    assert working is not None
    lost = _Lost(working)
    stop = _watch(scope, receive, lost)
    try:
        yield
    except asyncio.CancelledError:
        if lost.gone and working.uncancel() == 0:
            raise ClientDisconnected from None
        raise
    finally:
        stop()


def _watch(scope: Scope, receive: Receive, lost: _Lost) -> Callable[[], object]:
    """Call `lost` when the client is gone; returns what stops it. A task for it would be a tenth of a short request."""
    when_lost: set[Callable[[], None]] | None = scope.get(WHEN_LOST)
    if when_lost is None:
        return asyncio.create_task(_receive_disconnect(receive, lost)).cancel
    when_lost.add(lost)
    return lambda: when_lost.discard(lost)


async def _receive_disconnect(receive: Receive, lost: _Lost) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    lost()
