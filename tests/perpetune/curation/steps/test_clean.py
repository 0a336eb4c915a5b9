from __future__ import annotations

from collections.abc import Callable

from perpetune.curation.quarantine import by_reason
from perpetune.curation.rows.sources import RULES
from perpetune.curation.steps import clean as steps
from perpetune.curation.steps.clean import clean
from perpetune.params import CleanParams, TaskParams
from perpetune.records import Example, Message

Make = Callable[..., Example]
Task = Callable[..., TaskParams]

LIMITS = CleanParams(max_input_chars=20, max_output_chars=10, min_label_rows=1)


def test_texts_are_tidied(example: Make, task: Task) -> None:
    row = example(" cafe\u0301\r\n\x07bar\ufeff ", "yes\x07 ").model_copy(
        update={"messages": (Message(role="system", content=" s "), Message(role="user", content=" cafe\u0301"))}
    )
    (kept,) = clean([row], LIMITS, task()).kept

    assert (kept.input, kept.output) == ("café\nbar", "yes")
    assert [message.content for message in kept.messages] == ["s", "café"]


def test_empty_and_long_texts_are_quarantined(example: Make, task: Task) -> None:
    rows = [example("\x07"), example("a" * 21), example("b", "c" * 11), example("d" * 20)]
    outcome = clean(rows, LIMITS, task())

    assert [row.input for row in outcome.kept] == ["d" * 20]
    assert by_reason(outcome.quarantined) == {steps.EMPTY: 1, steps.LONG_INPUT: 1, steps.LONG_OUTPUT: 1}


def test_a_label_has_one_spelling(example: Make, task: Task) -> None:
    rows = [example("a", "Good"), example("b", "good"), example("c", "good"), example("d", "BAD")]

    assert {row.output for row in clean(rows, LIMITS, task()).kept} == {"good", "BAD"}
    assert {row.output for row in clean(rows, LIMITS, task(labels=("Good", "Bad"))).kept} == {"Good", "Bad"}


def test_labels_that_the_task_does_not_have_are_quarantined(example: Make, task: Task) -> None:
    outcome = clean([example("a", "good"), example("b", "goood")], LIMITS, task(labels=("good", "bad")))

    assert [row.input for row in outcome.kept] == ["a"]
    assert by_reason(outcome.quarantined) == {steps.UNKNOWN: 1}


def test_duplicates_go_within_their_group_only(example: Make, task: Task) -> None:
    rows = [example("Hi you"), example("hi  YOU", id="2"), example("hi you", group="elsewhere")]
    outcome = clean(rows, LIMITS, task())

    assert len(outcome.kept) == 2
    assert by_reason(outcome.quarantined) == {steps.DUPLICATE: 1}


def test_the_majority_settles_a_conflict(example: Make, task: Task) -> None:
    rows = [example("q", "yes", id=str(n)) for n in range(2)] + [example("q", "no", id="3")]
    outcome = clean(rows, LIMITS, task())

    assert [row.output for row in outcome.kept] == ["yes"]
    assert by_reason(outcome.quarantined) == {steps.DUPLICATE: 1, steps.OUTVOTED: 1}


def test_the_newest_settles_a_conflict_before_the_majority(example: Make, task: Task) -> None:
    rows = [example("q", "yes", id=str(n), hour=n) for n in range(2)] + [example("q", "no", id="3", hour=3)]
    outcome = clean(rows, LIMITS, task())

    assert [row.output for row in outcome.kept] == ["no"]
    assert by_reason(outcome.quarantined) == {steps.OUTDATED: 2}


def test_a_conflict_that_nothing_settles_is_quarantined(example: Make, task: Task) -> None:
    outcome = clean([example("q", "yes"), example("q", "no"), example("r")], LIMITS, task())

    assert [row.input for row in outcome.kept] == ["r"]
    assert by_reason(outcome.quarantined) == {steps.UNDECIDED: 2}
    assert sorted(outcome.quarantined[0].detail.split(", ")) == ["no (1)", "yes (1)"]


def test_traffic_is_not_weighed_against_curated_rows(example: Make, task: Task) -> None:
    outcome = clean([example("q", "yes"), example("q", "no", hour=1, source="traffic")], LIMITS, task())

    assert len(outcome.kept) == 2


def test_free_text_may_have_several_answers(example: Make, task: Task) -> None:
    rows = [example("q", "yes"), example("q", "no"), example("q", "NO", id="again")]
    outcome = clean(rows, LIMITS.model_copy(update={"min_label_rows": 5}), task("generation"))

    assert sorted(row.output.lower() for row in outcome.kept) == ["no", "yes"]
    assert by_reason(outcome.quarantined) == {steps.DUPLICATE: 1}


