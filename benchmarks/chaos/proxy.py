"""A TCP proxy in front of a service, which can be cut off: refuse and drop connections, or let them hang."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

Mode = Literal["pass", "drop", "stall"]
_BYTES = 1 << 16


class Proxy:
    """Listens on `port`, and passes connections on to the first of the ports `to` that accepts them."""

    def __init__(self, network: Network, port: int, to: Sequence[int]) -> None:
        self.port = port
        self._to = tuple(to)
        self._network = network
        self._mode: Mode = "pass"
        self._open: set[asyncio.StreamWriter] = set()
        self._passing: asyncio.Event | None = None

    async def listen(self) -> None:
        self._passing = asyncio.Event()
        self._passing.set()
        await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def switch(self, mode: Mode) -> None:
        """`drop` also ends the connections that are open; `stall` keeps them, and what is sent waits."""
        self._network.run(self._switch(mode))

    async def _switch(self, mode: Mode) -> None:
        assert self._passing
        self._mode = mode
        if mode == "stall":
            self._passing.clear()
        else:
            self._passing.set()
        if mode == "drop":
            for writer in self._open:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._passing
        await self._passing.wait()
        there = None if self._mode == "drop" else await self._connect()
        if there is None:
            writer.transport.abort()
            return
        their_reader, their_writer = there
        self._open |= {writer, their_writer}
        try:
            await asyncio.gather(self._copy(reader, their_writer), self._copy(their_reader, writer))
        except asyncio.CancelledError:  # in the end of all
            pass
        finally:
            self._open -= {writer, their_writer}
            for each in (writer, their_writer):
                each.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for port in self._to:
            with suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return None

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction; a connection that breaks on one side breaks on the other."""
        assert self._passing
        try:
            while content := await reader.read(_BYTES):
                await self._passing.wait()
                writer.write(content)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.transport.abort()


class Network:
    """The proxies, in a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def proxy(self, port: int, *to: int) -> Proxy:
        made = Proxy(self, port, to)
        self.run(made.listen())
        return made

    def run(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def close(self) -> None:
        """End all connections, so that nothing is left of them when the interpreter ends."""
        self.run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)
