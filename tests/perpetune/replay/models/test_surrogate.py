from __future__ import annotations

import pytest

from perpetune.records import Example
from perpetune.replay.models.surrogate import Surrogate


def row(input: str, output: str) -> Example:
    return Example(input=input, output=output, id=input, group=input, source="test")


ROWS = [row("the shop is open at nine", "opens at nine"), row("a parcel takes two days", "two days")]


def test_free_text_is_answered_by_the_nearest_known_request() -> None:
    learned = Surrogate("generation", 7).fit(ROWS, ())
    [reply] = learned.model.answer([row("how many days takes a parcel", "two days")])

    assert reply.answer == "two days"
    assert reply.confidence is not None and 0 < reply.confidence <= 1


@pytest.mark.parametrize("rows", [[row("a", "yes"), row("b", "yes")], [row(" ", "yes"), row("  ", "yes")]])
def test_a_single_known_answer_is_given_to_all(rows: list[Example]) -> None:
    for kind in ("classification", "generation"):
        [reply] = Surrogate(kind, 7).fit(rows, ()).model.answer([row("c", "no")])
        assert reply.answer == "yes"


def test_a_refresh_is_charged_the_given_minutes() -> None:
    assert Surrogate("generation", 7, minutes=3).fit(ROWS, ()).seconds == 180


def test_the_digest_depends_on_the_rows() -> None:
    learner = Surrogate("generation", 7)

    assert learner.fit(ROWS, ()).model.digest == learner.fit(ROWS[:1], ROWS[1:]).model.digest
    assert learner.fit(ROWS, ()).model.digest != learner.fit(ROWS[:1], ()).model.digest
