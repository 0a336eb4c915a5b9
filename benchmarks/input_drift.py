"""Drift of inputs: false alarms and power of the test, beside Evidently's at equal false-alarm rates.

    python benchmarks/input_drift.py --data DATA [--quick] [--ours]

DATA has banking77/{train,test}.csv (columns text, category). The reference has 600 requests without five of the intents, a
window 300 or 1,000. What changes is 5, 10 or 20% of a window: one of the five intents, two requests in one text, or
German (benchmarks/german.txt). The others' thresholds are set on windows without a change, so that 1% of those alarm. Every
window has its own reference, intents and requests. The test's statistic and its neighbours were chosen on half of the
intents; the claim on new intents is measured on all, and on those of the other half alone.

Years of daily checks run with the product's budget of alarms, on requests that depend on each other: day and night, bursts
of one user, a user with 30% of them. They leave the classifier out, which has a third of the level, for the time it takes.
`--ours` tests the same windows with perpetune alone, and takes the others' figures from the last results.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.stats import gamma
from shared.record import RESULTS, Claim, write

from perpetune.classifiers.encoder import load_encoder
from perpetune.monitoring.evidently_report import dataset
from perpetune.monitoring.input_drift import (
    ALIKE,
    MOST_ROWS,
    NEIGHBOURS,
    PARTS,
    InputRow,
    compare_inputs,
    p_of_columns,
    vectors_of,
)
from perpetune.monitoring.window import descriptors
from perpetune.params import EvaluateParams
from perpetune.prediction_log.answers.embeddings import rounded
from perpetune.statistics.estimate import wilson
from perpetune.statistics.sequential.alarm_budget import AlarmBudget, affordable, refilled, spent
from perpetune.statistics.two_sample import neighbour_test

LEVEL = 0.01
REFERENCE, NEWEST, WEEK = 600, 300, 1000
NEW_INTENTS = 5
RATIOS = (0.05, 0.1, 0.2)
TOPIC, LONG, GERMAN, NOTHING = "new intents", "two requests in one", "German", "no change"
UNSEEN = "new intents, of those that nothing was chosen on"
OURS, WITHOUT, PRESET, MODEL, MMD = (
    "perpetune",
    "perpetune without embeddings",
    "Evidently's preset on descriptors",
    "Evidently's classifier on embeddings",
    "Evidently's MMD on embeddings",
)
SEED = 15
CHOSEN_ON = 38  # of the 77 intents; the others are held back
PER_DAY = 100  # requests in a simulated year
BY_DAY, BURSTS, HEAVY = "day and night", "bursts of five", "a user with 30%"
STREAMS = ("independent requests", BY_DAY, BURSTS, HEAVY)
LISTED = 400  # texts nearest to each one: enough that there are neighbours among any sample
ALARMS_BY_CHANCE = 0.05  # at which the p-values of all tests of the years are counted


@dataclass(frozen=True, eq=False)
class Pool:
    """Texts with their intents and embeddings (rows, size), and texts in German with theirs."""

    texts: list[str]
    intents: np.ndarray
    vectors: np.ndarray
    german: list[str]
    german_vectors: np.ndarray


@dataclass(frozen=True, eq=False)
class Windows:
    """A reference and a window."""

    old: list[InputRow]
    new: list[InputRow]


@dataclass(frozen=True)
class Years:
    """Daily checks without a change: their alarms, tests, and the ratio of tests with p at most 5%."""

    years: int
    tests: int
    alarms: int
    at_five_percent: float


Score = Callable[[Windows], float]
"""The larger, the more drift."""


def main() -> int:
    asked = _arguments()
    began = time.perf_counter()
    quick = asked.quick
    pool = _pool(asked.data, 2000 if quick else 6000)
    chance = np.random.default_rng(SEED)
    nulls, reps, years = (40, 8, 1) if quick else (120, 20, 3)
    methods: dict[str, Score] = {
        OURS: ours,
        WITHOUT: without_embeddings,
        PRESET: preset,
        MODEL: _evidently_embeddings("model"),
        MMD: _evidently_embeddings("mmd"),
    }
    before = _results(asked.results) if asked.ours else {}
    methods = {OURS: ours} if asked.ours else methods
    stable = [windows(pool, chance, NOTHING, 0.0, NEWEST) for _ in range(nulls)]
    of_nulls = {name: np.array([score(each) for each in stable]) for name, score in methods.items()}
    thresholds = {name: float(np.quantile(scores, 1 - LEVEL)) for name, scores in of_nulls.items()}
    thresholds |= {OURS: 1 - LEVEL, WITHOUT: 1 - LEVEL}  # as stated, not as measured
    print(f"{'':24}" + "".join(f"{name:>38}" for name in methods))
    power: dict[str, dict[str, float]] = {}
    for kind in (TOPIC, LONG, GERMAN):
        for ratio in RATIOS:
            drawn = [windows(pool, chance, kind, ratio, NEWEST) for _ in range(reps)]
            cell = {
                name: float(np.mean([score(each) >= thresholds[name] for each in drawn]))
                for name, score in methods.items()
            }
            power[f"{kind}, {ratio:.0%}"] = (
                before.get("power of 300 requests", {}).get(f"{kind}, {ratio:.0%}", {}) | cell
            )
            print(f"{kind + f', {ratio:.0%}':24}" + "".join(f"{cell[name]:38.0%}" for name in methods), flush=True)
    weekly = {
        f"{TOPIC}, {ratio:.0%}": float(
            np.mean([ours(windows(pool, chance, TOPIC, ratio, WEEK)) >= 1 - LEVEL for _ in range(reps)])
        )
        for ratio in RATIOS
    }
    print(f"of a week's 1,000 requests: {weekly}", flush=True)
    unseen = np.mean([ours(windows(pool, chance, UNSEEN, 0.1, WEEK)) >= 1 - LEVEL for _ in range(2 * reps)])
    print(f"of intents that nothing was chosen on, 10%: {unseen:.0%}", flush=True)
    calendar = {stream: _years(pool, stream, years) for stream in STREAMS}
    for stream, found in calendar.items():
        print(f"{stream}: {found}", flush=True)
    claims = _claims(of_nulls[OURS], power, weekly, float(unseen), reps, calendar)
    for claim in claims:
        print(
            f"{'holds' if claim.holds else 'DOES NOT HOLD':14} {claim.claim}: {claim.value:.3f} (goal {claim.goal:g})"
        )
    details = {
        "windows": {"stable": nulls, "of each change": reps, "reference": REFERENCE, "newest": NEWEST, "week": WEEK},
        "power of 300 requests": power,
        "power of 1,000 requests": weekly,
        "false alarms of windows without a change": {
            **before.get("false alarms of windows without a change", {}),
            **{name: float((scores >= thresholds[name]).mean()) for name, scores in of_nulls.items()},
        },
        "power of 1,000 requests with intents that nothing was chosen on": float(unseen),
        "years": {stream: asdict(found) for stream, found in calendar.items()},
        "the others' figures are of commit": before.get("commit"),
        "milliseconds of an embedding": _milliseconds(pool),
    }
    folder = asked.results
    write("input_drift", claims, details, time.perf_counter() - began, folder)
    _draw(power, folder / "input_drift.png")
    return 0 if all(claim.holds for claim in claims) else 1


def ours(each: Windows) -> float:
    found = compare_inputs(each.new, each.old, LEVEL)
    return 1 - found.p_value if found.drifted or found.p_value > LEVEL else 0.0


def without_embeddings(each: Windows) -> float:
    return ours(Windows(*([InputRow(row.id, row.text, row.cluster) for row in rows] for rows in (each.old, each.new))))


def preset(each: Windows) -> float:
    """1 less the smallest p-value of the preset's tests of columns."""
    from evidently import Report
    from evidently.presets import DataDriftPreset

    now, then = (pd.DataFrame(descriptors([row.text for row in rows])) for rows in (each.new, each.old))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = Report([DataDriftPreset()]).run(dataset(now), dataset(then)).dict()["metrics"]
    return 1 - min(float(each["value"]) for each in found if each["config"]["type"].endswith(":ValueDrift"))


