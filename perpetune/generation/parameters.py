"""Generation parameters, named as in OpenAI's chat API, and the deltas of a streamed answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from perpetune.errors import PerpetuneError
from perpetune.generation.answer import TokenLogprob


@dataclass(frozen=True)
class GenerationConfig:
    """OpenAI's generation parameters. Hashable, so that equal requests can share a batch.

    `temperature` 0 is greedy. `top_logprobs` None requests no log-probabilities, 0 only those of the generated tokens.
    `json_schema` is the text of the JSON schema that the answer must satisfy. `has_response_format` is true if the
    client set response_format itself, which the task's output schema then does not replace. `tools` and `tool_choice`
    are the request's JSON, for engines that support tools.
    """

    max_tokens: int
    n: int = 1
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    top_logprobs: int | None = None
    json_schema: str | None = None
    has_response_format: bool = False
    tools: str | None = None
    tool_choice: str | None = None

    def capped(self, max_tokens: int | None) -> GenerationConfig:
        """A copy with at most this many tokens; None sets no limit."""
        if max_tokens is None or max_tokens >= self.max_tokens:
            return self
        return replace(self, max_tokens=max_tokens)


@dataclass(frozen=True)
class Delta:
    """A chunk of the streamed answer number `index`. The deltas of an answer concatenate to its text.

    `tokens` is the number of tokens generated since the last one, and `prompt_tokens` that of the prompt, 0 if the
    engine does not know it yet. They matter if the stream ends early.
    """

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[dict[str, object], ...] = ()
    tokens: int = field(default=1, compare=False)
    prompt_tokens: int = field(default=0, compare=False)


OnDelta = Callable[[Delta], None]


class BadSchema(PerpetuneError):
    """A JSON schema that generation cannot be constrained to."""

    def __init__(self, why: str) -> None:
        super().__init__(f"answers cannot be constrained to this JSON schema: {why}", do="correct the schema")
