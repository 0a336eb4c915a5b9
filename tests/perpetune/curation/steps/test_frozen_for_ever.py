"""The frozen holdout keeps its members, whatever is added, edited, removed, relabelled or reordered."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.curation.duplicates.canonical import canonical_turns
from perpetune.curation.readers.row import example_of
from perpetune.curation.splitting.assignment_record import AssignmentRecord
from perpetune.curation.splitting.splits import MOVED, NEAR, Splits
from perpetune.curation.steps.clean import clean
from perpetune.curation.steps.split import split
from perpetune.curation.steps.validate import validate
from perpetune.params import CleanParams, SplitParams, TaskParams
from perpetune.records import Example

Make = Callable[..., Example]
PARAMS = SplitParams(frozen=0.3, validation=0.2, min_train_rows=1)
TASK = TaskParams(name="words", kind="classification", instruction="")
WORDS = [
    "the",
    "parcel",
    "lamp",
    "card",
    "refund",
    "came",
    "late",
    "again",
    "today",
    "broken",
    "my",
    "new",
    "order",
    "number",
]


@dataclass
class Workspace:
    """A file of rows, curated again after each change."""

    rows: dict[str, dict[str, object]] = field(default_factory=dict)
    record: AssignmentRecord = field(default_factory=lambda: AssignmentRecord(PARAMS.seed))
    frozen: set[str] = field(default_factory=set)
    trained: set[str] = field(default_factory=set)

    def curate(self, chance: random.Random) -> tuple[Splits, set[str]]:
        rows = list(self.rows.values())
        chance.shuffle(rows)
        examples = [example_of({key: value for key, value in row.items() if key != "key"}, "file") for row in rows]
        cleaned = clean(validate(examples).kept, CleanParams(min_label_rows=1), TASK, self.record).kept
        splits = split(cleaned, PARAMS, self.record, labelled=True)
        self.record = self.record.with_rows(splits.parts())
        self.frozen |= {row.id for row in splits.frozen}
        self.trained |= {row.id for row in (*splits.train, *splits.validation)}
        return splits, {row.id for row in cleaned}


TEXTS = st.lists(st.sampled_from(WORDS), min_size=2, max_size=7).map(" ".join)
CHANGES = st.one_of(
    st.tuples(st.just("add"), TEXTS, st.sampled_from(["a", "b"])),
    st.tuples(st.just("vary"), st.integers(0, 99), st.sampled_from([".", "!", " again", ""])),
    st.tuples(st.just("edit"), st.integers(0, 99), TEXTS),
    st.tuples(st.just("polish"), st.integers(0, 99), st.just(".")),
    st.tuples(st.just("remove"), st.integers(0, 99), st.none()),
    st.tuples(st.just("restore"), st.integers(0, 99), st.none()),
    st.tuples(st.just("relabel"), st.integers(0, 99), st.sampled_from(["a", "b"])),
    st.tuples(st.just("group"), st.integers(0, 99), st.sampled_from(["g1", "g2"])),
)


def apply(change: tuple[str, object, object], workspace: Workspace, removed: dict[str, dict[str, object]]) -> None:
    kind, what, how = change
    rows = workspace.rows
    if kind == "add":
        key = f"k{len(rows) + len(removed)}"
        rows[key] = {"id": key, "input": what, "output": how}
        return
    pool = removed if kind == "restore" else rows
    if not pool:
        return
    key = sorted(pool)[int(str(what)) % len(pool)]
    if kind == "restore":
        rows[key] = removed.pop(key)
    elif kind == "remove":
        removed[key] = rows.pop(key)
    elif kind == "vary":
        new = f"k{len(rows) + len(removed)}"
        rows[new] = {**rows[key], "id": new, "input": f"{rows[key]['input']}{how}"}
    else:
        field_of = {"edit": "input", "polish": "input", "relabel": "output", "group": "group"}[kind]
        value = f"{rows[key]['input']}{how}" if kind == "polish" else how
        rows[key] = {**rows[key], field_of: value}


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(st.lists(st.lists(CHANGES, min_size=1, max_size=12), min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_a_frozen_row_is_never_trained_on_and_a_trained_row_never_frozen(
    history: list[list[tuple[str, object, object]]], chance: random.Random
) -> None:
    workspace, removed = Workspace(), dict[str, dict[str, object]]()
    for changes in history:
        for change in changes:
            apply(change, workspace, removed)
        before = set(workspace.frozen)
        splits, cleaned = workspace.curate(chance)

        assert not workspace.frozen & workspace.trained
        assert before & cleaned <= {row.id for row in splits.frozen}, "a member that is still there is still frozen"
        places: dict[object, str] = {}
        groups: dict[str, str] = {}
        for name, part in splits.parts().items():
            for row in part:
                assert places.setdefault(canonical_turns(row), name) == name
                assert groups.setdefault(row.group, name) == name


@pytest.mark.parametrize("suffix", [".", " and nobody answers the telephone", " 17"])
def test_edited_rows_keep_their_split(example: Make, suffix: str) -> None:
    """Also without a record, because the name of the row decides."""
    before = [example(f"my parcel {n} was late", "ab"[n % 2], id=f"k{n}", hour=1) for n in range(200)]
    after = [example(row.input + suffix, row.output, id=row.id, hour=2) for row in before]
    for record in (None, AssignmentRecord(PARAMS.seed)):
        first = split(before, PARAMS, record, labelled=True)
        second = split(after, PARAMS, record and record.with_rows(first.parts()), labelled=True)
        for name, part in first.parts().items():
            assert {row.id for row in part} == {row.id for row in second.parts()[name]}


def test_what_was_trained_on_leaves_training_when_it_becomes_like_a_frozen_row(example: Make) -> None:
    rows = [example(f"word{n} parcel{n} lamp{n} came{n} late{n}", "ab"[n % 2], id=f"k{n}") for n in range(100)]
    record = AssignmentRecord(PARAMS.seed)
    first = split(rows, PARAMS, record, labelled=True)
    frozen, trained = first.frozen[0], next(row for row in first.train if row.output == first.frozen[0].output)
    edited = [example(f"{frozen.input}!", row.output, id=row.id) if row is trained else row for row in rows]
    second = split(edited, PARAMS, record.with_rows(first.parts()), labelled=True)
    assert {row.id for row in second.frozen} == {row.id for row in first.frozen}
    assert [row.example.id for row in second.quarantined] == [trained.id]


def test_twins_that_were_split_before_there_was_a_record_are_separated(example: Make) -> None:
    """Frozen rows stay, their twins leave training; one word apart with another label, a row stays where it is."""
    texts = [f"word{n} parcel{n} lamp{n} came{n} late{n}" for n in range(60)]
    frozen = [example(text, "a", id=f"f{n}") for n, text in enumerate(texts[:20])]
    twins = [example(f"{row.input}.", "a", id=f"t{row.id}") for row in frozen[:10]]
    unlike = [example(f"{row.input} not", "b", id=f"u{row.id}") for row in frozen[10:]]
    train = [example(text, "b", id=f"n{n}") for n, text in enumerate(texts[20:])]
    record = AssignmentRecord(PARAMS.seed).with_rows({"frozen": frozen, "train": [*twins, *unlike, *train]})
    splits = split([*frozen, *twins, *unlike, *train], PARAMS, record, labelled=True)
    assert set(splits.frozen) == set(frozen)
    assert {row.example for row in splits.quarantined} == set(twins)
    assert {row.reason for row in splits.quarantined} == {NEAR["frozen"]}
    assert set(splits.train) == {*unlike, *train}


def test_rows_that_get_a_common_group_do_not_take_a_frozen_row_into_training(example: Make) -> None:
    rows = [example(f"word{n} parcel{n} lamp{n}", "ab"[n % 2], id=f"k{n}") for n in range(60)]
    record = AssignmentRecord(PARAMS.seed)
    first = split(rows, PARAMS, record, labelled=True)
    members = {first.frozen[0].id, first.train[0].id, first.train[1].id}
    grouped = [example(row.input, row.output, id=row.id, group="g") if row.id in members else row for row in rows]
    second = split(grouped, PARAMS, record.with_rows(first.parts()), labelled=True)
    assert {row.id for row in second.frozen} == {row.id for row in first.frozen}
    assert {(row.example.id, row.reason) for row in second.quarantined} == {
        (id_, MOVED) for id_ in members - {first.frozen[0].id}
    }


def test_a_contradiction_does_not_evict_a_frozen_row(example: Make) -> None:
    rows = [example(f"a parcel called p{n} is late", "ab"[n % 2], id=f"k{n}") for n in range(60)]
    record = AssignmentRecord(PARAMS.seed)
    splits = split(rows, PARAMS, record, labelled=True)
    record = record.with_rows(splits.parts())
    member = splits.frozen[0]
    wrong = [example(f"{member.input}!", "b" if member.output == "a" else "a", id=f"new{n}", hour=n) for n in range(3)]
    again = [example(member.input, member.output, id="again", hour=9)]
    cleaned = clean([*rows, *wrong, *again], CleanParams(), TASK, record)
    assert {row.id for row in rows} == {row.id for row in cleaned.kept}
    assert {row.example.id for row in cleaned.quarantined} == {"new0", "new1", "new2", "again"}


def test_another_seed_asks_for_another_holdout(example: Make) -> None:
    rows = [example(f"text {n}") for n in range(100)]
    first = split(rows, PARAMS, AssignmentRecord(7))
    recorded = AssignmentRecord(7).with_rows(first.parts())
    other = split(rows, PARAMS.model_copy(update={"seed": 8}), AssignmentRecord(8, recorded.splits))
    assert set(other.frozen) != set(first.frozen)
