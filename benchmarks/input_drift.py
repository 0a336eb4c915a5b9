"""Drift of inputs: false alarms and power of the test, beside Evidently's at equal false-alarm rates.

    python benchmarks/input_drift.py --data DATA [--quick]

DATA has banking77/{train,test}.csv (columns text, category). The reference has 600 requests without five of the intents, a
window 300 or 1,000. What changes is 5, 10 or 20% of a window: one of the five intents, two requests in one text, or
German (benchmarks/german.txt). The others' thresholds are set on windows without a change, so that 1% of those alarm. Every
window has its own reference, intents and requests. Years of daily checks run with the product's budget of alarms.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from record import RESULTS, Claim, write

from perpetune.classifiers.encoder import load_encoder
from perpetune.monitoring.evidently_report import dataset
from perpetune.monitoring.input_drift import InputRow, compare_inputs, vectors_of
from perpetune.monitoring.window import descriptors
from perpetune.params import EvaluateParams
from perpetune.prediction_log.embeddings import rounded
from perpetune.statistics.alarm_budget import AlarmBudget, affordable, refilled, spent
from perpetune.statistics.estimate import wilson

LEVEL = 0.01
REFERENCE, NEWEST, WEEK = 600, 300, 1000
NEW_INTENTS = 5
RATIOS = (0.05, 0.1, 0.2)
TOPIC, LONG, GERMAN, NOTHING = "new intents", "two requests in one", "German", "no change"
OURS, WITHOUT, PRESET, MODEL, MMD = (
    "perpetune",
    "perpetune without embeddings",
    "Evidently's preset on descriptors",
    "Evidently's classifier on embeddings",
    "Evidently's MMD on embeddings",
)
PER_DAY = 100  # requests in a simulated year
SEED = 15


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


Score = Callable[[Windows], float]
"""The larger, the more drift."""


def main() -> int:
    asked = _arguments()
    began = time.perf_counter()
    quick = asked.quick
    pool = _pool(asked.data, 2000 if quick else 6000)
    chance = np.random.default_rng(SEED)
    nulls, reps, years = (40, 8, 0.1) if quick else (120, 20, 0.5)
    methods: dict[str, Score] = {
        OURS: ours,
        WITHOUT: without_embeddings,
        PRESET: preset,
        MODEL: _evidently_embeddings("model"),
        MMD: _evidently_embeddings("mmd"),
    }
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
            power[f"{kind}, {ratio:.0%}"] = cell
            print(f"{kind + f', {ratio:.0%}':24}" + "".join(f"{cell[name]:38.0%}" for name in methods), flush=True)
    weekly = {
        f"{TOPIC}, {ratio:.0%}": float(
            np.mean([ours(windows(pool, chance, TOPIC, ratio, WEEK)) >= 1 - LEVEL for _ in range(reps)])
        )
        for ratio in RATIOS
    }
    print(f"of a week's 1,000 requests: {weekly}", flush=True)
    alarms, tests = _years(pool, chance, years)
    print(f"{alarms} alarms in {tests} daily tests", flush=True)
    claims = _claims(of_nulls[OURS], power, weekly, reps, alarms, tests, years)
    for claim in claims:
        print(
            f"{'holds' if claim.holds else 'DOES NOT HOLD':14} {claim.claim}: {claim.value:.3f} (goal {claim.goal:g})"
        )
    details = {
        "windows": {"stable": nulls, "of each change": reps, "reference": REFERENCE, "newest": NEWEST, "week": WEEK},
        "power of 300 requests": power,
        "power of 1,000 requests": weekly,
        "false alarms of windows without a change": {
            name: float((scores >= thresholds[name]).mean()) for name, scores in of_nulls.items()
        },
        "years": {"years": years, "tests": tests, "alarms": alarms},
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
    new_intents = chance.choice(np.unique(pool.intents), NEW_INTENTS, replace=False)
    is_new = np.isin(pool.intents, new_intents)
    known, others = chance.permutation(np.flatnonzero(~is_new)), chance.permutation(np.flatnonzero(is_new))
    changed = round(ratio * rows)
    old = [_row(pool, place) for place in known[:REFERENCE]]
    new = [_row(pool, place) for place in known[REFERENCE : REFERENCE + rows - changed]]
    spare = known[REFERENCE + rows :]
    if kind == TOPIC:
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


def _row(pool: Pool, place: int) -> InputRow:
    return InputRow(str(place), pool.texts[place], str(place), vector=pool.vectors[place])


def _joined(pool: Pool, one: int, other: int) -> InputRow:
    """Two requests in one text; the embedding of both is near the mean of theirs."""
    vector = pool.vectors[one] + pool.vectors[other]
    text = f"{pool.texts[one]} {pool.texts[other]}"
    return InputRow(f"{one}+{other}", text, f"{one}+{other}", vector=vector / np.linalg.norm(vector))


def _years(pool: Pool, chance: np.random.Generator, years: float) -> tuple[int, int]:
    """False alarms and tests of daily checks without a change, each year with another reference.

    The requests of a year are drawn from the pool, so that windows overlap and requests come again.
    """
    alarms = tests = 0
    for first in np.arange(0, years, 1.0):
        places = chance.permutation(len(pool.texts))
        old, others = [_row(pool, place) for place in places[:REFERENCE]], places[REFERENCE:]
        budget, start = AlarmBudget(), datetime(2025, 1, 1, tzinfo=UTC)
        stream: list[InputRow] = []
        for day in range(round(365 * min(1.0, years - first))):
            drawn = chance.choice(others, PER_DAY)
            stream += [
                InputRow(f"{day}-{number}", pool.texts[place], str(place), vector=pool.vectors[place])
                for number, place in enumerate(drawn)
            ]
            budget = refilled(budget, start + timedelta(days=day), 1.0)
            level = affordable(budget, 1.0)
            if level is None or len(stream) < NEWEST:
                continue
            budget = spent(budget, level)
            spans = [stream[-NEWEST:], stream[-7 * PER_DAY :]]
            alarms += any(compare_inputs(span, old, level / 4, seed=day).drifted for span in spans)
            tests += 1
    return alarms, tests


def _claims(
    nulls: np.ndarray,
    power: dict[str, dict[str, float]],
    weekly: dict[str, float],
    reps: int,
    alarms: int,
    tests: int,
    years: float,
) -> list[Claim]:
    count = int((nulls >= 1 - LEVEL).sum())
    low, high = wilson(count, len(nulls), 0.95).low, wilson(count, len(nulls), 0.95).high
    claims = [
        Claim("false alarms of a test at level 1%", count / len(nulls), (low, high), LEVEL, bool(low <= LEVEL)),
        Claim(
            f"false alarms a year of daily checks ({tests} tests)",
            alarms / years,
            (alarms / years, alarms / years),
            1,
            alarms / years <= 1,
        ),
    ]
    for change, goal in ((f"{TOPIC}, 20%", 0.7), (f"{LONG}, 20%", 0.4), (f"{GERMAN}, 10%", 0.9)):
        claims.append(_power(f"300 requests, {change}: found at level 1%", power[change][OURS], reps, goal))
    claims.append(_power(f"1,000 requests, {TOPIC}, 10%: found at level 1%", weekly[f"{TOPIC}, 10%"], reps, 0.5))
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
    found = parser.parse_args()
    if found.data is None:
        parser.error("--data is needed: a folder with banking77")
    found.data = Path(found.data)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
