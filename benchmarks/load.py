"""A closed-loop load generator for OpenAI's chat API: so many clients, each asking again once it was answered."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp

_ENGINE = re.compile(r"engine;dur=([0-9.]+)")


@dataclass(frozen=True)
class Target:
    """A server to drive, and the name of the model there. `instruction` is sent only where the server adds none."""

    name: str
    url: str
    model: str
    instruction: str | None


@dataclass(frozen=True)
class Asked:
    """One request as its client saw it; times in seconds, `began` on the clock of time.perf_counter.

    `engine` is how long the gateway waited for its engine, None where there is no gateway.
    """

    prompt: int
    client: int
    began: float
    seconds: float
    status: int
    model: str
    text: str
    engine: float | None


def drive(
    target: Target,
    prompts: Sequence[str],
    *,
    clients: int,
    requests: int,
    max_tokens: int,
    report: Callable[[int], None] = lambda done: None,
) -> list[Asked]:
    """Ask `requests` times in all, prompt after prompt, and return what became of each in the order of its end."""
    return asyncio.run(_drive(target, prompts, clients, requests, max_tokens, report))


async def _drive(
    target: Target,
    prompts: Sequence[str],
    clients: int,
    requests: int,
    max_tokens: int,
    report: Callable[[int], None],
) -> list[Asked]:
    numbers = itertools.count()
    done: list[Asked] = []
    patience = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=patience) as session:

        async def client(name: int) -> None:
            while (number := next(numbers)) < requests:
                done.append(await ask(session, target, prompts, number % len(prompts), name, max_tokens))
                report(len(done))

        await asyncio.gather(*(client(name) for name in range(clients)))
    return done


async def ask(
    session: aiohttp.ClientSession,
    target: Target,
    prompts: Sequence[str],
    prompt: int,
    client: int,
    max_tokens: int,
) -> Asked:
    instruction = [{"role": "system", "content": target.instruction}] if target.instruction else []
    body = {
        "model": target.model,
        "messages": [*instruction, {"role": "user", "content": prompts[prompt]}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "user": f"client {client}",
    }
    began = time.perf_counter()
    try:
        async with session.post(f"{target.url}/v1/chat/completions", json=body) as response:
            reply = await response.json()
            seconds = time.perf_counter() - began
            found = _ENGINE.search(response.headers.get("server-timing", ""))
            engine = float(found[1]) / 1000 if found else None
            text = reply["choices"][0]["message"]["content"] if response.status == 200 else str(reply)
            return Asked(prompt, client, began, seconds, response.status, str(reply.get("model")), text, engine)
    except (aiohttp.ClientError, TimeoutError) as fault:
        return Asked(prompt, client, began, time.perf_counter() - began, 0, "", repr(fault), None)
