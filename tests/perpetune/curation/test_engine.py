from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from functools import partial

import pytest

from perpetune.curation.duplicates.near import near_duplicates
from perpetune.curation.engine import BATCH, IN_PROCESS, OnRay, engine_of, for_each, row_wise
from perpetune.curation.quarantine import StepResult
from perpetune.curation.steps.clean import clean, of_each_row
from perpetune.errors import PerpetuneError
from perpetune.params import CleanParams, CurateParams, TaskParams
from perpetune.records import Example

WORDS = [
    "please",
    "my",
    "card",
    "was",
    "lost",
    "on",
    "the",
    "way",
    "to",
    "the",
    "airport",
    "and",
    "somebody",
    "paid",
    "with",
    "it",
    "twice",
    "before",
    "i",
    "noticed",
]


def row(number: int) -> Example:
    """Every fifth row repeats an earlier one, every seventh is one word apart, every eleventh is empty."""
    words = [*WORDS, str(number - number % 5), f"word{number % 1000}"]
    if number % 7 == 0:
        words[number % 10] = "really"
    text = "" if number % 11 == 0 else " ".join(words)
    return Example(input=text, output=f" label {number % 3}", id=f"{number:06}", group=f"{number}", source="made")


def lengths(rows: Sequence[Example]) -> list[int]:
    return [len(each.input) for each in rows]


def test_what_each_row_gives_comes_in_the_order_of_the_rows() -> None:
    rows = [row(number) for number in range(BATCH + 7)]
    assert list(for_each(lengths, rows, IN_PROCESS)) == lengths(rows)


def test_batches_make_no_difference_to_a_step_on_single_rows() -> None:
    rows = [row(number) for number in range(BATCH + 7)]
    whole = of_each_row(rows, CleanParams())
    assert row_wise(partial(of_each_row, params=CleanParams()), rows, IN_PROCESS) == whole
    assert len(whole.kept) + len(whole.quarantined) == len(rows)


def test_no_rows_need_no_work() -> None:
    assert row_wise(partial(of_each_row, params=CleanParams()), [], IN_PROCESS) == StepResult((), ())


def test_the_setting_chooses_the_engine() -> None:
    assert engine_of(CurateParams()) is IN_PROCESS
    assert isinstance(engine_of(CurateParams(engine="ray")), OnRay)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_a_cluster_that_does_not_answer_is_one_sentence() -> None:
    with pytest.raises(PerpetuneError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        list(OnRay("127.0.0.1:1").batches(lengths, [row(1)]))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_two_workers_of_ray_give_the_same_rows_as_one_process() -> None:
    import ray

    task = TaskParams(name="made", kind="classification", instruction="Which?")
    rows = [row(number) for number in range(2 * BATCH + 50)]
    on_ray = OnRay()
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        cleaned = clean(rows, CleanParams(), task, engine=on_ray)
        assert cleaned == clean(rows, CleanParams(), task)
        assert near_duplicates(cleaned.kept, on_ray) == near_duplicates(cleaned.kept)
    finally:
        ray.shutdown()
