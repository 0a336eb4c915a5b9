from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.curation.quarantine import by_reason
from perpetune.curation.readers.row import example_of
from perpetune.curation.rows.dedup_key import input_key
from perpetune.curation.rows.sources import is_in_doubt, is_traffic
from perpetune.curation.splitting.splits import DOUBTED, LEAKED, SUPERSEDED
from perpetune.curation.splitting.units import hash_position
from perpetune.curation.steps.enough import require_enough
from perpetune.curation.steps.split import split
from perpetune.errors import PerpetuneError
from perpetune.params import SplitParams, TaskParams
from perpetune.records import Example, Message

Make = Callable[..., Example]

PARAMS = SplitParams(seed=7, frozen=0.3, frozen_traffic=0.2, validation=0.2, recent=0.3, min_train_rows=2)

ROWS = st.lists(
    st.builds(
        lambda input, output, group, source, hour: example_of(
            {
                "input": f"text {input}",
                "output": output,
                "group": group and f"g{group}",
                "time": None if hour is None else f"2024-05-{1 + hour // 24:02}T{hour % 24:02}:00:00Z",
            },
            source,
        ),
        st.integers(0, 30),
        st.sampled_from(["yes", "no"]),
        st.one_of(st.none(), st.integers(1, 12)),
        st.sampled_from(["file", "other", "traffic", "traffic in doubt"]),
        st.one_of(st.none(), st.integers(0, 99)),
    ),
    max_size=60,
)


@given(ROWS)
@settings(max_examples=150, deadline=None)
def test_groups_and_inputs_never_straddle_and_no_row_is_lost(rows: list[Example]) -> None:
    splits = split(rows, PARAMS)

    groups: dict[str, str] = {}
    questions: dict[object, str] = {}
    for name, part in splits.parts().items():
        for row in part:
            assert groups.setdefault(row.group, name) == name
            assert questions.setdefault(input_key(row), name) == name
    kept = [row for part in splits.parts().values() for row in part]
    assert len(kept) + len(splits.quarantined) == len(rows)
    assert all(hash_position(row.group, 7) < 0.2 for row in splits.frozen if is_traffic(row))
    assert all(row.source == "traffic" for row in splits.recent)
    assert not any(is_in_doubt(row) for name, part in splits.parts().items() if name != "train" for row in part)


