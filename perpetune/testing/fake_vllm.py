"""A small server with the parts of vLLM 0.32's API that the engine uses.

`python -m perpetune.testing.fake_vllm --port PORT --base FOLDER` runs it as a separate process, which tests may kill.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from perpetune.engines.vllm_engine import Chat
from perpetune.generation.prompt_format import TEMPLATE_AS_IT_IS, PromptFormat
from perpetune.params import BaseParams
from perpetune.records import Message

END = 0
BASE = "the-base"
MASS = "mass.json"  # in an adapter's folder: the probability of each text

Reply = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


class CharacterChat:
    """A tokenizer whose tokens are characters, as the engine uses it. `frozen` is the template of a version with a day."""

    stops = frozenset({END})

    def __init__(self, frozen: str | None = None) -> None:
        self._frozen = frozen

    def prompt(
        self, messages: Sequence[Message], tools: str | None = None, chosen: PromptFormat = TEMPLATE_AS_IT_IS
    ) -> list[int]:
        return rendered(messages)

    def servable(self, messages: Sequence[Message], chosen: PromptFormat) -> tuple[Message, ...]:
        return tuple(messages)

    def template(self, chosen: PromptFormat) -> str | None:
        return self._frozen if chosen.day else None

    def answer(self, text: str, chosen: PromptFormat = TEMPLATE_AS_IT_IS) -> list[int]:
        return [*map(ord, text), END]

    def plain(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def text(self, token: int) -> str:
        return chr(token)


@dataclass
class FakeVllm:
    """A language model that generates each text of `mass` with its probability.

    An adapter may have another `mass`, in its file `MASS`. An answer takes `seconds`.
    """

    mass: Mapping[str, float] = field(default_factory=lambda: {"good": 1.0})
    chat: Chat = field(default_factory=CharacterChat)
    reply: Reply | None = None
    seconds: float = 0.0
    adapters: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._note])
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_post("/v1/completions", self._answer)
        return app

    def asked(self, path: str) -> list[dict[str, Any]]:
        return [body for one, body in self.requests if one == path]

    @web.middleware
    async def _note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.method == "POST":
            self.requests.append((request.path, await request.json()))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        response: web.StreamResponse = await handler(request)
        return response

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, _request: web.Request) -> web.Response:
        listed = [{"id": BASE, "parent": None}, *({"id": name, "parent": BASE} for name in self.adapters)]
        return web.json_response({"object": "list", "data": listed})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["lora_name"] in self.adapters:
            return fault(400, f"The lora adapter '{body['lora_name']}' has already been loaded. If you want ...")
        if not (Path(body["lora_path"]) / "adapter_config.json").is_file():
            return fault(404, "Loading lora failed: No adapter found for <path>")
        self.adapters[body["lora_name"]] = body["lora_path"]
        return web.Response(text="Success")

    async def _unload(self, request: web.Request) -> web.Response:
        if self.adapters.pop((await request.json())["lora_name"], None) is None:
            return fault(404, "The lora adapter cannot be found.")
        return web.Response(text="Success")

    async def _tokenize(self, request: web.Request) -> web.Response:
        return web.json_response({"tokens": self.chat.plain((await request.json())["prompt"])})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body["model"] not in (BASE, *self.adapters):
            return fault(404, f"The model `{body['model']}` does not exist.", "model")
        if self.reply:
            return await self.reply(request, body)
        await asyncio.sleep(self.seconds)
        mass = {tuple(self.chat.answer(text)): value for text, value in self._mass(body["model"]).items()}
        choices = []
        for index, prompt in enumerate(body["prompt"]):
            steps = self._write(mass, _begun(mass, prompt), body["logprob_token_ids"], body["max_tokens"])
            logprobs = {
                "tokens": [f"token_id:{written}" for written, _ in steps],
                "top_logprobs": [{f"token_id:{one}": value for one, value in found.items()} for _, found in steps],
            }
            choices.append({"index": index, "logprobs": logprobs})
        return web.json_response({"choices": choices[::-1]})

    def _mass(self, adapter: str) -> Mapping[str, float]:
        if adapter == BASE:
            return self.mass
        file = Path(self.adapters[adapter]) / MASS
        return json.loads(file.read_text()) if file.is_file() else self.mass

    def _write(
        self, mass: Mapping[tuple[int, ...], float], text: tuple[int, ...], named: Sequence[int], most: int
    ) -> list[tuple[int, dict[int, float]]]:
        """The likeliest tokens after `text`, each with its log-probability and those of the tokens `named`."""
        steps: list[tuple[int, dict[int, float]]] = []
        while len(steps) < most and text not in mass:
            following: dict[int, float] = {}
            for tokens, probability in mass.items():
                if tokens[: len(text)] == text:
                    following[tokens[len(text)]] = following.get(tokens[len(text)], 0) + probability
            total = sum(following.values())
            written = max(following, key=following.__getitem__)
            found = {one: math.log(following[one] / total) if one in following else -50.0 for one in (written, *named)}
            steps.append((written, found))
            text = (*text, written)
        return steps


def _begun(mass: Mapping[tuple[int, ...], float], prompt: Sequence[int]) -> tuple[int, ...]:
    """The beginning of an answer at the end of a prompt: the longest."""
    longest = max(map(len, mass))
    ends = (tuple(prompt[len(prompt) - length :]) for length in range(longest - 1, 0, -1))
    return next((end for end in ends if any(tokens[: len(end)] == end for tokens in mass)), ())


def fault(status: int, message: str, param: str | None = None) -> web.Response:
    return web.json_response({"error": {"message": message, "param": param, "code": status}}, status=status)


def rendered(messages: Sequence[Message]) -> list[int]:
    """A conversation as tokens, with a line break at the end of a message."""
    return [token for turn in messages for token in (*map(ord, turn.role + turn.content), END, ord("\n"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.0, help="duration of an answer")
    parser.add_argument("--base", type=Path, required=True, help="folder of the base, for its tokenizer")
    arguments = parser.parse_args()
    from perpetune.model.chat.chat_tokenizer import load_chat_tokenizer  # late, because it imports torch

    chat = load_chat_tokenizer(BaseParams(model=f"path:{arguments.base}"), Path())
    web.run_app(FakeVllm(seconds=arguments.seconds, chat=chat).app(), host="127.0.0.1", port=arguments.port, print=None)


if __name__ == "__main__":
    main()
