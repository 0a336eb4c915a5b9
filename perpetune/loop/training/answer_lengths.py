"""Warnings before a training whose answers could not be served as they are trained."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from perpetune.model.chat.chat_format import reasons_by_default, target_tokens
from perpetune.params import Params
from perpetune.records import Example

REASONING_ENDS = "</think>"


def warnings_before_training(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example], params: Params
) -> dict[str, str]:
    """Sentences by name: answers that serving would cut off, and reasoning that does not fit the chat template.

    `tokenizer` is that of the base with the version's format.
    """
    found = {
        "answers_cut_off": _cut_off(tokenizer, rows, params),
        "reasoning": _reasoning(tokenizer, rows, params),
    }
    return {name: sentence for name, sentence in found.items() if sentence}


def _cut_off(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example], params: Params) -> str | None:
    if params.task.kind == "classification":
        return None
    limit = params.evaluate.max_new_tokens
    lengths = [len(target_tokens(tokenizer, row, params.task.instruction)) for row in rows]
    longer = sum(length > limit for length in lengths)
    if not longer:
        return None
    return (
        f"{longer:,} of {len(rows):,} training answers are longer than evaluate.max_new_tokens ({limit}), at which the "
        f"evaluation and the gateway cut answers off: the longest has {max(lengths)} tokens. Raise it, or lower "
        "clean.max_output_chars."
    )


def _reasoning(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example], params: Params) -> str | None:
    thinks = params.base.chat_template_kwargs.get("enable_thinking")
    reasoned = sum(REASONING_ENDS in row.output for row in rows)
    if reasoned and thinks is not True:
        return (
            f"{reasoned:,} of {len(rows):,} training answers have reasoning in them ({REASONING_ENDS}): set "
            "base.chat_template_kwargs: {enable_thinking: true}, so that the prompt leaves room for it."
        )
    if thinks is True and reasoned < len(rows):
        return (
            f"base.chat_template_kwargs has enable_thinking: true, but {len(rows) - reasoned:,} of {len(rows):,} training "
            f"answers have no reasoning in them ({REASONING_ENDS}): set it to false for direct answers."
        )
    if thinks is None and not reasoned and reasons_by_default(tokenizer):
        return (
            "the base reasons before it answers unless base.chat_template_kwargs has enable_thinking: false, and no "
            "training answer has reasoning in it: set it, so that prompts are as its makers write them for direct answers."
        )
    return None
