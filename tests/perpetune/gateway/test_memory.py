"""Thousands of answers, streamed and not, stopped and whole: the gateway's process does not grow with them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import aiohttp
import httpx
import psutil
import pytest
from waiting import eventually

pytestmark = pytest.mark.slow

ANSWERS, AT_ONCE = 2_000, 32  # answers between two measurements
MOST_GROWTH = 100  # bytes an answer
SCRIPT = textwrap.dedent("""
    import sys
    from pathlib import Path

    from perpetune.gateway.app import create_app
    from perpetune.gateway.server import listen, run
    from perpetune.model.release import Release
    from perpetune.params import BaseParams, ServeParams
    from perpetune.prediction_log.database import open_log
    from perpetune.testing.fake_engine import FakeEngine
    from perpetune.testing.fake_registry import FakeSource

    class Forgetful(FakeEngine):
        async def answer(self, *arguments):
            try:
                return await super().answer(*arguments)
            finally:
                self.asked.clear()  # the fake remembers every request

    folder = Path(sys.argv[1])
    release = Release("reviews", "1", folder, "Judge it.", None, BaseParams(model="path:tiny", revision=None))
    app = create_app(
        "reviews",
        engine=Forgetful(),
        source=FakeSource([release], champion="1"),
        log=open_log(f"sqlite:///{folder / 'predictions.db'}"),
        params=ServeParams(requests_per_minute=100_000_000),
        max_new_tokens=16,
        spool=folder / "spool",
    )
    with listen("127.0.0.1", 0) as address:
        print(address.getsockname()[1], flush=True)
        run(app, address, grace_seconds=5)
""")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[tuple[psutil.Process, str]]:
    child = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    url = f"http://127.0.0.1:{int(child.stdout.readline())}"
    eventually(lambda: _is_ready(url), 30)
    yield psutil.Process(child.pid), url
    child.kill()
    child.communicate()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


async def ask(url: str, numbers: range) -> None:
    """Ask so many times: every other answer is streamed, and every tenth stopped after its first piece."""
    waiting = iter(numbers)

    async def one_after_another(client: aiohttp.ClientSession) -> None:
        for number in waiting:
            body = {
                "model": "reviews",
                "messages": [{"role": "user", "content": f"{number} and on"}],
                "stream": number % 2 == 0,
                "user": f"user {number}",
            }
            async with client.post(f"{url}/v1/chat/completions", json=body) as reply:
                assert reply.status == 200
                if number % 10 == 0:
                    await reply.content.readline()
                    reply.close()
                else:
                    await reply.read()

    async with aiohttp.ClientSession() as client, asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one_after_another(client))


def test_memory_does_not_grow_with_the_answers(gateway: tuple[psutil.Process, str]) -> None:
    process, url = gateway

    def settled() -> int:
        eventually(lambda: "perpetune_log_rows_waiting 0.0" in httpx.get(f"{url}/metrics").text, 60)
        return int(process.memory_info().rss)

    sizes = []
    for number in range(6):
        asyncio.run(ask(url, range(number * ANSWERS, (number + 1) * ANSWERS)))
        sizes.append(settled())
    # The allocator may take a few MiB more at any time; a leak takes some each time.
    grown = min(after - before for before, after in pairwise(sizes)) / ANSWERS
    files = len(process.open_files()) + process.num_fds()
    assert grown < MOST_GROWTH, sizes
    assert files < 200
