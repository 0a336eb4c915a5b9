"""What a model said, with what it took to say it."""

from __future__ import annotations

from dataclasses import dataclass

from perpetune.errors import PerpetuneError


@dataclass(frozen=True)
class TokenLogprob:
    """A token that was written, its natural log probability, and the likeliest tokens in its place with theirs."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Answer:
    """One answer to one conversation.

    For classification `probabilities` maps each label to its probability among the labels (they sum
    to 1) and `confidence` is that of `text`; both are None for free text. `seconds` is the row's
    share of the compute time of its batch. `logprobs` are there where they were asked for, and
    `tool_calls`, in OpenAI's shape, where the model called tools.
    """

    text: str
    confidence: float | None
    probabilities: dict[str, float] | None
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    seconds: float
    logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[dict[str, object], ...] = ()


class PromptTooLong(PerpetuneError):
    """A conversation that the model cannot read to its end."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(
            f"the request has {tokens} tokens, and the model reads {limit} with its answer", do="shorten the request"
        )
