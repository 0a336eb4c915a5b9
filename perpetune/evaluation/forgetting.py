"""Forgetting: the rise of the loss on general text after fine-tuning."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedTokenizerBase

from perpetune.inference.likelihood import ScoredText
from perpetune.model.chat.chat_format import answer_tokens, prompt_tokens
from perpetune.params import EvaluateParams
from perpetune.records import Message
from perpetune.statistics.estimate import Estimate, bootstrap_mean

TEXTS_PER_BATCH = 12  # between two checks of the time limit


class GeneralText(BaseModel):
    """A short text that any language model should find likely; with `prompt`, the answer to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["prose", "facts", "arithmetic", "code", "language", "instruction"]
    text: str
    prompt: str | None = None


def general_texts() -> list[GeneralText]:
    """The bundled general texts, the same for every task and version."""
    lines = files(__package__).joinpath("general.jsonl").read_text(encoding="utf-8").splitlines()
    return [GeneralText.model_validate_json(line) for line in lines]


def tokenize_texts(
    tokenizer: PreTrainedTokenizerBase, general: Sequence[GeneralText], context: int
) -> list[ScoredText]:
    """Tokenize the texts that fit into `context` tokens; with a prompt, only the answer is scored."""
    texts = [_encoded(tokenizer, each) for each in general]
    return [text for text in texts if text.scored_from < len(text.tokens) <= context]


def _encoded(tokenizer: PreTrainedTokenizerBase, general: GeneralText) -> ScoredText:
    if general.prompt is None:
        return ScoredText(tuple(tokenizer(general.text, add_special_tokens=False)["input_ids"]), 1)
    prompt = prompt_tokens(tokenizer, [Message(role="user", content=general.prompt)])
    return ScoredText((*prompt, *answer_tokens(tokenizer, general.text)), len(prompt))


def losses_in_time(
    seconds: float,
    before: Callable[[Sequence[ScoredText]], list[float]],
    after: Callable[[Sequence[ScoredText]], list[float]],
    texts: Sequence[ScoredText],
    seed: int,
) -> tuple[list[float], list[float]]:
    """The losses of two models on the same texts, in random order until the time limit."""
    drawn = list(texts)
    random.Random(seed).shuffle(drawn)
    one: list[float] = []
    other: list[float] = []
    until = time.monotonic() + seconds
    for start in range(0, len(drawn), TEXTS_PER_BATCH):
        if start and time.monotonic() > until:
            break
        some = drawn[start : start + TEXTS_PER_BATCH]
        one += before(some)
        other += after(some)
    return one, other


def forgetting(before: Sequence[float], after: Sequence[float], params: EvaluateParams) -> Estimate:
    """The mean rise of the loss in nats per token, over texts, with a paired bootstrap interval.

    (Catastrophic forgetting: McCloskey and Cohen 1989; in fine-tuned language models: Luo et al. 2023,
    arXiv:2308.08747.)
    """
    rises = np.asarray(after) - np.asarray(before)
    return bootstrap_mean(
        rises.tolist(),
        lowest=float(rises.min()),
        highest=float(rises.max()),
        confidence=params.confidence,
        samples=params.bootstrap_samples,
        seed=params.seed,
    )
