from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from perpetune.curation.splitting.assignment_record import AssignmentRecord
from perpetune.curation.steps.split import split
from perpetune.params import SplitParams
from perpetune.records import Example

Make = Callable[..., Example]
PARAMS = SplitParams()


def new(
    rows: list[Example], params: SplitParams = PARAMS, record: AssignmentRecord | None = None
) -> dict[str, list[Example]]:
    parts = split(rows, params, record or AssignmentRecord(params.seed), labelled=True).parts()
    return {name: list(part) for name, part in parts.items()}


def test_each_label_has_its_ratio(example: Make) -> None:
    counts = {"often": 400, "seldom": 40, "rare": 10}
    rows = [example(f"{label} {n}", label) for label, count in counts.items() for n in range(count)]
    parts = new(rows)
    assert Counter(row.output for row in parts["frozen"]) == {"often": 80, "seldom": 8, "rare": 2}
    assert Counter(row.output for row in parts["validation"]) == {"often": 40, "seldom": 4, "rare": 1}


def test_labels_with_two_rows_each_share_the_holdout_and_are_all_trained(example: Make) -> None:
    rows = [example(f"{label} {n}", f"label {label}") for label in range(50) for n in range(2)]
    parts = new(rows)
    assert len(parts["frozen"]) == 20 and len(parts["validation"]) == 10
    assert len({row.output for row in parts["train"]}) == 50


@pytest.mark.parametrize("start", [5, 37, 200])
def test_ratios_are_kept_while_rows_are_added(example: Make, start: int) -> None:
    rows = [example(f"text {n}", "ab"[n % 5 == 0]) for n in range(1000)]
    record = AssignmentRecord(PARAMS.seed)
    frozen: set[Example] = set()
    for count in (start, start + 1, start + 90, 1000):
        splits = split(rows[:count], PARAMS, record, labelled=True)
        record = record.with_rows(splits.parts())
        assert frozen <= set(splits.frozen)
        frozen = set(splits.frozen)
    assert Counter(row.output for row in frozen) == {"a": 160, "b": 40}


def test_by_time_the_newest_are_held_out_and_stay_so(example: Make) -> None:
    params = PARAMS.model_copy(update={"by": "time"})
    rows = [example(f"text {n}", "ab"[n % 2], hour=n) for n in range(100)]
    parts = new(rows, params)
    assert {row.input for row in parts["frozen"]} == {f"text {n}" for n in range(80, 100)}
    assert {row.input for row in parts["validation"]} == {f"text {n}" for n in range(70, 80)}

    record = AssignmentRecord(params.seed).with_rows(parts)
    later = [example(f"text {n}", "ab"[n % 2], hour=n) for n in range(100, 200)]
    grown = new([*rows, *later], params, record)
    assert set(parts["frozen"]) < set(grown["frozen"])
    assert {row.input for row in grown["frozen"]} - {row.input for row in parts["frozen"]} == {
        f"text {n}" for n in range(180, 200)
    }


def test_rows_without_a_time_are_older_than_all_others(example: Make) -> None:
    params = PARAMS.model_copy(update={"by": "time"})
    rows = [example(f"text {n}", "ab"[n % 2], hour=n if n < 30 else None) for n in range(100)]
    assert {row.input for row in new(rows, params)["frozen"]} == {f"text {n}" for n in range(10, 30)}


def test_customers_who_quote_the_same_text_are_not_joined(example: Make) -> None:
    rows = [
        example(text, "ab"[n % 2], group=f"customer {n}")
        for n in range(60)
        for text in (f"order w{n} x{n} y{n} z{n}", "the general terms and conditions apply")
    ]
    parts = new(rows)
    assert {len({row.group for row in part}) for part in (parts["frozen"], parts["validation"])} == {12, 6}
    assert {name for name, part in parts.items() for row in part if row.input.startswith("the general")} == {"frozen"}
