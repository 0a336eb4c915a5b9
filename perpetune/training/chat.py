"""From conversations to tokens, in the model's own chat format."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2
from transformers import PreTrainedTokenizerBase

from perpetune.records import Message

# For base models that were never taught a chat format.
PLAIN_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n\n{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}"


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """The tokens after which the model is to answer."""
    text = _render(tokenizer, messages)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def answer_tokens(tokenizer: PreTrainedTokenizerBase, output: str) -> list[int]:
    """The tokens of an answer, closed by the end-of-turn token.

    They are cut apart from the prompt's, as they are when the model writes them one by one.
    """
    text = output if tokenizer.chat_template else " " + output
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    turns = [message.model_dump() for message in messages]
    try:
        return _apply(tokenizer, turns)
    except jinja2.TemplateError:
        # Mistral's and Gemma's templates refuse a system message: it goes before the first user turn.
        if not turns or turns[0]["role"] != "system":
            raise
        return _apply(tokenizer, _fold_system(turns))


def _apply(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]]) -> str:
    return str(
        tokenizer.apply_chat_template(
            turns,
            chat_template=None if tokenizer.chat_template else PLAIN_TEMPLATE,
            tokenize=False,
            add_generation_prompt=True,
        )
    )


def _fold_system(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    system, first, *rest = turns
    return [{"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}, *rest]