@given(ROWS, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_of_rows_does_not_matter(rows: list[Example], chance: random.Random) -> None:
    shuffled = list(rows)
    chance.shuffle(shuffled)

    assert split(shuffled, PARAMS) == split(rows, PARAMS)


@given(ROWS, ROWS)
@settings(max_examples=100, deadline=None)
def test_the_frozen_holdout_keeps_its_members_when_data_is_added(before: list[Example], added: list[Example]) -> None:
    kept = set(split(before, PARAMS).frozen)

    assert kept <= set(split(before + added, PARAMS).frozen)


@pytest.mark.slow
@given(st.lists(ROWS, min_size=2, max_size=5))
@settings(max_examples=100, deadline=None)
def test_over_a_growing_history_no_group_leaves_a_holdout_for_the_other(history: list[list[Example]]) -> None:
    rows: list[Example] = []
    frozen: set[str] = set()
    recent: set[str] = set()
    trained: set[str] = set()
    curated: set[str] = set()
    for added in history:
        rows += added
        splits = split(rows, PARAMS)
        curated |= {row.group for row in added if not is_traffic(row)}
        frozen |= {row.group for row in splits.frozen}
        recent |= {row.group for row in splits.recent}
        trained |= {row.group for part in (splits.train, splits.validation) for row in part}
        of_traffic = frozen - curated  # a group of traffic that gets curated rows follows them
        assert not of_traffic & (recent | trained)
        assert not frozen & {row.group for part in (splits.train, splits.validation, splits.recent) for row in part}


def traffic(example: Make, count: int, **more: object) -> list[Example]:
    return [example(f"asked {n}", hour=n, source="traffic", **more) for n in range(count)]


def test_labels_of_production_join_the_frozen_holdout_by_lot(example: Make) -> None:
    rows = traffic(example, 4000)
    splits = split(rows, PARAMS)

    assert len(splits.frozen) / 4000 == pytest.approx(0.2, abs=0.02)
    assert {row.id for row in split(rows[:1000], PARAMS).frozen} == {row.id for row in splits.frozen} & {
        row.id for row in rows[:1000]
    }
    assert not split(rows, PARAMS.model_copy(update={"frozen_traffic": 0.0})).frozen


def test_what_was_doubted_of_a_drawn_group_neither_judges_nor_teaches(example: Make) -> None:
    drawn = next(f"g{n}" for n in range(99) if hash_position(f"g{n}", PARAMS.seed) < PARAMS.frozen_traffic)
    doubted = example("hard", group=drawn, hour=1, source="traffic in doubt")
    later = example("easy", group=drawn, hour=2, source="traffic")

    assert [row.reason for row in split([doubted], PARAMS).quarantined] == [DOUBTED]
    assert split([doubted, later], PARAMS).frozen == (later,)


def test_a_question_that_the_drawn_traffic_asks_is_asked_nowhere_else(example: Make) -> None:
    drawn = next(f"g{n}" for n in range(99) if hash_position(f"g{n}", PARAMS.seed) < PARAMS.frozen_traffic)
    taught = trained(example)
    again = example(taught.input.upper(), "no", group=drawn, hour=1, source="traffic")

    assert split([taught], PARAMS).train == (taught,)
    splits = split([taught, again], PARAMS)
    assert splits.frozen == (again,)
    assert [(row.reason, row.example) for row in splits.quarantined] == [(LEAKED["frozen"], taught)]


def test_more_traffic_than_curated_rows_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="frozen_traffic must not be above frozen"):
        SplitParams(seed=7, frozen=0.1, frozen_traffic=0.2, validation=0.2, recent=0.3, min_train_rows=2)


def test_the_newest_traffic_is_in_training_and_in_the_recent_holdout(example: Make) -> None:
    rows = traffic(example, 2000)
    splits = split(rows, PARAMS)
    rest = 2000 - len(splits.frozen)

    assert len(splits.recent) / rest == pytest.approx(PARAMS.recent, abs=0.03)
    times = [row.time for row in rows if row.time]
    assert min(row.time for row in splits.recent if row.time) > times[600]
    last = [row for row in splits.train if row.time and row.time >= times[1900]]
    assert 20 < len(last) < 60


def test_shares_are_as_asked(example: Make) -> None:
    splits = split([example(f"text {n}") for n in range(4000)], PARAMS)

    assert len(splits.frozen) / 4000 == pytest.approx(0.3, abs=0.03)
    assert len(splits.validation) / 4000 == pytest.approx(0.2, abs=0.03)
    assert not splits.recent


def test_the_seed_decides_who_is_frozen(example: Make) -> None:
    rows = [example(f"text {n}") for n in range(100)]

    assert split(rows, PARAMS).frozen != split(rows, PARAMS.model_copy(update={"seed": 8})).frozen
    assert hash_position("a group", 7) == hash_position("a group", 7) != hash_position("a group", 8)


def test_recent_traffic_is_drawn_in_whole_groups(example: Make) -> None:
    traffic = [example(f"text {n}", group=f"g{n // 3}", hour=n, source="traffic") for n in range(120)]
    groups = [row.group for row in split(traffic, PARAMS).recent]

    assert groups and all(groups.count(group) == 3 for group in groups)


def frozen_group(example: Make) -> Example:
    """Frozen as curated rows are, and not drawn as traffic is."""
    rows = (example(f"text {n}") for n in range(99))
    return next(row for row in rows if PARAMS.frozen_traffic < hash_position(row.group, PARAMS.seed) < PARAMS.frozen)


