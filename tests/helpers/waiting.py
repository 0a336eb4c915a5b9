"""Waiting for what another thread, process or server does, instead of sleeping for as long as it may take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(check: Callable[[], T], seconds: float = 60.0, every: float = 0.1) -> T:
    """What `check` returns, as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {found!r}"
        time.sleep(every)
    return found


async def eventually_async(check: Callable[[], T], seconds: float = 5.0, every: float = 0.005) -> T:
    """The same for a test that shares its event loop with what it waits for."""
    async with asyncio.timeout(seconds):
        while not (found := check()):
            await asyncio.sleep(every)
    return found
