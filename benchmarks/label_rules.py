"""Labels from rules: how right the combined label is, by majority, Dawid-Skene and Snorkel's label model.

    make setup && pip install snorkel crowd-kit && python benchmarks/label_rules.py
    python benchmarks/label_rules.py --choose [--banking77 FOLDER]    # the votes that settings were chosen on; no claims

What is believed of a rule before its votes are seen was chosen on simulated rules of ten kinds and on word lists for product
reviews and eight intents of banking77 (`--choose`). The claims are about other votes: of simulated rules whose number,
accuracies, coverage and labels are drawn by chance, and of the word lists on film reviews and newspapers. Every
method sees the same votes and no label, but "ours with gold", which sees those of 100 rows; these count for no method. A
method that is not installed is left out.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from shared.record import Claim, write

from perpetune.curation.readers.reviews import find_wheel, labelled, product_examples, rated_sentences
from perpetune.rules.combine import combine, majority
from perpetune.rules.votes import ABSTAINED
from perpetune.settings import Settings
from perpetune.statistics.estimate import bootstrap_mean

Ints = NDArray[np.int64]
Method = Callable[[Ints, int], NDArray[np.float64]]
OURS, GOLD, MAJORITY, SNORKEL = "ours", "ours with gold", "majority", "Snorkel label model"
GOLD_ROWS = 100
SEED = 7


@dataclass(frozen=True)
class Voted:
    """Votes (rows, rules) and the right labels of the rows on which any rule votes."""

    name: str
    votes: Ints
    truth: Ints
    labels: int


@dataclass(frozen=True)
class Result:
    votes: str
    method: str
    rows: int
    accuracy: float
    calibration_error: float
    seconds: float


def main() -> int:
    asked = _arguments()
    began = time.monotonic()
    repetitions = 2 if asked.quick else 10
    if asked.choose:
        simulated = [each for seed in range(repetitions) for each in simulations(seed)]
        real = [reviews()] + ([banking77(asked.banking77)] if asked.banking77 else [])
    else:
        simulated = [each for seed in range(repetitions) for each in drawn(1_000 + seed)]
        real = [rated("films"), rated("news")]
    results = [result for voted in (*simulated, *real) for result in compared(voted)]
    print(table(results).to_string())
    if asked.choose:
        return 0
    draw(results)
    claims = claims_of(results)
    for claim in claims:
        print(f"{claim.claim}: {claim.value:+.3f} {claim.interval}, goal {claim.goal}, holds: {claim.holds}")
    write(
        "label_rules",
        claims,
        [asdict(each) for each in results if not each.votes.startswith("simulated")] + means(results),
        time.monotonic() - began,
    )
    return 0 if all(claim.holds for claim in claims) else 1


def compared(voted: Voted) -> list[Result]:
    gold = np.random.default_rng(SEED).choice(len(voted.truth), GOLD_ROWS, replace=False)
    right = np.full(len(voted.truth), ABSTAINED)
    right[gold] = voted.truth[gold]
    with_gold: Method = lambda votes, labels: combine(votes, labels, right).probabilities  # noqa: E731
    return [_result(voted, name, method, right) for name, method in (methods() | {GOLD: with_gold}).items()]


def _result(voted: Voted, name: str, method: Method, gold: Ints) -> Result:
    began = time.perf_counter()
    found = method(voted.votes, voted.labels)
    seconds = time.perf_counter() - began
    judged = (voted.votes != ABSTAINED).any(axis=1) & (gold == ABSTAINED)
    # Ties are broken by chance, so that no method gains by the order of the labels.
    noise = np.random.default_rng(SEED).uniform(0, 1e-9, found.shape)
    right = (found + noise).argmax(axis=1)[judged] == voted.truth[judged]
    confidence = found.max(axis=1)[judged]
    return Result(voted.name, name, int(judged.sum()), float(right.mean()), _calibration(confidence, right), seconds)


def _calibration(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Expected calibration error in ten equal bins (Naeini et al., AAAI 2015)."""
    bins = np.minimum((confidence * 10).astype(int), 9)
    parts = [(bins == number) for number in range(10) if (bins == number).any()]
    return float(sum(part.mean() * abs(confidence[part].mean() - right[part].mean()) for part in parts))


def methods() -> dict[str, Method]:
    found: dict[str, Method] = {MAJORITY: majority, OURS: lambda votes, labels: combine(votes, labels).probabilities}
    return found | _crowd_kit() | _snorkel()


