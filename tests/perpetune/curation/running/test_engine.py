from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from perpetune.curation.__main__ import STAGES
from perpetune.curation.duplicates.near import near_duplicates
from perpetune.curation.quarantine import StepResult, combined
from perpetune.curation.running import engine as engines
from perpetune.curation.running.engine import BATCH, IN_PROCESS, OnRay, engine_of, for_each
from perpetune.curation.steps.clean import clean, of_each_row
from perpetune.errors import PerpetuneError
from perpetune.params import CleanParams, CurateParams, TaskParams, load_params
from perpetune.records import Example, write_jsonl

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
    assert combined(IN_PROCESS.batches(partial(of_each_row, params=CleanParams()), rows)) == whole
    assert len(whole.kept) + len(whole.quarantined) == len(rows)


def test_no_rows_need_no_work() -> None:
    assert combined(IN_PROCESS.batches(partial(of_each_row, params=CleanParams()), [])) == StepResult((), ())


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


SETTINGS = """schema: 2
task: {{name: made, kind: generation, instruction: Answer.}}
curate: {{engine: {engine}}}
repair: {{markup: true, boilerplate: {boilerplate}}}
language: {{keep: [en]}}
private: {{mode: {private}}}
"""
DVC = "stages: {validate: {}, repair: {}, language: {}, private: {}, clean: {}, split: {}}"
ROW_WISE = ("repair", "language", "private", "clean")


def messy_row(number: int) -> Example:
    """Rows of six groups and of their own, with mojibake, markup, boilerplate, personal data, and some in German."""
    address = f"ann{number % 4}@acme.org"
    input = [
        f"The cafÃ© on order {number} wrote to {address} &amp; never answered me",
        f"Is my parcel number {number} lost, and could you write to {address}?\nThis line ends many inputs, as a footer does",
        f"Meine Bestellung Nummer {number} ist leider noch nicht bei mir angekommen, wo ist sie?",
        f"Please cancel the order {number}, <EMAIL_ADDRESS_1> has the receipt\n-- \nAnn Lee, {address}",
    ][number % 4]
    group = f"customer {number % 6}" if number % 3 else f"{number}"
    return Example(input=input, output=f"Write to {address}.", id=f"{number:06}", group=group, source="made")


def curated(workspace: Path, engine: str, boilerplate: str, private: str) -> dict[str, bytes]:
    """The files of the stages that look at one row at a time, by their paths."""
    settings = SETTINGS.format(engine=engine, boilerplate=boilerplate, private=private)
    workspace.mkdir()
    (workspace / "params.yaml").write_text(settings, encoding="utf-8")
    (workspace / "dvc.yaml").write_text(DVC, encoding="utf-8")
    write_jsonl(workspace / "data/valid/examples.jsonl", [messy_row(number) for number in range(150)])
    for stage in ROW_WISE:
        STAGES[stage](load_params(workspace / "params.yaml"), workspace)
    files = sorted(path for path in (workspace / "data").rglob("*") if path.is_file())
    return {path.relative_to(workspace).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize(("boilerplate", "private"), [("remove", "replace"), ("report", "report")])
def test_the_files_of_a_stage_do_not_depend_on_its_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boilerplate: str, private: str
) -> None:
    whole = curated(tmp_path / "whole", "process", boilerplate, private)
    monkeypatch.setattr(engines, "BATCH", 7)
    assert curated(tmp_path / "batches", "process", boilerplate, private) == whole
    assert sum(map(len, whole.values())) > 50_000
    assert whole["data/steps/private/changed.jsonl" if private == "replace" else "data/steps/private/reported.jsonl"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_one_setting_runs_the_stages_on_ray_with_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    one_process = curated(tmp_path / "process", "process", "remove", "replace")
    monkeypatch.setattr(engines, "BATCH", 40)
    monkeypatch.setattr(engines, "WINDOW", 2)
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        assert curated(tmp_path / "ray", "ray", "remove", "replace") == one_process
    finally:
        ray.shutdown()