def test_outputs_that_break_the_schema_are_quarantined_with_place_and_reason(example: Make, task: Task) -> None:
    rows = [
        example("a", '{"b":2.0,"a":"\\u00e9"}'),
        example("b", '{"a": 1}'),
        example("c", "a: x"),
        example("d", '{"a": "x"}').model_copy(update={"references": ('{"a":"y"}',)}),
        example("e", '{"a": "x"}').model_copy(update={"references": ("[]",)}),
    ]
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}
    limits = LIMITS.model_copy(update={"max_output_chars": 100})
    outcome = clean(rows, limits, task("generation", output_schema=schema))

    kept = {row.input: (row.output, row.references) for row in outcome.kept}
    assert kept == {"a": ('{"a": "é", "b": 2}', ()), "d": ('{"a": "x"}', ('{"a": "y"}',))}
    assert {row.reason for row in outcome.quarantined} == {steps.INVALID}
    details = {row.example.input: row.detail for row in outcome.quarantined}
    assert details["b"] == "a: 1 is not of type 'string'"
    assert details["c"].startswith("not JSON: ")
    assert details["e"] == "[] is not of type 'object'"


def test_rows_that_list_each_other_do_not_contradict(example: Make, task: Task) -> None:
    def row(output: str, *references: str) -> Example:
        return example("q", output).model_copy(update={"references": references})

    def kept(*rows: Example) -> list[tuple[str, tuple[str, ...]]]:
        return [(row.output, row.references) for row in clean(rows, LIMITS, task()).kept]

    assert sorted(kept(row("no", "Maybe"), row("maybe", "no"))) == [("maybe", ("no",)), ("no", ("maybe",))]
    assert kept(row("no", "maybe"), row("maybe")) == []
    assert {output for output, _ in kept(row("no", "maybe"), row("maybe", "no"), row("yes"))} == {"no", "maybe"}


def test_duplicates_leave_their_references(example: Make, task: Task) -> None:
    rows = [
        example("q", "no", id="1", hour=1).model_copy(update={"references": ("nope",)}),
        example("Q", "no", id="2", hour=2).model_copy(update={"references": ("nay", " no ")}),
    ]
    (kept,) = clean(rows, LIMITS, task()).kept
    assert (kept.id, kept.references) == ("2", ("nay", "nope"))


def test_rare_labels_are_quarantined_after_all_else(example: Make, task: Task) -> None:
    rows = [example("a", "x"), example("b", "x"), example("c", "y"), example("c", "y", id="again")]
    outcome = clean(rows, LIMITS.model_copy(update={"min_label_rows": 2}), task())

    assert {row.output for row in outcome.kept} == {"x"}
    assert by_reason(outcome.quarantined) == {steps.DUPLICATE: 1, steps.RARE: 1}


def test_different_system_messages_make_different_questions(example: Make, task: Task) -> None:
    def told(system: str, output: str) -> Example:
        messages = (Message(role="system", content=system), Message(role="user", content="cat"))
        return example("cat", output, id=system).model_copy(update={"messages": messages})

    outcome = clean([told("French", "chat"), told("German", "Katze")], LIMITS, task())

    assert len(outcome.kept) == 2


def test_a_new_label_of_production_is_learned_from_its_second_row_on(example: Make, task: Task) -> None:
    limits = LIMITS.model_copy(update={"min_label_rows": 2})
    taught = [example(f"old {n}", "yes") for n in range(3)]
    asked = [example(f"new {n}", "refund", hour=n, source="traffic") for n in range(2)]

    assert {row.output for row in clean([*taught, asked[0]], limits, task()).kept} == {"yes"}
    assert {row.output for row in clean([*taught, *asked], limits, task()).kept} == {"yes", "refund"}


def test_what_people_have_labelled_outranks_rules(example: Make, task: Task) -> None:
    rows = [
        example("a", "no", id="1", source=RULES),
        example("a", "no", id="2", source=RULES),
        example("a", "yes", id="3"),
        example("b", "yes", id="4", source=RULES),
        example("b", "yes", id="5"),
        example("c", "yes", id="6", source=RULES),
    ]
    outcome = clean(rows, LIMITS, task())
    assert [(row.input, row.output, row.id) for row in outcome.kept] == [
        ("a", "yes", "3"),
        ("b", "yes", "5"),
        ("c", "yes", "6"),
    ]
    assert by_reason(outcome.quarantined) == {steps.OUTRANKED: 3}
