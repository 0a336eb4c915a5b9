"""A prompt to a larger model as a rule."""

from __future__ import annotations

from dataclasses import dataclass

from perpetune.errors import PerpetuneError


@dataclass(frozen=True)
class Prompt:
    """A rule that asks a model behind OpenAI's API, at an address without `/chat/completions`.

    `instruction` says what the labels mean; without one it is the task's. `key_variable` is the environment variable with
    the API key. The prices are in dollars for a million tokens, read and written, and only for the estimate that is
    shown first. `concurrency` is the number of requests at once.
    """

    url: str
    model: str
    instruction: str | None = None
    key_variable: str = "PERPETUNE_REMOTE_API_KEY"
    dollars_read: float | None = None
    dollars_written: float | None = None
    concurrency: int = 8

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise PerpetuneError(f"url={self.url!r} is no http address", where="Prompt", do="write https://.../v1")
        if not self.model or self.concurrency < 1:
            raise PerpetuneError("it needs a model, and a concurrency of 1 or more", where="Prompt")