def _snorkel() -> dict[str, Method]:
    try:
        from snorkel.labeling.model import LabelModel
    except ImportError:
        return {}

    def fitted(votes: Ints, labels: int) -> NDArray[np.float64]:
        if votes.shape[1] < 3:  # it refuses them
            return majority(votes, labels)
        model: Any = LabelModel(cardinality=labels, verbose=False)
        model.fit(votes, n_epochs=500, seed=SEED, progress_bar=False)
        return np.asarray(model.predict_proba(votes))

    return {SNORKEL: fitted}


def _crowd_kit() -> dict[str, Method]:
    try:
        from crowdkit.aggregation import DawidSkene, OneCoinDawidSkene
    except ImportError:
        return {}

    def with_model(model: Any) -> Method:
        def fitted(votes: Ints, labels: int) -> NDArray[np.float64]:
            rows, rules = np.nonzero(votes != ABSTAINED)
            frame = pd.DataFrame({"task": rows, "worker": rules, "label": votes[rows, rules]})
            found = model(n_iter=100).fit_predict_proba(frame).reindex(range(len(votes))).fillna(0)
            return np.asarray(found.reindex(columns=range(labels), fill_value=0.0), dtype=np.float64)

        return fitted

    return {"crowd-kit Dawid-Skene": with_model(DawidSkene), "crowd-kit one coin": with_model(OneCoinDawidSkene)}


def simulations(seed: int) -> list[Voted]:
    """Votes of simulated rules on 1,000 rows."""
    rng = np.random.default_rng(seed)
    return [
        _rules(rng, "simulated: equal accuracies", 2, [0.7] * 6),
        _rules(rng, "simulated: different accuracies", 2, [0.9, 0.85, 0.6, 0.6, 0.55, 0.55]),
        _rules(rng, "simulated: four labels", 4, [0.9, 0.8, 0.6, 0.5, 0.5, 0.4]),
        _rules(rng, "simulated: rare label", 2, [0.9, 0.8, 0.7, 0.7, 0.6], ratios=[0.9, 0.1]),
        _rules(rng, "simulated: sparse votes", 4, [0.9, 0.8, 0.7, 0.6, 0.6, 0.5], coverage=0.2),
        _one_label_each(rng, "simulated: a rule names one label"),
        _copied(rng, "simulated: a bad rule written three times", [0.85, 0.8, 0.75, 0.6], 3, noise=0.0),
        _copied(rng, "simulated: three rules that share their errors", [0.85, 0.8, 0.75, 0.6], 3, noise=0.15),
        _rules(rng, "simulated: one rule is worse than chance", 2, [0.85, 0.8, 0.75, 0.3, 0.7]),
        _rules(rng, "simulated: two rules", 2, [0.85, 0.65], coverage=0.6),
    ]


def _rules(
    rng: np.random.Generator,
    name: str,
    labels: int,
    accuracies: Sequence[float],
    *,
    coverage: float = 0.6,
    ratios: Sequence[float] | None = None,
    rows: int = 1000,
) -> Voted:
    truth = rng.choice(labels, rows, p=ratios)
    columns = [_column(rng, truth, labels, accuracy, coverage) for accuracy in accuracies]
    return Voted(name, np.stack(columns, axis=1), truth, labels)


def _column(rng: np.random.Generator, truth: Ints, labels: int, accuracy: float, coverage: float) -> Ints:
    wrong = (truth + rng.integers(1, labels, len(truth))) % labels
    vote = np.where(rng.random(len(truth)) < accuracy, truth, wrong)
    return np.where(rng.random(len(truth)) < coverage, vote, ABSTAINED)


