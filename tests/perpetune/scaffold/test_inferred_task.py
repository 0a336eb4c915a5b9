from __future__ import annotations

import pytest

from perpetune.records import Example, Message
from perpetune.scaffold.inferred_task import inferred_task


def row(number: int, output: str, system: str | None = "Sort it.") -> Example:
    turns = (Message(role="user", content=f"question {number}"),)
    told = (Message(role="system", content=system), *turns) if system is not None else ()
    return Example(input=turns[0].content, output=output, id=str(number), group=str(number), source="t", messages=told)


def test_few_short_answers_are_labels() -> None:
    found = inferred_task([row(n, ("yes", "no", " no\n")[n % 3]) for n in range(30)])

    assert (found.kind, found.labels, found.instruction) == ("classification", ("no", "yes"), "Sort it.")
    assert found.reasons == (
        "instruction: the system message of 30 of 30 rows",
        "kind: classification, since there are 2 different answers in 30 rows: no, yes",
    )


@pytest.mark.parametrize(
    ("outputs", "why"),
    [
        ([f"answer {n}" for n in range(30)], "free text"),
        (["always the same"] * 30, "free text"),
        ([("a" * 90, "b")[n % 2] for n in range(30)], "free text"),
        ([("first\nsecond", "b")[n % 2] for n in range(30)], "free text"),
        ([f'{{"team": {n % 2}}}' for n in range(30)], "JSON objects"),
    ],
)
def test_other_answers_are_text(outputs: list[str], why: str) -> None:
    found = inferred_task([row(n, output) for n, output in enumerate(outputs)])

    assert (found.kind, found.labels) == ("generation", ())
    assert why in found.reasons[1]


def test_a_system_message_that_most_rows_do_not_share_is_no_instruction() -> None:
    rows = [row(n, "yes", system=f"You are {n % 3}.") for n in range(30)]
    assert inferred_task(rows).instruction == ""
    assert "of 3 system messages is in 10 of 30 rows only" in inferred_task(rows).reasons[0]
    assert inferred_task([row(n, "yes", system=None) for n in range(3)]).instruction == ""


def test_what_is_given_is_taken() -> None:
    rows = [row(n, f"answer {n % 7}") for n in range(14)]
    found = inferred_task(rows, "Mine.", "classification")

    assert (found.instruction, found.kind, len(found.labels)) == ("Mine.", "classification", 7)


def test_a_label_that_occurs_once_is_named() -> None:
    rows = [row(n, ("yes", "no")[n % 2]) for n in range(30)] + [row(99, "yess")]
    assert inferred_task(rows).reasons[-1] == "labels that occur once: yess: check that they are meant"
