"""A base's tokenizer as engines use it: prompts of several versions, answers, and where answers end."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from perpetune.generation.prompt_format import TEMPLATE_AS_IT_IS, PromptFormat
from perpetune.model.chat.chat_format import answer_tokens, prompt_tokens, servable_messages, stop_tokens, with_format
from perpetune.model.weights import resolve
from perpetune.params import BaseParams
from perpetune.records import Message


class ChatTokenizer:
    """`tokenizer` with one copy for each format; `generation_eos` is `eos_token_id` of generation_config.json."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, generation_eos: int | Collection[int] | None) -> None:
        self._tokenizer = tokenizer
        self._generation_eos = generation_eos
        self._formatted: dict[PromptFormat, PreTrainedTokenizerBase] = {}

    def prompt(
        self, messages: Sequence[Message], tools: str | None = None, chosen: PromptFormat = TEMPLATE_AS_IT_IS
    ) -> list[int]:
        """The tokens of a prompt. Raises PromptRejected if the template rejects the conversation."""
        return prompt_tokens(self.formatted(chosen), messages, tools)

    def servable(self, messages: Sequence[Message], chosen: PromptFormat) -> tuple[Message, ...]:
        """The messages as another server should render them. Raises PromptRejected if it would read other tokens."""
        return servable_messages(self.formatted(chosen), messages)

    def template(self, chosen: PromptFormat) -> str | None:
        """The template with the format in it; None if the format changes nothing."""
        formatted = self.formatted(chosen)
        if formatted is self._tokenizer:
            return None
        return str(formatted.get_chat_template(tools=[]))

    def answer(self, text: str, chosen: PromptFormat = TEMPLATE_AS_IT_IS) -> list[int]:
        """The tokens of an answer with the end-of-turn token."""
        return answer_tokens(self.formatted(chosen), text)

    def plain(self, text: str) -> list[int]:
        """The tokens of a bare text."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, token: int) -> str:
        return str(self._tokenizer.decode([token]))

    @cached_property
    def stops(self) -> frozenset[int]:
        """The tokens at which an answer ends."""
        return stop_tokens(self._tokenizer, self._generation_eos)

    def formatted(self, chosen: PromptFormat) -> PreTrainedTokenizerBase:
        """The tokenizer whose template has the format in it."""
        if chosen not in self._formatted:
            self._formatted[chosen] = with_format(self._tokenizer, chosen)
        return self._formatted[chosen]


def load_chat_tokenizer(params: BaseParams, assets: Path) -> ChatTokenizer:
    """The tokenizer of a base whose weights are on another server; of a hub's model only the small files are fetched.

    Raises PerpetuneError if it is missing or cannot be fetched.
    """
    from perpetune.model.base import load_tokenizer  # late, because it imports torch

    folder = resolve(params, assets, weights=False)
    return ChatTokenizer(load_tokenizer(folder), _generation_eos(folder))


def _generation_eos(folder: Path) -> int | list[int] | None:
    """`eos_token_id` of a model's generation_config.json; None if it has none."""
    file = folder / "generation_config.json"
    if not file.is_file():
        return None
    found: int | list[int] | None = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
    return found
