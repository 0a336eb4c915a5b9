"""`python -m chaos.engine --port PORT --base FOLDER`: vLLM's API over a tiny model with real adapters.

The server is the one that the tests of the engine use; the probabilities are the model's, so that the gateway's parity
check compares what was trained with what is served.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from aiohttp import web
from peft import PeftModel
from transformers import AutoModelForCausalLM

from perpetune.model.chat.chat_tokenizer import load_chat_tokenizer
from perpetune.params import BaseParams
from perpetune.testing.fake_vllm import BASE, FakeVllm


class TinyModel:
    """A causal language model with adapters by path, which are loaded when they are first asked."""

    def __init__(self, folder: Path) -> None:
        self._base = AutoModelForCausalLM.from_pretrained(folder).eval()
        self._adapted: PeftModel | None = None
        self._names: dict[str, str] = {}

    def continued(
        self, adapter: str | None, prompt: Sequence[int], most: int, named: Sequence[int], stops: frozenset[int]
    ) -> list[tuple[int, dict[int, float]]]:
        """The likeliest tokens after the prompt, each with its log-probability and those of the tokens `named`."""
        steps: list[tuple[int, dict[int, float]]] = []
        tokens = list(prompt)
        while len(steps) < most and (not steps or steps[-1][0] not in stops):
            scores = self._log_probabilities(adapter, tokens)
            written = int(scores.argmax())
            steps.append((written, {token: float(scores[token]) for token in {written, *named}}))
            tokens.append(written)
        return steps

    @torch.inference_mode()
    def _log_probabilities(self, adapter: str | None, tokens: Sequence[int]) -> torch.Tensor:
        network = self._select(adapter)
        ids = torch.tensor([list(tokens)])
        if adapter is None and self._adapted is not None:
            with self._adapted.disable_adapter():
                logits = network(ids).logits
        else:
            logits = network(ids).logits
        return torch.log_softmax(logits[0, -1].float(), dim=-1)

    def _select(self, adapter: str | None) -> Any:
        if adapter is None:
            return self._adapted or self._base
        if adapter not in self._names:
            name = f"adapter{len(self._names)}"
            if self._adapted is None:
                self._adapted = PeftModel.from_pretrained(self._base, adapter, adapter_name=name).eval()
            else:
                self._adapted.load_adapter(adapter, name)
            self._names[adapter] = name
        assert self._adapted is not None
        self._adapted.set_adapter(self._names[adapter])
        return self._adapted


def engine(folder: Path) -> FakeVllm:
    chat = load_chat_tokenizer(BaseParams(model=f"path:{folder}"), Path())
    model = TinyModel(folder)
    server = FakeVllm(chat=chat)

    async def answer(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        adapter = None if body["model"] == BASE else server.adapters[body["model"]]
        named = body.get("logprob_token_ids") or []
        choices = []
        for index, prompt in enumerate(body["prompt"]):
            steps = model.continued(adapter, prompt, body["max_tokens"], named, chat.stops)
            logprobs = {
                "tokens": [f"token_id:{written}" for written, _ in steps],
                "top_logprobs": [{f"token_id:{one}": value for one, value in found.items()} for _, found in steps],
            }
            choices.append({"index": index, "logprobs": logprobs})
        return web.json_response({"choices": choices})

    server.reply = answer
    return server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--base", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    web.run_app(engine(arguments.base).app(), host="127.0.0.1", port=arguments.port, print=None)


if __name__ == "__main__":
    main()
