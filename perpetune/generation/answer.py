"""An answer of a model: text, probabilities, token counts and compute time."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from perpetune.errors import PerpetuneError


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token, its natural log-probability, and the top tokens at its position with theirs.

    The tokens of an answer concatenate to its text. `utf8` are the token's bytes if they are not those of `token`: of
    a character in several tokens, the last one has the text and each its own bytes. `top_utf8` are those of `top`.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()
    utf8: bytes | None = None
    top_utf8: tuple[bytes | None, ...] = ()


@dataclass(frozen=True)
class Answer:
    """One answer to one conversation.

    For classification `probabilities` maps each label to its probability among the labels (they sum to 1), and
    `confidence` is that of `text`; both are None for free text. `seconds` is the batch's compute time divided over its
    rows. `logprobs` are set if they were requested, `tool_calls` (in OpenAI's format) if the model called tools. Answers
    with the same `batch` were computed together, so that their seconds are one measurement; None is alone. `likelihood`
    is the geometric mean of the probabilities of a free text's tokens, if the engine knows them: how sure the model is of
    the text, whatever its length.
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
    likelihood: float | None = None
    batch: str | None = field(default=None, compare=False)


def new_batch() -> str:
    """A name for answers that are computed together, which no other process gives."""
    return uuid.uuid4().hex[:12]


class PromptTooLong(PerpetuneError):
    """The conversation does not fit the model's context.

    The prompt has `tokens`; the context has `limit` for it, beside the `answer` tokens that the answer may have.
    """

    def __init__(self, tokens: int, limit: int, answer: int = 0) -> None:
        super().__init__(f"the prompt has {tokens} tokens; the context leaves {limit} for it", do="shorten the request")
        self.tokens = tokens
        self.limit = limit
        self.answer = answer


class PromptRejected(PerpetuneError):
    """The conversation cannot be written in the model's chat format."""
