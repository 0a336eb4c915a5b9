from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.curation.readers.row import example_of
from perpetune.curation.steps import split as splitting
from perpetune.curation.steps.mix import NOT_REPLAYED, Mix, mix, recent_and_older
from perpetune.params import MixParams, SplitParams, TaskParams
from perpetune.records import Example, read_jsonl, write_jsonl

Make = Callable[..., Example]

ROWS = st.lists(
    st.builds(
        lambda number, output, source, hour: example_of(
            {
                "input": f"text {number}",
                "output": output,
                "time": None if hour is None else f"2024-05-{1 + hour // 24:02}T{hour % 24:02}:00:00Z",
            },
            source,
        ),
        st.integers(0, 200),
        st.sampled_from(["yes", "no", "perhaps"]),
        st.sampled_from(["file", "other", "traffic", "traffic in doubt"]),
        st.one_of(st.none(), st.integers(0, 99)),
    ),
    max_size=50,
    unique_by=lambda row: row.input,
)
MIXES = st.builds(
    MixParams,
    replay=st.one_of(st.none(), st.floats(0, 5)),
    recent_days=st.one_of(st.none(), st.floats(0.1, 5)),
)


def all_traffic(replay: float | None) -> MixParams:
    return MixParams(replay=replay, recent_days=None)


@given(ROWS, MIXES, st.integers(0, 30), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_rows_does_not_matter(
    rows: list[Example], params: MixParams, least: int, chance: random.Random
) -> None:
    shuffled = list(rows)
    chance.shuffle(shuffled)

    assert mix(shuffled, params, least) == mix(rows, params, least)


@given(ROWS, MIXES, st.integers(0, 30))
@settings(max_examples=100, deadline=None)
def test_every_row_is_trained_on_or_quarantined_and_no_other(
    rows: list[Example], params: MixParams, least: int
) -> None:
    chosen = mix(rows, params, least)
    found = [*chosen.rows, *(row.example for row in chosen.quarantined)]

    assert sorted(row.input for row in found) == sorted(row.input for row in rows)
    assert not {row.input for row in chosen.rows} & {row.example.input for row in chosen.quarantined}


@given(ROWS, MIXES, st.integers(0, 30))
@settings(max_examples=100, deadline=None)
def test_all_recent_rows_stay_and_older_ones_within_the_ratio(
    rows: list[Example], params: MixParams, least: int
) -> None:
    chosen = mix(rows, params, least)
    recent, older = recent_and_older(rows, params)

    assert chosen.recent == recent
    if params.replay is None or not recent:
        assert chosen.replayed == older
    else:
        allowed = max(params.replay * len(recent), least - len(recent))
        assert len(chosen.replayed) <= allowed
        assert len(chosen.replayed) > min(len(older), allowed) - 1


@given(ROWS, st.integers(0, 4))
@settings(max_examples=100, deadline=None)
def test_a_larger_ratio_keeps_what_a_smaller_one_kept(rows: list[Example], replay: int) -> None:
    fewer, more = (mix(rows, all_traffic(ratio), 0) for ratio in (replay, replay + 1))

    if fewer.recent:
        assert set(fewer.rows) <= set(more.rows)


@given(ROWS, st.floats(0, 5))
@settings(max_examples=100, deadline=None)
def test_no_label_is_replayed_twice_more_than_another_that_has_rows_left(rows: list[Example], replay: float) -> None:
    chosen = mix(rows, all_traffic(replay), 0)
    if not chosen.recent:
        return
    replayed = Counter(row.output for row in chosen.replayed)
    for label in {row.example.output for row in chosen.quarantined}:
        assert all(count <= replayed[label] + 1 for count in replayed.values())


def test_a_rare_label_is_replayed_as_often_as_a_common_one(example: Make) -> None:
    older = [example(f"old {n}", "rare" if n < 3 else "common") for n in range(40)]
    recent = [example(f"new {n}", source="traffic") for n in range(6)]

    replayed = Counter(row.output for row in mix([*older, *recent], all_traffic(1.0), 0).replayed)

    assert replayed == {"rare": 3, "common": 3}


def test_a_handful_of_recent_rows_does_not_leave_a_model_without_data(example: Make) -> None:
    older = [example(f"old {n}") for n in range(40)]
    chosen = mix([*older, example("new", source="traffic")], all_traffic(0.0), min_rows=20)

    assert (len(chosen.recent), len(chosen.replayed), len(chosen.quarantined)) == (1, 19, 21)


def test_recent_days_count_back_from_the_newest_traffic(example: Make) -> None:
    rows = [
        example("last week", source="traffic", hour=0),
        example("yesterday", source="traffic", hour=7 * 24),
        example("today", source="traffic", hour=8 * 24),
        example("asked for", source="traffic in doubt", hour=8 * 24),
        example("undated", source="traffic"),
        example("curated", hour=8 * 24),
    ]
    recent, older = recent_and_older(rows, MixParams(replay=1.0, recent_days=1.0))

    assert {row.input for row in recent} == {"yesterday", "today", "asked for"}
    assert {row.input for row in older} == {"last week", "undated", "curated"}


@pytest.mark.parametrize("replay", [None, 0.0, 2.0])
def test_without_traffic_all_rows_are_trained_on(example: Make, replay: float | None) -> None:
    rows = [example(f"old {n}") for n in range(10)]
    nothing = mix([], all_traffic(replay), 5)

    assert len(mix(rows, all_traffic(replay), 5).rows) == 10
    assert nothing == Mix((), (), ())


def test_the_stage_writes_the_mix_and_says_what_it_left_out(
    tmp_path: Path, example: Make, task: Callable[..., TaskParams]
) -> None:
    older = [example(f"old {n}", "yes" if n % 2 else "no") for n in range(80)]
    recent = [example(f"new {n}", "yes" if n % 2 else "no", source="traffic", hour=n) for n in range(20)]
    write_jsonl(tmp_path / "data/clean/examples.jsonl", [*older, *recent])
    params = SplitParams(seed=7, frozen=0.2, frozen_traffic=0.1, validation=0.1, recent=0.3, min_train_rows=4)

    splitting.run(params, all_traffic(0.5), task(), tmp_path)

    train = read_jsonl(tmp_path / "data/splits/train.jsonl", Example)
    traffic = sum(row.source == "traffic" for row in train)
    assert len(train) == traffic + traffic // 2
    assert NOT_REPLAYED in (tmp_path / "data/leakage/quarantined.jsonl").read_text(encoding="utf-8")
