"""Labels that are probably wrong are found, with the right label, and only what the settings say is done about them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from perpetune.curation.quarantine import in_order
from perpetune.curation.readers.row import example_of
from perpetune.params import LabelErrorsParams
from perpetune.quality.features import TFIDF, Features, tfidf_vectors
from perpetune.quality.judge import BEYOND, FEW_ROWS
from perpetune.quality.steps.label_errors import WRONG, Judged, label_errors
from perpetune.records import Example

WORDS = {
    "billing": ["invoice", "charged", "refund", "price", "paid", "receipt", "fee", "discount"],
    "delivery": ["parcel", "driver", "late", "address", "courier", "shipped", "tracking", "depot"],
    "login": ["password", "account", "reset", "code", "locked", "email", "browser", "sign"],
}
REPORT = LabelErrorsParams()


def messages(count: int, seed: int = 1) -> list[Example]:
    """Rows of three labels in turn, each with a few words of its label among common ones."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        label = list(WORDS)[number % 3]
        words = [
            *draw.sample(WORDS[label], 3),
            *draw.sample(["my", "the", "please", "why", "today", "again", "help"], 3),
        ]
        draw.shuffle(words)
        rows.append(
            example_of({"input": f"{' '.join(words)} {number}", "output": label, "id": f"row {number}"}, "made")
        )
    return rows


def flipped(rows: Sequence[Example], rate: float, seed: int = 2) -> tuple[list[Example], dict[str, str]]:
    """The rows with some labels exchanged for the next one; and the right label of each of those, by id."""
    draw = random.Random(seed)
    wrong = {row.id: row.output for row in draw.sample(list(rows), round(rate * len(rows)))}
    names = list(WORDS)
    spoiled = [
        row.model_copy(update={"output": names[(names.index(row.output) + 1) % 3]}) if row.id in wrong else row
        for row in rows
    ]
    return spoiled, wrong


def embed(texts: Sequence[str]) -> Features:
    return Features(tfidf_vectors(texts), TFIDF, "this is a test")


def judged(rows: Sequence[Example], params: LabelErrorsParams = REPORT, frozen: Sequence[str] = ()) -> Judged:
    return label_errors(rows, params, embed, lambda row: row.id in frozen)


@pytest.mark.parametrize("rate", [0.1, 0.2])
def test_flipped_labels_are_found_with_the_right_label(rate: float) -> None:
    rows, wrong = flipped(messages(300), rate)
    found = judged(rows)
    right = [each for each in found.suspects if each.id in wrong]
    assert len(right) >= 0.9 * len(wrong)
    assert len(right) >= 0.9 * len(found.suspects)
    assert all(each.suggested == wrong[each.id] for each in right)
    assert [each.margin for each in found.suspects] == sorted(each.margin for each in found.suspects)


def test_right_labels_are_not_suspected() -> None:
    assert len(judged(messages(300)).suspects) <= 3


def test_by_default_rows_are_only_reported() -> None:
    rows, wrong = flipped(messages(120), 0.1)
    found = judged(rows).result
    assert list(found.kept) == in_order(rows)
    assert not found.quarantined and not found.changed
    assert {row.reason for row in found.reported} == {WRONG}
    assert {row.example.id for row in found.reported} & set(wrong)


def test_suspects_can_be_quarantined_or_relabelled_but_not_in_the_frozen_holdout() -> None:
    rows, wrong = flipped(messages(300), 0.1)
    frozen = sorted(wrong)[:5]
    before = {row.id: row.output for row in rows}

    set_aside = judged(rows, LabelErrorsParams(action="quarantine"), frozen)
    ids = {each.id for each in set_aside.suspects}
    assert {row.example.id for row in set_aside.result.quarantined} == ids - set(frozen)
    assert {row.example.id for row in set_aside.result.reported} == ids & set(frozen)
    assert len(set_aside.result.kept) + len(set_aside.result.quarantined) == len(rows)
    assert {each.id for each in set_aside.suspects if each.is_frozen} == ids & set(frozen)

    corrected = judged(rows, LabelErrorsParams(action="relabel"), frozen).result
    after = {row.id: row.output for row in corrected.kept}
    assert {change.id for change in corrected.changed} == ids - set(frozen)
    assert all(after[name] == wrong[name] for name in set(wrong) & ids - set(frozen))
    assert all(after[name] == before[name] for name in frozen)
    assert [(change.before, change.after) for change in corrected.changed] == [
        (before[change.id], after[change.id]) for change in corrected.changed
    ]


def test_what_was_not_judged_is_said() -> None:
    rare = [
        example_of({"input": f"quite rare {word}", "output": "rare", "id": word}, "made") for word in ("one", "two")
    ]
    found = judged([*messages(60), *rare])
    assert found.summary.judged == 60
    assert found.summary.unjudged == {FEW_ROWS: 2}
    assert "2 not judged (label with too few rows to judge)" in found.summary.sentence

    sampled = judged(messages(90), LabelErrorsParams(max_rows=60))
    assert sampled.summary.judged == 60
    assert sampled.summary.unjudged == {BEYOND: 30}


@pytest.mark.parametrize("rows", [[], messages(1), messages(4), [row for row in messages(60) if row.output == "login"]])
def test_data_without_two_labels_of_enough_rows_passes(rows: list[Example]) -> None:
    found = judged(rows)
    assert list(found.result.kept) == in_order(rows)
    assert not found.suspects and not found.summary.judged


def test_the_order_of_rows_changes_nothing() -> None:
    rows, _ = flipped(messages(150), 0.1)
    assert judged(rows) == judged(rows[::-1])


def test_of_near_duplicates_that_contradict_each_other_one_is_suspected() -> None:
    rows = messages(150)
    twin = rows[0].model_copy(update={"input": f"Hello, {rows[0].input}!", "output": "login", "id": "twin"})
    [suspect] = [each for each in judged([*rows, twin]).suspects if each.id == "twin"]
    assert suspect.suggested == "billing"
    assert suspect.like is not None and suspect.like.endswith("→ billing")


def test_another_right_output_is_no_mistake() -> None:
    rows, wrong = flipped(messages(300), 0.05)
    both = [row.model_copy(update={"references": (wrong[row.id],)}) if row.id in wrong else row for row in rows]
    assert not set(wrong) & {each.id for each in judged(both).suspects}
