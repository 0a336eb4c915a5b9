"""What curation finds in data spoiled in known places, and what a model learns from what it keeps.

    python benchmarks/curation_quality.py --banking77 FOLDER    # the folder with train.csv and test.csv of banking77
    python benchmarks/curation_quality.py --quick               # reviews only, smaller, no output files

Every step meets clean rows and spoiled ones: recall is the ratio of spoiled rows that it finds, precision the ratio of its
finds that were spoiled. Real data has mistakes of its own, so the precision of label errors is a lower bound. Near
duplicates of 17 kinds are counted if they straddle splits.

Then one model, logistic regression on embeddings, is fitted on all spoiled rows, on random tenths (the mean of five), and
on tenths that curation chose, and answers the same rows, whose labels are right: once to convergence, and once with
as many steps on each, as many as are needed to see the tenth thirty times. Intervals are of 95%: Wilson's for ratios,
paired over rows for differences.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import spoiled
from numpy.typing import NDArray
from record import Claim, write

from perpetune.curation.assignment_record import AssignmentRecord
from perpetune.curation.duplicates.by_meaning import with_pairs
from perpetune.curation.duplicates.near import near_duplicates
from perpetune.curation.quarantine import StepResult, in_order
from perpetune.curation.steps.clean import DUPLICATE, clean
from perpetune.curation.steps.split import split
from perpetune.params import (
    CleanParams,
    EvaluateParams,
    LabelErrorsParams,
    SelectParams,
    SemanticParams,
    SplitParams,
    TaskParams,
)
from perpetune.quality.features import Features, features_of
from perpetune.quality.judge import judgeable, opinions_of
from perpetune.quality.quotas import balanced_quotas
from perpetune.quality.steps.label_errors import label_errors
from perpetune.quality.steps.select import select
from perpetune.quality.steps.semantic import semantic
from perpetune.records import Example
from perpetune.statistics.estimate import wilson
from perpetune.statistics.paired import compare

SEED = 7
RATES = (0.1, 0.2)
MEANING = 0.9
NEVER = (
    "case",
    "punctuation",
    "full_stop",
    "unicode_form",
    "zero_width",
    "markup",
    "entities",
    "greeting",
    "numbering",
)
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


def main() -> int:
    asked = _arguments()
    began = time.monotonic()
    embed = _embedder(asked)
    data = {"reviews": spoiled.reviews(asked.assets)}
    if asked.banking77:
        data["banking77"] = spoiled.banking(asked.banking77, "train")
    ratios = [
        ratio for name, rows in data.items() for ratio in found_by_steps(name, _sample(rows, asked.rows), embed, asked)
    ]
    for ratio in ratios:
        low, high = ratio.interval
        print(
            f"{ratio.data:10} {ratio.measure:52} {ratio.value:6.1%} ({low:.1%} to {high:.1%}, n={ratio.n})", flush=True
        )
    results = [
        result
        for name, rows in data.items()
        for rate in RATES
        for result in learned_from(name, _sample(rows, asked.rows), rate, embed, asked)
    ]
    claims = [*_ratio_claims(ratios), *_learning_claims(results)]
    for claim in claims:
        low, high = claim.interval
        print(f"{'PASS' if claim.holds else 'FAIL'} {claim.claim}: {claim.value:+.3f} ({low:+.3f} to {high:+.3f})")
    if not asked.quick:
        details = {
            "ratios": [_as_document(each) for each in ratios],
            "models": [each.as_document() for each in results],
        }
        print(write("curation_quality", claims, details, time.monotonic() - began))
    return 0 if asked.quick or all(claim.holds for claim in claims) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--home", type=Path, default=Path(".perpetune/curation_quality"), help="for embeddings")
    parser.add_argument("--banking77", type=Path, default=os.environ.get("BANKING77"), help="its folder")
    parser.add_argument("--rows", type=int, default=4_000, help="of each data set, a sample")
    parser.add_argument("--quick", action="store_true", help="600 rows of reviews, no output files")
    asked = parser.parse_args()
    if asked.quick:
        asked.rows, asked.banking77 = 600, None
    return asked


def _sample(rows: Sequence[Example], count: int) -> list[Example]:
    return random.Random(SEED).sample(list(rows), min(count, len(rows)))


def _embedder(asked: argparse.Namespace) -> Embed:
    """Embeddings, each text once in this run."""
    known: dict[str, NDArray[np.float32]] = {}

    def embed(texts: Sequence[str]) -> Features:
        new = list(dict.fromkeys(text for text in texts if text not in known))
        encoder = EvaluateParams().encoder
        found = features_of(new, encoder, asked.assets, asked.home)
        if not found.are_embeddings:
            raise SystemExit(f"the encoder is needed: {found.why}")
        known.update(zip(new, found.vectors, strict=True))
        return Features(np.stack([known[text] for text in texts]), found.name)

    return embed


def found_by_steps(name: str, rows: Sequence[Example], embed: Embed, asked: argparse.Namespace) -> list[Ratio]:
    """Recall and precision of each step, and how many near duplicates straddle."""
    return [
        *_label_ratios(name, rows, embed),
        *_duplicate_ratios(name, rows),
        *_step_ratios(name, rows),
        *_straddling_ratios(name, rows, embed, 100 if asked.quick else 300),
    ]


def _label_ratios(name: str, rows: Sequence[Example], embed: Embed) -> list[Ratio]:
    found = []
    for rate in RATES:
        flipped, wrong = spoiled.with_flipped_labels(rows, rate, random.Random(SEED))
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


def _duplicate_ratios(name: str, rows: Sequence[Example]) -> list[Ratio]:
    once = clean(rows, CleanParams(), TASK).kept
    copied = spoiled.copies(once, len(once) // 4, random.Random(SEED))
    result = clean([*once, *copied], CleanParams(), TASK)
    dropped = [row for row in result.quarantined if row.reason == DUPLICATE]
    pairs = {row.id.removeprefix("copy ") for row in copied}
    hits = sum(row.example.id.removeprefix("copy ") in pairs for row in dropped)
    return [
        Ratio(name, "exact duplicates: recall", hits, len(copied)),
        Ratio(name, "exact duplicates: precision", hits, len(result.quarantined)),
    ]


def _step_ratios(name: str, rows: Sequence[Example]) -> list[Ratio]:
    """The steps on texts, if they are part of this version."""
    from perpetune.curation.steps.language import language
    from perpetune.curation.steps.private import finder, private
    from perpetune.curation.steps.repair import repair
    from perpetune.params import LanguageParams, PrivateParams, RepairParams

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
    sample = random.Random(SEED).sample(list(rows), min(len(rows), 1_000))
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


def _straddling_ratios(name: str, rows: Sequence[Example], embed: Embed, count: int) -> list[Ratio]:
    originals = random.Random(SEED).sample(list(rows), min(count, len(rows)))
    found = []
    for kind in spoiled.KINDS:
        again = spoiled.variants(originals, kind, random.Random(SEED))
        for how, threshold in (("by letters", None), (f"and by meaning at {MEANING}", MEANING)):
            if threshold and kind != "paraphrase" and kind not in WORD_CHANGES:
                continue
            straddling = _straddling(originals, again, kind, embed, threshold)
            found.append(Ratio(name, f"straddling, {kind}, {how}", straddling, len(again)))
    return found


def _straddling(
    originals: Sequence[Example], again: Sequence[Example], kind: str, embed: Embed, threshold: float | None
) -> int:
    """Pairs of a row and its variant that are both used, and in two splits."""
    rows = in_order([row.model_copy(update={"group": f"of {row.id}"}) for row in originals] + list(again))
    near = near_duplicates(rows)
    near = with_pairs(near, rows, semantic(rows, SemanticParams(threshold=threshold), embed)) if threshold else near
    parts = split(rows, SplitParams(), AssignmentRecord(SEED), labelled=True, near=near).parts()
    split_of = {row.id: part for part, members in parts.items() for row in members}
    pairs = [(split_of.get(row.id), split_of.get(row.id.removeprefix(f"{kind} "))) for row in again]
    return sum(one is not None and other is not None and one != other for one, other in pairs)


@dataclass(frozen=True)
class Learned:
    """A model's training rows and its scores, from 0 to 1 for each test row, to convergence and with equal steps."""

    data: str
    rate: float
    system: str
    rows: int
    wrong: float
    scores: tuple[float, ...]
    equal_steps: tuple[float, ...]

    def as_document(self) -> dict[str, object]:
        """Without the rows."""
        return {
            "data": self.data,
            "flipped": self.rate,
            "trained on": self.system,
            "rows": self.rows,
            "wrong labels left": round(self.wrong, 4),
            "accuracy": round(float(np.mean(self.scores)), 4),
            "accuracy with equal steps": round(float(np.mean(self.equal_steps)), 4),
            "test rows": len(self.scores),
        }