def _evidently_embeddings(name: str) -> Score:
    from evidently.legacy.metrics.data_drift import embedding_drift_methods

    method = getattr(embedding_drift_methods, name)()

    def score(each: Windows) -> float:
        now, then = (pd.DataFrame(vectors_of(rows)) for rows in (each.new, each.old))
        for frame in (now, then):
            frame.columns = frame.columns.astype(str)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(method(now, then)[0])

    return score


def windows(pool: Pool, chance: np.random.Generator, kind: str, ratio: float, rows: int) -> Windows:
    intents = held_back(pool.intents) if kind == UNSEEN else np.unique(pool.intents)
    new_intents = chance.choice(intents, NEW_INTENTS, replace=False)
    is_new = np.isin(pool.intents, new_intents)
    known, others = chance.permutation(np.flatnonzero(~is_new)), chance.permutation(np.flatnonzero(is_new))
    changed = round(ratio * rows)
    old = [_row(pool, place) for place in known[:REFERENCE]]
    new = [_row(pool, place) for place in known[REFERENCE : REFERENCE + rows - changed]]
    spare = known[REFERENCE + rows :]
    if kind in (TOPIC, UNSEEN):
        new += [_row(pool, place) for place in others[:changed]]
    elif kind == LONG:
        new += [_joined(pool, *spare[2 * number : 2 * number + 2]) for number in range(changed)]
    elif kind == GERMAN:
        places = chance.permutation(len(pool.german))[:changed]
        new += [
            InputRow(f"g{place}", pool.german[place], f"g{place}", vector=pool.german_vectors[place])
            for place in places
        ]
    order = chance.permutation(len(new))
    return Windows(old, [new[place] for place in order])


