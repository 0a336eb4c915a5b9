"""Path of the release API that asks a loaded version, as before a rollback, or for samples of its answers.

What it answers is not logged as traffic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from perpetune.engines.engine import Engine, Overloaded
from perpetune.gateway.api.chat.output_constraint import constrained
from perpetune.gateway.api.errors import ApiError
from perpetune.gateway.api.release_routes import CheckRequest, Identity, refusing_pages
from perpetune.gateway.releases.follower import Follower, UnknownVersion
from perpetune.generation.parameters import GenerationConfig
from perpetune.model.release import Release
from perpetune.records import Message

MOST_CONVERSATIONS = 64
MOST_SAMPLES = 20
_MAX_CONCURRENT = 2  # leaves capacity for user requests
PREVIOUS = "previous"


class AnswersRequest(CheckRequest):
    """`version`: a loaded version, or "previous". `conversations`: messages, as of a request.

    `n` answers are drawn of each at a `temperature`; without them it is one, the likeliest.
    """

    version: str = PREVIOUS
    conversations: Annotated[list[tuple[Message, ...]], Field(max_length=MOST_CONVERSATIONS)]
    n: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] = 1
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0


class ReplayedAnswer(BaseModel):
    """The answer, or the error that the version failed with. `outputs` are all answers, if several were asked for."""

    output: str | None = None
    outputs: list[str] = []
    error: str | None = None


class AnswersReply(BaseModel):
    """The version that answered, the version that serves, and an answer to each conversation."""

    version: str
    serving: str | None
    answers: list[ReplayedAnswer]


def add_replay_path(
    app: FastAPI,
    follower: Follower,
    engine: Engine,
    identity: Identity,
    origins: Collection[str],
    max_new_tokens: int,
    errors: dict[int | str, dict[str, Any]],
) -> None:
    """Add `POST /v1/release/answers`, guarded as the others; `errors` are its OpenAPI error responses."""

    @app.post("/v1/release/answers", responses=errors, dependencies=[refusing_pages(origins)])
    async def answers(request: AnswersRequest) -> AnswersReply:
        """Ask a loaded version, without logging. The requests of users come first."""
        identity.require(request)
        version = follower.previous if request.version == PREVIOUS else request.version
        if version is None:
            raise ApiError(409, "There is no previous version.", code="no_previous")
        try:
            with follower.using(version) as routed:
                generation = GenerationConfig(max_new_tokens, n=request.n, temperature=request.temperature)
                given = await _answers(engine, routed.release, request.conversations, generation)
        except UnknownVersion:
            raise ApiError(404, f"Version {version} is not loaded.", param="version", code="not_loaded") from None
        return AnswersReply(version=version, serving=follower.state.serving, answers=given)


async def _answers(
    engine: Engine, release: Release, conversations: Sequence[tuple[Message, ...]], asked: GenerationConfig
) -> list[ReplayedAnswer]:
    generation = constrained(asked, release).capped(release.max_new_tokens)
    concurrency = asyncio.Semaphore(_MAX_CONCURRENT)

    async def answer(messages: tuple[Message, ...]) -> ReplayedAnswer:
        async with concurrency:
            while True:
                try:
                    given = await engine.answer(release.version, release.conversation(messages), generation)
                    outputs = [each.text for each in given]
                    return ReplayedAnswer(output=outputs[0], outputs=outputs if asked.n > 1 else [])
                except Overloaded as busy:
                    await asyncio.sleep(busy.retry_after)
                except Exception as fault:  # that it fails is an answer, too
                    return ReplayedAnswer(error=type(fault).__name__)

    return list(await asyncio.gather(*(answer(messages) for messages in conversations)))
