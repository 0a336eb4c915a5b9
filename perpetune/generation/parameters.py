"""How an answer is to be written: the parameters of OpenAI's chat API that bear on the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from perpetune.errors import PerpetuneError
from perpetune.generation.answer import TokenLogprob


@dataclass(frozen=True)
class GenerationConfig:
    """OpenAI's parameters under OpenAI's names; hashable, so that requests alike can share a batch.

    `temperature` 0 is greedy. `top_logprobs` None asks for no log probabilities, 0 for those of the tokens written
    alone. `json_schema` is the text of the JSON schema that the answer must satisfy. `own_format`
    says that the client asked for a response_format, be it free text: no other is put in its place. `tools` and
    `tool_choice` are the request's own JSON, for engines that know tools.
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
    own_format: bool = False
    tools: str | None = None
    tool_choice: str | None = None

    def within(self, max_tokens: int | None) -> GenerationConfig:
        """The same with no more than so many tokens."""
        if max_tokens is None or max_tokens >= self.max_tokens:
            return self
        return replace(self, max_tokens=max_tokens)


@dataclass(frozen=True)
class Delta:
    """A piece of the answer numbered `index`, as soon as it is known. Deltas of one answer add up to its text."""

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[dict[str, object], ...] = ()


OnDelta = Callable[[Delta], None]


class BadSchema(PerpetuneError):
    """A JSON schema that no answer can be made to satisfy here."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the JSON schema of the answer cannot be followed: {why}", do="correct the schema")
