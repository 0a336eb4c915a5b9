"""A closed-loop load generator for OpenAI's chat API: each client sends its next request after the last answer."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
import uvloop

_ENGINE = re.compile(r"engine;dur=([0-9.]+)")
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Target:
    """A server, its model name and the headers it needs. `instruction` is sent only if the server adds none."""

    name: str
    url: str
    model: str
    instruction: str | None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ClientRequest:
    """A request as seen by the client; times in seconds, `began` by time.perf_counter.

    `engine` is the time that the gateway waited for its engine; None without a gateway.
    """

    prompt: int
    client: int
    began: float
    seconds: float
    status: int
    model: str
    text: str
    engine: float | None
    completion_tokens: int = 0


def drive(
    target: Target,
    prompts: Sequence[str],
    *,
    clients: int,
    requests: int,
    max_tokens: int,
    report: Callable[[int], None] = lambda done: None,
    ramp: float = 0.0,
) -> list[ClientRequest]:
    """Send `requests` requests, and return their results in the order of completion.

    The clients begin one after the other, within `ramp` seconds; without that, all at once.
    Because it shares the cores with the server, bodies are serialised before the run and replies parsed after it.
    """
    bodies = [_body(target, prompt, max_tokens) for prompt in prompts]
    return [_read(reply) for reply in uvloop.run(_drive(target, bodies, clients, requests, report, ramp))]


@dataclass(frozen=True)
class _Reply:
    prompt: int
    client: int
    began: float
    seconds: float
    status: int
    timing: str
    body: bytes


async def _drive(
    target: Target, bodies: Sequence[bytes], clients: int, requests: int, report: Callable[[int], None], ramp: float
) -> list[_Reply]:
    numbers = itertools.count()
    done: list[_Reply] = []
    url, headers = f"{target.url}/v1/chat/completions", {**_JSON, **target.headers}
    patience = aiohttp.ClientTimeout(total=300)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=patience, headers=headers) as session:

        async def client(name: int) -> None:
            await asyncio.sleep(ramp * name / clients)
            while (number := next(numbers)) < requests:
                prompt = number % len(bodies)
                done.append(await _ask(session, url, bodies[prompt], prompt, name))
                report(len(done))

        await asyncio.gather(*(client(name) for name in range(clients)))
    return done


async def _ask(session: aiohttp.ClientSession, url: str, body: bytes, prompt: int, client: int) -> _Reply:
    began = time.perf_counter()
    try:
        async with session.post(url, data=body) as response:
            content = await response.read()
            seconds = time.perf_counter() - began
            timing = response.headers.get("server-timing", "")
            return _Reply(prompt, client, began, seconds, response.status, timing, content)
    except (aiohttp.ClientError, TimeoutError) as fault:
        return _Reply(prompt, client, began, time.perf_counter() - began, 0, "", repr(fault).encode())


def _body(target: Target, prompt: str, max_tokens: int) -> bytes:
    instruction = [{"role": "system", "content": target.instruction}] if target.instruction else []
    return json.dumps(
        {
            "model": target.model,
            "messages": [*instruction, {"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
        }
    ).encode()


def _read(reply: _Reply) -> ClientRequest:
    found = _ENGINE.search(reply.timing)
    engine = float(found[1]) / 1000 if found else None
    model, text, tokens = "", reply.body.decode(errors="replace"), 0
    if reply.status == 200:
        body = json.loads(reply.body)
        model, text = str(body["model"]), body["choices"][0]["message"]["content"]
        tokens = int(body["usage"]["completion_tokens"])
    return ClientRequest(
        reply.prompt, reply.client, reply.began, reply.seconds, reply.status, model, text, engine, tokens
    )
