"""What curation finds in data spoiled in known places, and what a model learns from what it keeps.

    python benchmarks/curation_quality.py --data FOLDER           # with banking77 and contracts
    python benchmarks/curation_quality.py --data FOLDER --choose  # on the data that settings are chosen on, no claims
    python benchmarks/curation_quality.py --data FOLDER --part tuned   # only this part; the others stay as they were
    python benchmarks/curation_quality.py --quick                 # films only, smaller, no output files

Weights, filters and defaults were chosen on product reviews and 4,000 rows of banking77 (`--choose`). The claims are about
other data, spoiled with another seed: film reviews, clauses of contracts, and the rows of banking77 that were not chosen on.

Every step meets clean rows and spoiled ones: recall is the ratio of spoiled rows that it finds, precision the ratio of its
finds that were spoiled. Real data has mistakes of its own, so the precision of label errors is a lower bound. Near
duplicates of 17 kinds are counted if they straddle splits. Pairs that are found by cells, as among many texts, are
compared with all.

Then models are fitted on all spoiled rows, on a random tenth, and on a tenth that curation chose, and answer the same rows,
whose labels are right: logistic regression on embeddings, and the small language model by perpetune's own training, for
equally many steps on each, with several seeds of spoiling and training. Intervals are of 95%: Wilson's for ratios,
paired over test rows for differences: a row's score is its mean over five seeds of the linear models; the language model
answers other test rows with each seed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray
from shared.found_by_steps import WORD_CHANGES, Ratio, found_by_steps, pairs_by_cells
from shared.quality_data import (
    CHOOSING_SEED,
    INTENTS,
    SEED,
    Data,
    chosen_on,
    every_row,
    every_text,
    few_intents,
    limited,
    shown_on,
)
from shared.record import RESULTS, Claim, write
from shared.tenths import (
    ALL,
    CURATED,
    LANGUAGE_MODEL,
    RANDOM,
    SEEDS,
    Embed,
    Learned,
    learned_of,
    linear_models,
    tuned_models,
)

from perpetune.params import EvaluateParams
from perpetune.quality.features import Features, features_of
from perpetune.statistics.paired import compare

T = TypeVar("T", Ratio, Learned)
PARTS = ("steps", "pairs", "linear", "tuned")
EVERY_TEXT = "banking77, every text"
FOUND_BY_CELLS = 0.99
RATES = (0.1, 0.2)
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


class Found(TypedDict):
    """What each part found: `tuned` by the language model, `linear` by the linear ones."""

    ratios: list[Ratio]
    linear: list[Learned]
    tuned: list[Learned]


def main() -> int:
    asked = _arguments()
    began = time.monotonic()
    embed = _embedder(asked)
    data = (chosen_on if asked.choose else shown_on)(asked.assets, asked.data)
    data = [each for each in data if not asked.only or each.name in asked.only]
    fewer = [limited(each, asked.rows) for each in data]
    found = _found(_nothing() if asked.quick or asked.choose else _earlier())
    if "steps" in asked.part:
        here = [
            ratio
            for each in fewer
            for ratio in found_by_steps(each.name, each.pool, RATES, embed, asked.seed, asked.straddling)
        ]
        found["ratios"] = [*_of_others(found["ratios"], fewer), *here]
        for ratio in here:
            _show(ratio)
        _keep(found, asked, began)
    if "pairs" in asked.part and asked.data and not asked.choose:
        by_cells = pairs_by_cells(EVERY_TEXT, every_text(asked.data), embed)
        found["ratios"] = [*(each for each in found["ratios"] if each.data != EVERY_TEXT), by_cells]
        _show(by_cells)
        _keep(found, asked, began)
    if "linear" in asked.part:
        seeds = range(asked.seed, asked.seed + SEEDS)
        whole = [every_row(each) for each in data if len(each.pool) > asked.rows and each.name in asked.whole]
        found["linear"] = _of_others(found["linear"], [*fewer, *whole]) + [
            learned
            for each in (*fewer, *whole)
            for rate in RATES
            for learned in linear_models(each, rate, embed, seeds, every_choice=each in fewer)
        ]
        _keep(found, asked, began)
    if "tuned" in asked.part:
        seeds = range(asked.seed, asked.seed + asked.tuned_seeds)
        small = [each for each in map(few_intents, data) if each.name in asked.tuned_data]
        found["tuned"] = _of_others(found["tuned"], small) + [
            learned
            for seed in seeds
            for each in small
            for learned in tuned_models(each, max(RATES), embed, seed, asked)
        ]
        _keep(found, asked, began)
    claims = [] if asked.choose else claims_of(found)
    for claim in claims:
        low, high = claim.interval
        print(f"{'PASS' if claim.holds else 'FAIL'} {claim.claim}: {claim.value:+.3f} ({low:+.3f} to {high:+.3f})")
    return 0 if asked.quick or all(claim.holds for claim in claims) else 1


def _show(ratio: Ratio) -> None:
    low, high = ratio.interval
    print(f"{ratio.data:10} {ratio.measure:52} {ratio.value:6.1%} ({low:.1%} to {high:.1%}, n={ratio.n})")


def _found(earlier: Mapping[str, Sequence[Mapping[str, Any]]]) -> Found:
    return {
        "ratios": [Ratio(*(each[name] for name in ("data", "measure", "hits", "n"))) for each in earlier["ratios"]],
        "linear": [learned_of(each) for each in earlier["models"] if each["model"] != LANGUAGE_MODEL],
        "tuned": [learned_of(each) for each in earlier["models"] if each["model"] == LANGUAGE_MODEL],
    }


def _of_others(found: Sequence[T], data: Sequence[Data]) -> list[T]:
    """What was found on data sets that this run leaves alone."""
    names = {each.name for each in data}
    return [each for each in found if each.data not in names]


def claims_of(found: Found) -> list[Claim]:
    return [*_ratio_claims(found["ratios"]), *_learning_claims([*found["linear"], *found["tuned"]])]


def _keep(found: Found, asked: argparse.Namespace, began: float) -> None:
    if asked.quick or asked.choose:
        return
    models = [each.as_document() for each in (*found["linear"], *found["tuned"])]
    details = {"ratios": [_as_document(each) for each in found["ratios"]], "models": models}
    write("curation_quality", claims_of(found), details, time.monotonic() - began)


def _earlier() -> dict[str, list[dict[str, Any]]]:
    path = RESULTS / "curation_quality.json"
    found: dict[str, list[dict[str, Any]]] = (
        json.loads(path.read_text(encoding="utf-8"))["details"] if path.is_file() else _nothing()
    )
    return found


def _nothing() -> dict[str, list[dict[str, Any]]]:
    return {"ratios": [], "models": []}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--home", type=Path, default=Path(".perpetune/curation_quality"), help="for embeddings")
    parser.add_argument("--data", type=Path, default=os.environ.get("DATA"), help="with banking77 and contracts")
    parser.add_argument("--rows", type=int, default=2_000, help="of each data set, for all but the language model")
    parser.add_argument("--whole", nargs="+", default=["banking77"], help="data of which the linear models get all too")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--only", nargs="+", help="names of data sets; the others stay as they were")
    parser.add_argument("--straddling", type=int, default=300, help="rows whose near duplicates are looked for")
    parser.add_argument("--tuned-data", nargs="+", default=["films", f"banking77, {INTENTS} intents"])
    parser.add_argument("--tuned-seeds", type=int, default=3)
    parser.add_argument("--tuned-rows", type=int, default=1_500, help="to spoil, for the language model")
    parser.add_argument("--tuned-test", type=int, default=150, help="test rows of each seed")
    parser.add_argument("--threads", type=int, default=2, help="of the language model")
    parser.add_argument("--choose", action="store_true", help="on the data of choosing; no claims, no output files")
    parser.add_argument("--quick", action="store_true", help="600 rows of films, no output files")
    asked = parser.parse_args()
    asked.seed = CHOOSING_SEED if asked.choose else SEED
    if asked.quick:
        asked.rows, asked.straddling, asked.data, asked.part = 600, 100, None, ["steps", "linear"]
    return asked


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


def _ratio_claims(ratios: Sequence[Ratio]) -> list[Claim]:
    """Wrong labels are found better than by chance; near duplicates straddle as rarely as promised."""
    claims = []
    for ratio in ratios:
        if ratio.measure.endswith("wrong labels: precision"):
            goal = 2 * float(ratio.measure.partition("%")[0]) / 100
            claims.append(_claim(ratio, goal, ratio.interval[0] > goal))
        if ratio.data == EVERY_TEXT:
            claims.append(_claim(ratio, FOUND_BY_CELLS, ratio.value >= FOUND_BY_CELLS))
        kind = ratio.measure.split(", ")[1] if ratio.measure.startswith("straddling") else ""
        if kind in NEVER and "letters" in ratio.measure:
            claims.append(_claim(ratio, 0.0, ratio.hits == 0))
        if kind in WORD_CHANGES and "letters" in ratio.measure:
            claims.append(_claim(ratio, 0.05, ratio.value <= 0.05))
    return claims


def _claim(ratio: Ratio, goal: float, holds: bool) -> Claim:
    return Claim(f"{ratio.data}, {ratio.measure}", ratio.value, ratio.interval, goal, holds)


def _learning_claims(learned: Sequence[Learned]) -> list[Claim]:
    """A curated tenth beats a random one by more than the interval, and is not worse than all rows.

    The language model's rows of all seeds are compared in one: each seed has spoiled rows and test rows of its own.
    """
    claims = []
    for data, rate, model in dict.fromkeys((each.data, each.rate, each.model) for each in learned):
        here = [each for each in learned if (each.data, each.rate, each.model) == (data, rate, model)]
        scores = {
            system: [
                score
                for each in sorted(here, key=lambda one: one.seed)
                if each.system == system
                for score in each.scores
            ]
            for system in (CURATED, RANDOM, ALL)
        }
        if len({len(each) for each in scores.values()}) > 1:
            continue  # a seed is being trained
        for rival, goal in ((RANDOM, 0.0), (ALL, -0.02)):
            gain = compare(scores[rival], scores[CURATED], confidence=0.95, samples=2000, seed=SEED)
            words = f"{data}, {rate:.0%} flipped, {model}: {CURATED} less {rival}"
            claims.append(Claim(words, gain.difference, (gain.low, gain.high), goal, gain.low > goal))
    return claims


def _as_document(ratio: Ratio) -> dict[str, object]:
    return {**asdict(ratio), "value": round(ratio.value, 4), "interval": [round(end, 4) for end in ratio.interval]}


if __name__ == "__main__":
    sys.exit(main())
