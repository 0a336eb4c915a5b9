"""Models elsewhere: a judge, a larger one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from perpetune.params.sections.kinds import Count, Positive, Section


class LargerModel(Section):
    """A model of another provider, at its price per token, with which costs are compared."""

    name: Annotated[str, Field(min_length=1)]
    """What reports call it."""
    dollars_per_million_prompt_tokens: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Price of the prompt. Unit: US dollars for a million tokens."""
    dollars_per_million_completion_tokens: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Price of the answer. Unit: US dollars for a million tokens."""


class RemoteModel(Section):
    """A model on another server, at the address to which OpenAI's client would append `/chat/completions`."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")]
    """The address without `/chat/completions`."""
    model: Annotated[str, Field(min_length=1)]
    """The name that the server knows the model by."""


class JudgeParams(RemoteModel):
    """A larger model that grades answers from 0 to 1. Requests, answers and some reference rows are sent to it."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")]
    """The address without `/chat/completions`."""
    model: Annotated[str, Field(min_length=1)]
    """The name that the server knows the model by."""
    rubric: str | None = None
    """What makes an answer right, in words: `1` for what, `0` for what. `null`: as the task's instruction asks."""
    key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "PERPETUNE_REMOTE_API_KEY"
    """The environment variable with its API key."""
    dollars_read: Positive | None = None
    """The price of a million tokens that it reads. Unit: US dollars."""
    dollars_written: Positive | None = None
    """The price of a million tokens that it writes. Unit: US dollars."""
    dollars_per_month: Positive | None = None
    """It is asked nothing more in a calendar month (UTC) after so much, by these prices. `null`: no limit. Unit: US dollars."""
    max_tokens: Count = 64
    """Longest reply; a grade takes a few tokens, a model that reasons first more. Unit: tokens."""
    concurrency: Count = 4
    """Requests at once. Unit: requests."""
    timeout_seconds: Positive = 60
    """A reply that takes longer ends the asking of this check. Unit: seconds."""

    @model_validator(mode="after")
    def _has_prices_for_its_budget(self) -> JudgeParams:
        if self.dollars_per_month is not None and self.dollars_read is None and self.dollars_written is None:
            raise ValueError(
                "dollars_per_month needs dollars_read or dollars_written: without a price nothing is counted"
            )
        return self