def _one_label_each(rng: np.random.Generator, name: str, labels: int = 4, rows: int = 1000) -> Voted:
    """Two rules for each label, which find it in part of its rows and name it for some of the others."""
    truth = rng.integers(0, labels, rows)
    found, mistaken = [0.6, 0.4] * labels, [0.02, 0.15] * labels
    columns = [
        np.where(rng.random(rows) < np.where(truth == rule // 2, found[rule], mistaken[rule]), rule // 2, ABSTAINED)
        for rule in range(2 * labels)
    ]
    return Voted(name, np.stack(columns, axis=1), truth, labels)


def _copied(rng: np.random.Generator, name: str, accuracies: Sequence[float], copies: int, noise: float) -> Voted:
    """The last rule again, with a part of its votes exchanged."""
    voted = _rules(rng, name, 2, accuracies, coverage=0.7)
    last = voted.votes[:, -1]
    again = [_noisy(rng, last, noise) for _ in range(copies - 1)]
    return Voted(name, np.column_stack([voted.votes, *again]), voted.truth, 2)


def _noisy(rng: np.random.Generator, column: Ints, noise: float) -> Ints:
    changed = (rng.random(len(column)) < noise) & (column != ABSTAINED)
    return np.where(changed, 1 - column, column)


def drawn(seed: int) -> list[Voted]:
    """Votes of rules that are drawn by chance, on 1,000 rows."""
    rng = np.random.default_rng(seed)

    def some(least: int, most: int, low: float, high: float) -> list[float]:
        return [float(rng.uniform(low, high)) for _ in range(rng.integers(least, most + 1))]

    labels = int(rng.integers(2, 6))
    ratios = rng.dirichlet([4.0] * labels).tolist()
    coverage = float(rng.uniform(0.15, 0.8))
    return [
        _rules(rng, "simulated: drawn, good rules", labels, some(3, 10, 0.6, 0.95), coverage=coverage),
        _rules(rng, "simulated: drawn, mixed rules", 2, some(4, 10, 0.45, 0.95), coverage=coverage),
        _rules(
            rng, "simulated: drawn, uneven labels", labels, some(3, 8, 0.55, 0.95), coverage=coverage, ratios=ratios
        ),
        _drawn_one_label(rng, "simulated: drawn, a rule names one label", labels, None),
        _drawn_one_label(rng, "simulated: drawn, one label each, uneven labels", labels, ratios),
        _copied(
            rng, "simulated: drawn, rules that share errors", some(3, 7, 0.55, 0.95), 2, float(rng.uniform(0.03, 0.3))
        ),
    ]


def _drawn_one_label(rng: np.random.Generator, name: str, labels: int, ratios: Sequence[float] | None) -> Voted:
    """One to three rules for each label, each with a coverage and a rate of mistakes of its own."""
    truth = rng.choice(labels, 1_000, p=ratios)
    named = [label for label in range(labels) for _ in range(rng.integers(1, 4))]
    columns = []
    for label in named:
        found, mistaken = rng.uniform(0.2, 0.8), rng.uniform(0.01, 0.25)
        votes = rng.random(len(truth)) < np.where(truth == label, found, mistaken)
        columns.append(np.where(votes, label, ABSTAINED))
    return Voted(name, np.stack(columns, axis=1), truth, labels)


REVIEW_WORDS = {
    "praise": (1, "great|excellent|perfect|love|best|amazing|awesome|fantastic|superb|highly recommend"),
    "liking": (1, "good|nice|easy|happy|pleased|recommend|well|works great|enjoy"),
    "fine technique": (1, "quality|clear|crisp|sharp|fast|compact|light|durable|bright"),
    "liking again": (1, "good|nice|easy|happy|pleased|recommend|well|enjoy"),
    "complaint": (0, "bad|terrible|horrible|worst|awful|poor|disappoint|useless|garbage|junk"),
    "trouble": (0, "problem|issue|fail|broke|broken|crash|error|defect|return|stopped|dead|difficult"),
    "denial": (0, r"not|n't|never|no|cannot|cant|dont|doesnt"),
    "contrast": (0, "but|however|although|unfortunately|only"),
    "annoyance": (0, "annoying|hate|waste|cheap|slow|hard|ugly|noisy|flimsy|loose"),
}


def reviews() -> Voted:
    rows = product_examples(find_wheel(Settings().assets), ("positive", "negative"))
    votes = np.stack([_words(each, [row.input for row in rows]) for each in REVIEW_WORDS.values()], axis=1)
    return Voted("product reviews", votes, np.array([int(row.output == "positive") for row in rows]), 2)


def rated(kind: Literal["films", "news"]) -> Voted:
    """The word lists on sentences that nothing was chosen on."""
    rows = [labelled(each) for each in rated_sentences(find_wheel(Settings().assets), kind)]
    known = [row for row in rows if row and row.output != "mixed"]
    votes = np.stack([_words(each, [row.input for row in known]) for each in REVIEW_WORDS.values()], axis=1)
    return Voted(kind, votes, np.array([int(row.output == "positive") for row in known]), 2)


BANKING_WORDS = {
    "card_arrival": ("arriv|still waiting|not received my", "track|deliver|mail|post"),
    "lost_or_stolen_card": ("lost|stolen|stole|missing", "misplaced|can't find|cannot find"),
    "exchange_rate": ("exchange rate|rates?", "currenc|conver"),
    "card_payment_fee_charged": ("fee", "extra charge|charged extra|charge"),
    "declined_card_payment": ("declin", "not accept|reject|did not work|didn't work|not going through"),
    "change_pin": ("change.*pin|new pin|reset.*pin", r"pin"),
    "top_up_failed": ("top.?up.*(fail|not|didn't|reject|declin)|fail.*top", "top.?up|topping"),
    "terminate_account": ("delete|close|terminate|cancel my account", "no longer|leav|dissatisf|unhappy"),
}


def banking77(folder: Path) -> Voted:
    frame = pd.read_csv(folder / "train.csv")
    intents = list(BANKING_WORDS)
    frame = frame[frame["category"].isin(intents)]
    texts = frame["text"].tolist()
    columns = [_words((number, words), texts) for number, each in enumerate(BANKING_WORDS.values()) for words in each]
    truth = np.array([intents.index(intent) for intent in frame["category"]])
    return Voted("banking77, eight intents", np.stack(columns, axis=1), truth, len(intents))


def _words(rule: tuple[int, str], texts: Sequence[str]) -> Ints:
    label, words = rule
    found = re.compile(rf"\b({words})", re.IGNORECASE)
    return np.array([label if found.search(text) else ABSTAINED for text in texts], dtype=np.int64)


def table(results: Sequence[Result]) -> pd.DataFrame:
    frame = pd.DataFrame([asdict(each) for each in results])
    return frame.pivot_table(
        index="votes", columns="method", values=["accuracy", "calibration_error", "seconds"], aggfunc="mean", sort=False
    ).round(3)


def means(results: Sequence[Result]) -> list[dict[str, Any]]:
    frame = pd.DataFrame([asdict(each) for each in results if each.votes.startswith("simulated")])
    return [
        {str(name): value for name, value in row.items()}
        for row in frame.groupby(["votes", "method"], sort=False).mean().round(4).reset_index().to_dict("records")
    ]


def draw(results: Sequence[Result]) -> None:
    from matplotlib.figure import Figure

    from perpetune.evaluation.report.style import colour, house_style, write_png

    shades = {OURS: "challenger", GOLD: "champion", MAJORITY: "majority", SNORKEL: "few-shot"}
    mean = table(results)["accuracy"]
    with house_style():
        figure = Figure(figsize=(7, 5))
        axes = figure.subplots()
        for method in (each for each in shades if each in mean.columns):
            axes.plot(100 * mean[method], range(len(mean)), "o", color=colour(shades[method]), label=method)
        axes.set_yticks(range(len(mean)), [str(name) for name in mean.index])
        axes.invert_yaxis()
        axes.grid(axis="x")
        axes.set_xlabel("labels that are right, in percent, of rows with a vote")
        figure.legend(loc="outside upper center", ncols=4, frameon=False)
        write_png(figure, Path(__file__).parent / "results" / "label_rules.png")


def claims_of(results: Sequence[Result]) -> list[Claim]:
    """Ours against each other method over all votes: it is not less accurate by more than a point on average."""
    by_method: dict[str, list[float]] = {}
    for each in results:
        by_method.setdefault(each.method, []).append(each.accuracy)
    others = [name for name in by_method if name not in (OURS, GOLD)]
    return [_not_worse(OURS, other, by_method) for other in others] + [_not_worse(GOLD, MAJORITY, by_method)]


def _not_worse(one: str, other: str, accuracies: Mapping[str, Sequence[float]]) -> Claim:
    gains = [first - second for first, second in zip(accuracies[one], accuracies[other], strict=True)]
    found = bootstrap_mean(gains, lowest=-1.0, highest=1.0, confidence=0.95, samples=2000, seed=SEED)
    return Claim(
        f"accuracy of {one} less that of {other}, mean over all votes",
        round(found.value, 4),
        (round(found.low, 4), round(found.high, 4)),
        -0.01,
        found.low > -0.01,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 repetitions instead of 10")
    parser.add_argument("--choose", action="store_true", help="on the votes that settings were chosen on; no claims")
    parser.add_argument("--banking77", type=Path, help="a folder with train.csv (columns text, category)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
