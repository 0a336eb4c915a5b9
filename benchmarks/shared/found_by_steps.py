"""Recall and precision of each step of curation on rows spoiled in known places, and near duplicates that straddle splits."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared import spoiled

from perpetune.curation.duplicates.by_meaning import with_pairs
from perpetune.curation.duplicates.near import near_duplicates
from perpetune.curation.quarantine import StepResult, in_order
from perpetune.curation.splitting.assignment_record import AssignmentRecord
from perpetune.curation.steps.clean import DUPLICATE, clean
from perpetune.curation.steps.language import language
from perpetune.curation.steps.private import finder, private
from perpetune.curation.steps.repair import repair
from perpetune.curation.steps.split import split
from perpetune.params import (
    CleanParams,
    LabelErrorsParams,
    LanguageParams,
    PrivateParams,
    RepairParams,
    SemanticParams,
    SplitParams,
    TaskParams,
)
from perpetune.quality.features import Features
from perpetune.quality.neighbours import alike
from perpetune.quality.steps.label_errors import label_errors
from perpetune.quality.steps.semantic import semantic
from perpetune.records import Example
from perpetune.statistics.estimate import wilson

MEANING = 0.9
WORD_CHANGES = ("typo", "one_word", "number", "word_order")
TASK = TaskParams(name="bench", kind="classification", instruction="")
Embed = Callable[[Sequence[str]], Features]


@dataclass(frozen=True)
class Ratio:
    """A count of rows with Wilson's interval."""

    data: str
    measure: str
    hits: int
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        found = wilson(self.hits, self.n, 0.95) if self.n else None
        return (found.low, found.high) if found else (0.0, 1.0)

    @property
    def value(self) -> float:
        return self.hits / self.n if self.n else 0.0


def found_by_steps(
    name: str, rows: Sequence[Example], rates: Sequence[float], embed: Embed, seed: int, most: int
) -> list[Ratio]:
    """Recall and precision of each step, and how many near duplicates of at most `most` rows straddle."""
    return [
        *_label_ratios(name, rows, rates, embed, seed),
        *_duplicate_ratios(name, rows, seed),
        *_step_ratios(name, rows, seed),
        *_straddling_ratios(name, rows, embed, seed, most),
    ]


def pairs_by_cells(name: str, texts: Sequence[str], embed: Embed) -> Ratio:
    """How many of the exact pairs of texts that mean the same are found by cells, as they are among many texts."""
    vectors = embed(texts).vectors
    exact = set(alike(vectors, MEANING, exact=len(vectors)))
    found = set(alike(vectors, MEANING, exact=0))
    return Ratio(name, f"pairs by meaning at {MEANING}, by cells: recall", len(exact & found), len(exact))


def _label_ratios(name: str, rows: Sequence[Example], rates: Sequence[float], embed: Embed, seed: int) -> list[Ratio]:
    found = []
    for rate in rates:
        flipped, wrong = spoiled.with_flipped_labels(rows, rate, random.Random(seed))
        suspects = label_errors(flipped, LabelErrorsParams(max_rows=None), embed).suspects
        right = [each for each in suspects if each.id in wrong]
        first = suspects[: len(suspects) // 4]
        of = f"{rate:.0%} wrong labels"
        found += [
            Ratio(name, f"{of}: recall", len(right), len(wrong)),
            Ratio(name, f"{of}: precision", len(right), len(suspects)),
            Ratio(name, f"{of}: precision of the first quarter", sum(each.id in wrong for each in first), len(first)),
            Ratio(name, f"{of}: right label suggested", sum(e.suggested == wrong[e.id] for e in right), len(right)),
        ]
    return found


def _duplicate_ratios(name: str, rows: Sequence[Example], seed: int) -> list[Ratio]:
    once = clean(rows, CleanParams(), TASK).kept
    copied = spoiled.copies(once, len(once) // 4, random.Random(seed))
    result = clean([*once, *copied], CleanParams(), TASK)
    dropped = [row for row in result.quarantined if row.reason == DUPLICATE]
    pairs = {row.id.removeprefix("copy ") for row in copied}
    hits = sum(row.example.id.removeprefix("copy ") in pairs for row in dropped)
    return [
        Ratio(name, "exact duplicates: recall", hits, len(copied)),
        Ratio(name, "exact duplicates: precision", hits, len(result.quarantined)),
    ]


def _step_ratios(name: str, rows: Sequence[Example], seed: int) -> list[Ratio]:
    """The steps on texts."""
    personal = PrivateParams(mode="replace")
    steps: dict[str, tuple[Callable[[Example, int], Example], Callable[[Sequence[Example]], StepResult]]] = {
        "personal data": (
            spoiled.with_personal_data,
            lambda given: private(given, personal, TASK, finder(personal)),
        ),
        "other languages": (
            spoiled.in_another_language,
            lambda given: language(given, LanguageParams(keep=("en",))).rows,
        ),
        "boilerplate": (
            spoiled.with_boilerplate,
            lambda given: repair(given, RepairParams(boilerplate="remove"), TASK),
        ),
        "broken encodings": (spoiled.in_a_wrong_encoding, lambda given: repair(given, RepairParams(), TASK)),
    }
    sample = random.Random(seed).sample(list(rows), min(len(rows), 1_000))
    return [ratio for what, (spoil, step) in steps.items() for ratio in _one_step(name, what, sample, spoil, step)]


def _one_step(
    name: str,
    what: str,
    rows: Sequence[Example],
    spoil: Callable[[Example, int], Example],
    step: Callable[[Sequence[Example]], StepResult],
) -> list[Ratio]:
    """A tenth of the rows is spoiled. Whatever the step drops, changes or reports counts as found."""
    bad = {row.id for row in rows[: len(rows) // 10]}
    result = step([spoil(row, number) if row.id in bad else row for number, row in enumerate(rows)])
    found = {row.example.id for row in (*result.quarantined, *result.reported)} | {row.id for row in result.changed}
    hits = len(found & bad)
    return [Ratio(name, f"{what}: recall", hits, len(bad)), Ratio(name, f"{what}: precision", hits, len(found))]


def _straddling_ratios(name: str, rows: Sequence[Example], embed: Embed, seed: int, count: int) -> list[Ratio]:
    originals = random.Random(seed).sample(list(rows), min(count, len(rows)))
    found = []
    for kind in spoiled.KINDS:
        again = spoiled.variants(originals, kind, random.Random(seed))
        for how, threshold in (("by letters", None), (f"and by meaning at {MEANING}", MEANING)):
            if threshold and kind != "paraphrase" and kind not in WORD_CHANGES:
                continue
            straddling = _straddling(originals, again, kind, embed, threshold, seed)
            found.append(Ratio(name, f"straddling, {kind}, {how}", straddling, len(again)))
    return found


def _straddling(
    originals: Sequence[Example],
    again: Sequence[Example],
    kind: str,
    embed: Embed,
    threshold: float | None,
    seed: int,
) -> int:
    """Pairs of a row and its variant that are both used, and in two splits."""
    rows = in_order([row.model_copy(update={"group": f"of {row.id}"}) for row in originals] + list(again))
    near = near_duplicates(rows)
    near = with_pairs(near, rows, semantic(rows, SemanticParams(threshold=threshold), embed)) if threshold else near
    parts = split(rows, SplitParams(), AssignmentRecord(seed), labelled=True, near=near).parts()
    split_of = {row.id: part for part, members in parts.items() for row in members}
    pairs = [(split_of.get(row.id), split_of.get(row.id.removeprefix(f"{kind} "))) for row in again]
    return sum(one is not None and other is not None and one != other for one, other in pairs)