def held_back(intents: np.ndarray) -> np.ndarray:
    """The intents that nothing was chosen on."""
    names = sorted(set(intents.tolist()))
    np.random.default_rng(0).shuffle(names)
    return np.array(names[CHOSEN_ON:])


def _results(folder: Path) -> dict[str, Any]:
    """The details of the last results, and their commit."""
    found = json.loads((folder / "input_drift.json").read_text(encoding="utf-8"))
    commit = found["details"].get("the others' figures are of commit") or found["commit"]
    details: dict[str, Any] = found["details"] | {"commit": commit}
    return details


def _row(pool: Pool, place: int) -> InputRow:
    return InputRow(str(place), pool.texts[place], str(place), vector=pool.vectors[place])


def _joined(pool: Pool, one: int, other: int) -> InputRow:
    """Two requests in one text; the embedding of both is near the mean of theirs."""
    vector = pool.vectors[one] + pool.vectors[other]
    text = f"{pool.texts[one]} {pool.texts[other]}"
    return InputRow(f"{one}+{other}", text, f"{one}+{other}", vector=vector / np.linalg.norm(vector))


def _years(pool: Pool, stream: str, years: int) -> Years:
    """Years of daily checks of requests without a change, each year with another reference.

    Requests are drawn from the pool, so that windows overlap and requests come again. A day is tested as the product does:
    the newest requests, and those of a week, each at a quarter of the level, by neighbours and by columns.
    """
    chance, distinct = np.random.default_rng([SEED, STREAMS.index(stream)]), _distinct(pool)
    order = np.argsort(-(distinct.vectors @ distinct.vectors.T), axis=1, kind="stable")[:, 1 : LISTED + 1]
    described = pd.DataFrame(descriptors(distinct.texts))
    p_values, alarms = [], 0
    for _ in range(years):
        places = chance.permutation(len(distinct.texts))
        old, others = places[:REFERENCE], places[REFERENCE:]
        budget, start = AlarmBudget(), datetime(2025, 1, 1, tzinfo=UTC)
        days: list[np.ndarray] = []
        for number in range(365):
            days = [*days, _a_day(distinct, stream, others, chance)][-7:]
            budget = refilled(budget, start + timedelta(days=number), 1.0)
            level = affordable(budget, 1.0)
            if level is None or len(days) * PER_DAY < NEWEST:
                continue
            budget = spent(budget, level)
            found = [
                _p_of_window(order, described, old, span, level / 4) for span in (days[-NEWEST // PER_DAY :], days)
            ]
            p_values += found
            alarms += min(found) <= level / 4
    return Years(years, len(p_values), alarms, float(np.mean(np.array(p_values) <= ALARMS_BY_CHANCE)))


def _distinct(pool: Pool) -> Pool:
    """Texts of which no two are near duplicates, so that a window has to be thinned by place alone."""
    is_alike = np.triu(pool.vectors @ pool.vectors.T >= ALIKE, 1)
    kept = np.flatnonzero(~is_alike.any(axis=0))
    return Pool([pool.texts[place] for place in kept], pool.intents[kept], pool.vectors[kept], [], pool.german_vectors)


def _a_day(pool: Pool, stream: str, others: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """The places of a day's independent requests, in order: one of each user counts."""
    if stream == BURSTS:
        return chance.choice(others, PER_DAY // 5)
    if stream == HEAVY:
        return chance.choice(others, round(0.7 * PER_DAY) + 1)
    if stream == BY_DAY:
        by_night = np.isin(pool.intents[others], np.unique(pool.intents)[::2])
        parts = [others[by_night], others[~by_night]]
        mixed = [chance.choice(parts[part], round(ratio * PER_DAY / 2)) for part, ratio in _HALVES]
        return np.concatenate(mixed)
    return chance.choice(others, PER_DAY)


_HALVES = ((0, 0.8), (1, 0.2), (0, 0.2), (1, 0.8))  # of a day: which part of the intents, and its ratio


def _p_of_window(
    order: np.ndarray, described: pd.DataFrame, old: np.ndarray, days: list[np.ndarray], level: float
) -> float:
    """`order`: the texts nearest to each one, the nearest first."""
    new = np.unique(np.concatenate(days))[:MOST_ROWS]
    places, is_new = np.concatenate([old, new]), [False] * len(old) + [True] * len(new)
    near = neighbour_test(
        _nearest_among(order, places),
        is_new,
        [str(place) for place in range(len(places))],
        permutations=round(2 * PARTS / level),
        seed=int(new[0]),
    )
    return min(1.0, PARTS * min(near.p_value, p_of_columns(described.iloc[places], len(old))))


def _nearest_among(order: np.ndarray, places: np.ndarray) -> csr_array:
    """The graph of nearest neighbours among these places, from what is nearest to each one among all."""
    number = np.full(len(order), -1)
    number[places] = np.arange(len(places))
    listed = number[order[places]]
    is_near = (listed >= 0) & (np.cumsum(listed >= 0, axis=1) <= NEIGHBOURS)
    rows = np.repeat(np.arange(len(places)), is_near.sum(axis=1))
    return csr_array((np.ones(len(rows)), (rows, listed[is_near])), shape=(len(places), len(places)))


def _claims(
    nulls: np.ndarray,
    power: dict[str, dict[str, float]],
    weekly: dict[str, float],
    unseen: float,
    reps: int,
    calendar: dict[str, Years],
) -> list[Claim]:
    count = int((nulls >= 1 - LEVEL).sum())
    low, high = wilson(count, len(nulls), 0.95).low, wilson(count, len(nulls), 0.95).high
    claims = [Claim("false alarms of a test at level 1%", count / len(nulls), (low, high), LEVEL, bool(low <= LEVEL))]
    for stream, found in calendar.items():
        least, most = (float(end) / found.years for end in _poisson(found.alarms))
        claims.append(
            Claim(
                f"false alarms a year, {stream} ({found.tests:,} tests of {found.years} years)",
                found.alarms / found.years,
                (least, most),
                1,
                found.alarms / found.years <= 1,
            )
        )
    tests, years = (sum(getattr(each, name) for each in calendar.values()) for name in ("tests", "years"))
    alarms = sum(each.alarms for each in calendar.values())
    least, most = (float(end) / years for end in _poisson(alarms))
    claims.append(Claim(f"false alarms a year, all {years} years", alarms / years, (least, most), 1, most <= 1))
    five = sum(each.at_five_percent * each.tests for each in calendar.values()) / tests
    claims.append(
        Claim("tests of these years with p at most 5%", five, (five, five), ALARMS_BY_CHANCE, five <= ALARMS_BY_CHANCE)
    )
    for change, goal in ((f"{TOPIC}, 20%", 0.7), (f"{LONG}, 20%", 0.4), (f"{GERMAN}, 10%", 0.9)):
        claims.append(_power(f"300 requests, {change}: found at level 1%", power[change][OURS], reps, goal))
    claims.append(_power(f"1,000 requests, {TOPIC}, 10%: found at level 1%", weekly[f"{TOPIC}, 10%"], reps, 0.5))
    claims.append(_power(f"1,000 requests, {UNSEEN}, 10%: found at level 1%", unseen, 2 * reps, 0.5))
    best = [cell[OURS] - max(cell[name] for name in (PRESET, MODEL, MMD)) for cell in power.values()]
    claims.append(
        Claim(
            "mean gain in power over the best of Evidently's three, change by change",
            float(np.mean(best)),
            (min(best), max(best)),
            0.0,
            bool(np.mean(best) > 0),
        )
    )
    return claims


def _poisson(count: int) -> tuple[float, float]:
    """A 95% interval of the mean of a count (Garwood, Biometrika 28 (1936) 437)."""
    return (float(gamma.ppf(0.025, count)) if count else 0.0), float(gamma.ppf(0.975, count + 1))


def _power(claim: str, value: float, reps: int, goal: float) -> Claim:
    found = wilson(round(value * reps), reps, 0.95)
    return Claim(claim, value, (found.low, found.high), goal, bool(value >= goal))


def _pool(data: Path, rows: int) -> Pool:
    requests = [
        (row["text"], row["category"])
        for part in ("train", "test")
        for row in csv.DictReader((data / "banking77" / f"{part}.csv").open(encoding="utf-8", newline=""))
    ]
    random.Random(SEED).shuffle(requests)
    requests = requests[:rows]
    german = (Path(__file__).parent / "german.txt").read_text(encoding="utf-8").split("\n")[:60]
    encoder = EvaluateParams().encoder
    assert encoder is not None
    loaded = load_encoder(encoder, Path("assets"))
    texts = [text for text, _ in requests]
    return Pool(
        texts,
        np.array([intent for _, intent in requests]),
        rounded(loaded.encode(texts)),
        german,
        rounded(loaded.encode(german)),
    )


def _milliseconds(pool: Pool) -> float:
    encoder = EvaluateParams().encoder
    assert encoder is not None
    loaded = load_encoder(encoder, Path("assets"))
    began = time.process_time()
    for first in range(0, 100, 4):
        loaded.encode(pool.texts[first : first + 4])
    return round(1000 * (time.process_time() - began) / 100, 1)


def _draw(power: dict[str, dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    kinds = (TOPIC, LONG, GERMAN)
    figure, axes = plt.subplots(1, len(kinds), figsize=(11, 3.4), sharey=True, layout="constrained")
    for axis, kind in zip(axes, kinds, strict=True):
        for name in (OURS, WITHOUT, PRESET, MODEL, MMD):
            values = [100 * power[f"{kind}, {ratio:.0%}"][name] for ratio in RATIOS]
            axis.plot(
                [100 * ratio for ratio in RATIOS], values, marker="o", label=name, lw=2.4 if name == OURS else 1.2
            )
        axis.set_title(kind)
        axis.set_xlabel("changed requests (%)")
        axis.set_xticks([100 * ratio for ratio in RATIOS])
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("windows of 300 found (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=130)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("DATA"), help="a folder with banking77")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="fewer windows")
    parser.add_argument("--ours", action="store_true", help="the others' figures from the last results")
    found = parser.parse_args()
    if found.data is None:
        parser.error("--data is needed: a folder with banking77")
    found.data = Path(found.data)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
