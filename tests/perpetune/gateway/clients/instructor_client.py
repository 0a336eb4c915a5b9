"""instructor, in the modes that OpenAI-compatible servers offer. Its default is a tool that is named."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import instructor
import openai
from cases import BASE, run
from pydantic import BaseModel, field_validator

HELLO: Any = [{"role": "user", "content": "review"}]


class Review(BaseModel):
    """What a review says."""

    stars: int
    reason: str


class StrictReview(Review):
    @field_validator("stars")
    @classmethod
    def at_most_three(cls, stars: int) -> int:
        if stars > 3:
            raise ValueError("too many")
        return stars


def client(mode: instructor.Mode) -> Any:
    return instructor.from_openai(openai.OpenAI(base_url=BASE, api_key="none", max_retries=0), mode=mode)


def fills_a_model(mode: instructor.Mode) -> None:
    made = client(mode).chat.completions.create(model="reviews", messages=HELLO, response_model=Review, max_retries=0)
    assert made.stars == 4, made


def by_a_tool() -> None:
    fills_a_model(instructor.Mode.TOOLS)


def by_json() -> None:
    fills_a_model(instructor.Mode.JSON)


def by_a_json_schema() -> None:
    fills_a_model(instructor.Mode.JSON_SCHEMA)


def in_part_while_it_streams() -> None:
    parts: Iterable[Review] = client(instructor.Mode.JSON_SCHEMA).chat.completions.create_partial(
        model="reviews", messages=HELLO, response_model=Review
    )
    assert [*parts][-1].stars == 4


def asks_again_when_the_answer_is_invalid() -> None:
    said = "an invalid answer was accepted"
    try:
        client(instructor.Mode.JSON_SCHEMA).chat.completions.create(
            model="reviews", messages=HELLO, response_model=StrictReview, max_retries=2
        )
    except Exception as fault:
        said = str(fault)
    assert "too many" in said


run(by_a_tool, by_json, by_a_json_schema, in_part_while_it_streams, asks_again_when_the_answer_is_invalid)