def trained(example: Make, **more: object) -> Example:
    return next(row for n in range(99) if hash_position((row := example(f"word {n}", **more)).group, PARAMS.seed) > 0.5)


def test_traffic_that_asks_what_the_frozen_holdout_asks_goes_nowhere(example: Make) -> None:
    frozen = frozen_group(example)
    same_group = example(frozen.input, "no", hour=1, source="traffic")
    own_group = example(f" {frozen.input.upper()}", "no", group=trained(example).group, hour=2, source="traffic")
    instructed = own_group.model_copy(
        update={"messages": (Message(role="system", content="s"), Message(role="user", content=own_group.input))}
    )
    splits = split([frozen, same_group, instructed], PARAMS)

    assert splits.frozen == (frozen,)
    assert by_reason(splits.quarantined) == {LEAKED["frozen"]: 2}


def test_curated_rows_of_another_group_do_not_leak_the_frozen_holdout(example: Make) -> None:
    frozen = frozen_group(example)
    twin = frozen.model_copy(update={"id": "twin", "group": trained(example).group})
    splits = split([frozen, twin], PARAMS)

    assert splits.frozen == (frozen,)
    assert not splits.train
    assert by_reason(splits.quarantined) == {LEAKED["frozen"]: 1}


def test_what_production_labelled_anew_replaces_the_curated_row(example: Make) -> None:
    old = trained(example)
    splits = split([old, example(old.input, "no", hour=1, source="traffic")], PARAMS)

    assert [row.output for row in splits.train] == ["no"]
    assert by_reason(splits.quarantined) == {SUPERSEDED: 1}


@pytest.mark.parametrize(
    ("texts", "outputs", "words"),
    [
        (range(3), "yes no", ["training rows are fewer than split.min_train_rows, 20", "ingest"]),
        (range(200), "yes", ["training rows have the same label, 'yes'"]),
    ],
)
def test_too_little_data_is_refused_with_counts_and_advice(
    example: Make, task: Callable[..., TaskParams], texts: Sequence[int], outputs: str, words: list[str]
) -> None:
    params = PARAMS.model_copy(update={"min_train_rows": 20})
    labels = outputs.split()
    splits = split([example(f"text {n}", labels[n % len(labels)]) for n in texts], params)

    with pytest.raises(PerpetuneError) as caught:
        require_enough(splits, params, task())

    assert all(word in str(caught.value) for word in (*words, "\n"))


def test_an_empty_frozen_holdout_is_refused(example: Make, task: Callable[..., TaskParams]) -> None:
    params = PARAMS.model_copy(update={"frozen": 0.0})
    splits = split([example(f"text {n}") for n in range(50)], params)

    with pytest.raises(PerpetuneError, match=r"frozen holdout.*\n.*split\.frozen"):
        require_enough(splits, params, task())
    require_enough(split([example(f"text {n}") for n in range(50)], PARAMS), PARAMS, task("generation"))


def test_what_the_model_doubted_is_trained_on_and_never_judges(example: Make) -> None:
    curated = [example(f"curated {number}", group=f"c{number}") for number in range(40)]
    judging = [n for n in range(20) if hash_position(f"recent g{n}", PARAMS.seed) < 0.5]
    chance = [example(f"chance {n}", group=f"g{n}", hour=n, source="traffic") for n in range(20)]
    doubted = [example(f"doubt {n}", group=f"d{n}", hour=50 + n, source="traffic in doubt") for n in range(30)]
    beside = example("of a group that judges", group=f"g{judging[-1]}", hour=99, source="traffic in doubt")
    splits = split([*curated, *chance, *doubted, beside], PARAMS.model_copy(update={"frozen_traffic": 0.0}))
    assert set(doubted) <= set(splits.train)
    assert splits.recent and set(splits.recent) <= set(chance)
    assert [row.example for row in splits.quarantined if row.reason == DOUBTED] == [beside]
