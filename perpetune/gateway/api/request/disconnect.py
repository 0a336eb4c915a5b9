"""Cancelling work when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Receive, Scope

WHEN_LOST = "perpetune.when_lost"
"""In a scope: the set of functions that its server calls when the connection is lost. Other servers have none."""

CLIENT_GONE = 499
"""nginx's status for a connection that the client closed; nobody gets it, but it is counted."""


class ClientDisconnected(Exception):
    """The client closed its connection before the answer was complete."""


class until_disconnect:
    """Cancel the block when the client disconnects, and raise ClientDisconnected. The body must have been read."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._when_lost: set[Callable[[], None]] | None = scope.get(WHEN_LOST)
        self._receive = receive
        self._gone = False

    async def __aenter__(self) -> None:
        working = asyncio.current_task()
        assert working is not None
        self._working = working
        if self._when_lost is not None:
            self._when_lost.add(self._cancel)
        else:  # under another server; a task would be a tenth of the cost of a short request
            self._watching = asyncio.create_task(self._receive_disconnect())

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._when_lost is not None:
            self._when_lost.discard(self._cancel)
        else:
            self._watching.cancel()
        if kind is asyncio.CancelledError and self._gone and self._working.uncancel() == 0:
            raise ClientDisconnected from None

    def _cancel(self) -> None:
        if not self._gone:
            self._gone = True
            self._working.cancel()

    async def _receive_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._cancel()
