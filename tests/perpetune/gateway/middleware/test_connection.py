from __future__ import annotations

import asyncio

from perpetune.gateway.middleware.connection import JoinedWrites


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def test_what_is_written_in_one_turn_of_the_loop_is_sent_at_once() -> None:
    assert asyncio.run(_write_thrice()) == [b"head body", b"an event"]


async def _write_thrice() -> list[bytes]:
    transport = Transport()
    joined = JoinedWrites(transport, asyncio.get_running_loop())
    joined.write(b"head ")
    joined.write(b"body")
    assert transport.sent == []
    await asyncio.sleep(0)
    joined.write(b"an event")
    await asyncio.sleep(0)
    return transport.sent


def test_what_waits_is_sent_before_the_connection_is_closed() -> None:
    assert asyncio.run(_write_and_close()) == [b"the end"]


async def _write_and_close() -> list[bytes]:
    transport = Transport()
    joined = JoinedWrites(transport, asyncio.get_running_loop())
    joined.write(b"the end")
    joined.close()
    joined.write(b"too late")
    await asyncio.sleep(0)
    return transport.sent