def learned_from(
    name: str, rows: Sequence[Example], rate: float, embed: Embed, asked: argparse.Namespace
) -> list[Learned]:
    """The model on all spoiled rows, random tenths, and tenths that curation chose."""
    draw = random.Random(SEED)
    pool, test = _divided(rows) if name == "reviews" else (list(rows), spoiled.banking(asked.banking77, "test"))
    flipped, wrong = spoiled.with_flipped_labels(pool, rate, draw)
    twins = [twin for kind in ("case", "one_word", "greeting") for twin in spoiled.variants(
        draw.sample(flipped, len(flipped) // 30), kind, draw)]  # fmt: skip
    raw = in_order([*flipped, *spoiled.copies(flipped, len(flipped) // 10, draw), *twins])
    budget = len(raw) // 10
    curated = label_errors(raw, LabelErrorsParams(action="quarantine", max_rows=None), embed).result.kept
    kept = clean(curated, CleanParams(), TASK).kept

    def chosen(method: str) -> list[Example]:
        settings = SelectParams.model_validate({"budget": budget, "method": method})
        return list(select(kept, settings, embed, labelled=True).chosen)

    systems = {
        "all spoiled rows": [raw],
        "random tenth": [random.Random(seed).sample(raw, budget) for seed in range(5)],
        "curated, facility location": [chosen("facility_location")],
        "curated, k-center": [chosen("k_center")],
        "curated, random": [chosen("random")],
        "curated, hardest": [hardest(kept, budget, embed)],
        "spoiled, facility location": [list(select(raw, SelectParams(budget=budget), embed, labelled=True).chosen)],
        "all curated rows": [list(kept)],
    }
    found = []
    for system, samples in systems.items():
        learned = [_fitted(sample, test, embed, steps=30 * budget) for sample in samples]
        found.append(
            Learned(
                name,
                rate,
                system,
                len(samples[0]),
                float(np.mean([_is_wrong(row, wrong) for sample in samples for row in sample])),
                tuple(np.mean([scores for scores, _ in learned], axis=0).tolist()),
                tuple(np.mean([scores for _, scores in learned], axis=0).tolist()),
            )
        )
        document = found[-1].as_document()
        print("  ".join(f"{key} {value}" for key, value in document.items()), flush=True)
    return found


def _is_wrong(row: Example, wrong: dict[str, str]) -> bool:
    name = row.id.removeprefix("copy ")
    for kind in spoiled.KINDS:
        name = name.removeprefix(f"{kind} ")
    return name in wrong and wrong[name] != row.output


def _divided(rows: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    groups = sorted({row.group for row in rows})
    held = set(random.Random(SEED).sample(groups, len(groups) // 4))
    return [row for row in rows if row.group not in held], [row for row in rows if row.group in held]


def hardest(rows: Sequence[Example], budget: int, embed: Embed) -> list[Example]:
    """Of each label the rows with the smallest out-of-fold margin, to compare with."""
    places, _ = judgeable(rows, [row.group for row in rows], 5, None)
    judged = [rows[place] for place in places]
    margins = opinions_of(judged, embed([r.input for r in judged]).vectors, [r.group for r in judged], 5).margins
    by_label: dict[str, list[int]] = {}
    for place in np.argsort(margins, kind="stable").tolist():
        by_label.setdefault(judged[place].output, []).append(place)
    quotas = balanced_quotas({label: len(members) for label, members in by_label.items()}, budget)
    return [judged[place] for label, members in by_label.items() for place in members[: quotas[label]]]


def _fitted(
    rows: Sequence[Example], test: Sequence[Example], embed: Embed, steps: int
) -> tuple[list[float], list[float]]:
    """Which test rows are right, by a model to convergence and by one after so many steps of one row each."""
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from threadpoolctl import threadpool_limits

    inputs, labels = embed([row.input for row in rows]).vectors, np.array([row.output for row in rows])
    asked, right = embed([row.input for row in test]).vectors, np.array([row.output for row in test])
    order = np.concatenate([np.random.default_rng(n).permutation(len(rows)) for n in range(-(-steps // len(rows)))])
    visits = order[:steps]
    with threadpool_limits(1):
        full = LogisticRegression(C=10, max_iter=300).fit(2 * inputs, labels)
        brief = SGDClassifier(loss="log_loss", alpha=1e-5, random_state=SEED, shuffle=False)
        brief.partial_fit(2 * inputs[visits], labels[visits], classes=np.unique(labels))
        return tuple([float(hit) for hit in model.predict(2 * asked) == right] for model in (full, brief))  # type: ignore[return-value]


def _ratio_claims(ratios: Sequence[Ratio]) -> list[Claim]:
    """Wrong labels are found better than by chance; near duplicates straddle as rarely as promised."""
    claims = []
    for ratio in ratios:
        if ratio.measure.endswith("wrong labels: precision"):
            goal = 2 * float(ratio.measure.partition("%")[0]) / 100
            claims.append(_claim(ratio, goal, ratio.interval[0] > goal))
        kind = ratio.measure.split(", ")[1] if ratio.measure.startswith("straddling") else ""
        if kind in NEVER and "letters" in ratio.measure:
            claims.append(_claim(ratio, 0.0, ratio.hits == 0))
        if kind in WORD_CHANGES and "letters" in ratio.measure:
            claims.append(_claim(ratio, 0.05, ratio.value <= 0.05))
    return claims


def _claim(ratio: Ratio, goal: float, holds: bool) -> Claim:
    return Claim(f"{ratio.data}, {ratio.measure}", ratio.value, ratio.interval, goal, holds)


def _learning_claims(results: Sequence[Learned]) -> list[Claim]:
    """A curated tenth beats a random one by more than the interval, and is not worse than all rows."""
    by_name = {(each.data, each.rate, each.system): each for each in results}
    claims = []
    for data, rate in dict.fromkeys((each.data, each.rate) for each in results):
        curated, chance, everything = (
            by_name[data, rate, system] for system in ("curated, facility location", "random tenth", "all spoiled rows")
        )
        for how, scores in (("to convergence", "scores"), ("equal steps", "equal_steps")):
            for rival in (chance, everything):
                gain = compare(
                    getattr(rival, scores), getattr(curated, scores), confidence=0.95, samples=2000, seed=SEED
                )
                goal = 0.0 if rival is chance else -0.02
                words = f"{data}, {rate:.0%} flipped, {how}: a curated tenth less {rival.system}"
                claims.append(Claim(words, gain.difference, (gain.low, gain.high), goal, gain.low > goal))
    return claims


def _as_document(ratio: Ratio) -> dict[str, object]:
    return {**asdict(ratio), "value": round(ratio.value, 4), "interval": [round(end, 4) for end in ratio.interval]}


if __name__ == "__main__":
    sys.exit(main())
