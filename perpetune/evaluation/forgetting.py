"""What a model has unlearned of all that it could do beside its task."""

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
from perpetune.model.chat_format import answer_tokens, prompt_tokens
from perpetune.params import EvaluateParams
from perpetune.records import Message
from perpetune.statistics.estimate import Estimate, bootstrap_mean

TEXTS_PER_BATCH = 12  # texts between two looks at the clock


class GeneralText(BaseModel):
    """A short text that any model should find likely, or the answer to what was `asked`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["prose", "facts", "arithmetic", "code", "language", "instruction"]
    text: str
    asked: str | None = None


def general_texts() -> list[GeneralText]:
    """The slice that ships with perpetune, written for it: the same for every task and version."""
    lines = files(__package__).joinpath("general.jsonl").read_text(encoding="utf-8").splitlines()
    return [GeneralText.model_validate_json(line) for line in lines]


def tokenize_texts(
    tokenizer: PreTrainedTokenizerBase, general: Sequence[GeneralText], context: int
) -> list[ScoredText]:
    """The texts that fit into `context` tokens; of an instruction only the answer is scored."""
    texts = [_encoded(tokenizer, each) for each in general]
    return [text for text in texts if text.scored_from < len(text.tokens) <= context]


def _encoded(tokenizer: PreTrainedTokenizerBase, general: GeneralText) -> ScoredText:
    if general.asked is None:
        return ScoredText(tuple(tokenizer(general.text, add_special_tokens=False)["input_ids"]), 1)
    prompt = prompt_tokens(tokenizer, [Message(role="user", content=general.asked)])
    return ScoredText((*prompt, *answer_tokens(tokenizer, general.text)), len(prompt))


def losses_in_time(
    seconds: float,
    before: Callable[[Sequence[ScoredText]], list[float]],
    after: Callable[[Sequence[ScoredText]], list[float]],
    texts: Sequence[ScoredText],
    seed: int,
) -> tuple[list[float], list[float]]:
    """The losses of both on the same texts: on all, or on those that there was time for, drawn by lot."""
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
    """How much the loss has risen, in nats a token, each text counting alike; its interval is a paired bootstrap.

    (Catastrophic forgetting: McCloskey and Cohen 1989; of fine-tuned language models: Luo et al. 2023, arXiv:2308.08747.)
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
