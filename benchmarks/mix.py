"""Training on recent traffic with replay of older rows: accuracy on old and new inputs for several mixes.

    python benchmarks/mix.py
    python benchmarks/mix.py --quick     # smaller, no output files

The older rows are sentences of product reviews; the recent traffic is that of the demo: film reviews, and sentences of
newspapers with a third label. Rows are divided by perpetune's split and mix; each model is the real small base trained with
the settings of params.yaml, and all answer the same held-out rows: of products (the frozen holdout) and of half of the
traffic (the recent one). Intervals are of paired differences over rows; each mix is trained once, so they do not cover the
variation between seeds.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from shared.record import Claim, write

if TYPE_CHECKING:
    from perpetune.curation.splitting.splits import Splits
    from perpetune.params import Params
    from perpetune.records import Example

INSTRUCTION = "What does this sentence of a review say of its subject? Answer with one word."
NEW_ANSWER = "other"
NO_TRAFFIC, DEFAULT, NO_REPLAY = "older rows alone", "replay: null", "replay: 0"
RATIOS: dict[str, float | None] = {NO_REPLAY: 0.0, "replay: 0.5": 0.5, "replay: 1": 1.0, DEFAULT: None}
WORST_ON_RECENT = -0.05
SEED = 7


@dataclass(frozen=True)
class Found:
    """A mix: its training rows, and which held-out rows its model answered right (1) or wrong (0)."""

    mix: str
    recent_rows: int
    older_rows: int
    seconds: float
    frozen: tuple[float, ...]
    recent: tuple[float, ...]


def main() -> int:
    asked = _arguments()
    began = time.monotonic()
    import torch

    from perpetune.params import load_params

    torch.set_num_threads(asked.threads)
    params = load_params(Path("params.yaml"))
    splits = divide(asked, params)
    found = [measure(name, splits, params, asked) for name in (NO_TRAFFIC, *RATIOS)]
    claims = claims_of(found)
    for claim in claims:
        low, high = claim.interval
        print(
            f"{'PASS ' if claim.holds else 'FAIL '} {claim.claim}: {claim.value:+.3f} ({low:+.3f} to {high:+.3f}), "
            f"the low end above {claim.goal:g}"
        )
    if not asked.quick:
        print(write("mix", claims, [as_document(one) for one in found], time.monotonic() - began))
        draw(found)
    # A tenth of the rows tests only that the code runs.
    return 0 if asked.quick or all(claim.holds for claim in claims) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--older", type=int, default=800, help="sentences of products; half of them are held out")
    parser.add_argument("--recent", type=int, default=400, help="rows of traffic; half of it is held out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, no output files")
    asked = parser.parse_args()
    if asked.quick:
        asked.older, asked.recent = asked.older // 10, asked.recent // 10
    return asked


def divide(asked: argparse.Namespace, params: Params) -> Splits:
    """Product reviews and labelled traffic, as `dvc repro` would divide them."""
    from perpetune.curation.steps.split import split

    shares = params.split.model_copy(update={"frozen": 0.5, "frozen_traffic": 0.0, "validation": 0.05, "recent": 0.5})
    return split([*_products(asked), *_traffic(asked)], shares)


def _products(asked: argparse.Namespace) -> list[Example]:
    from perpetune.curation.readers.reviews import find_wheel, product_examples

    examples = product_examples(find_wheel(asked.assets), ("positive", "negative"))
    return random.Random(SEED).sample(examples, asked.older)


def _traffic(asked: argparse.Namespace) -> list[Example]:
    """Clearly positive or negative film reviews, and as many sentences of newspapers, one a minute."""
    from perpetune.curation.readers.reviews import find_wheel, labelled, rated_sentences

    wheel, picks = find_wheel(asked.assets), random.Random(SEED)
    films = [row for rated in rated_sentences(wheel, "films") if (row := labelled(rated)) and row.output != "mixed"]
    news = [
        films[0].model_copy(update={"input": rated.text, "output": NEW_ANSWER, "id": rated.id, "group": rated.group})
        for rated in rated_sentences(wheel, "news")
    ]
    half = asked.recent // 2
    both = [*picks.sample(films, half), *picks.sample(news, half)]
    picks.shuffle(both)
    start = datetime(2024, 5, 1, tzinfo=UTC)
    return [
        # Each request is a group, as without user names.
        row.model_copy(update={"source": "traffic", "group": row.id, "time": start + timedelta(minutes=minute)})
        for minute, row in enumerate(both)
    ]


def measure(name: str, splits: Splits, params: Params, asked: argparse.Namespace) -> Found:
    """Train on a mix, and answer both holdouts."""
    from perpetune.curation.steps.mix import mix

    settings = params.mix.model_copy(update={"replay": RATIOS.get(name)})
    chosen = mix(splits.train, settings, min_rows=0)
    recent = () if name == NO_TRAFFIC else chosen.recent
    rows = [*recent, *chosen.replayed]
    began = time.monotonic()
    frozen, newest = _train_and_answer(rows, splits, params, asked)
    found = Found(name, len(recent), len(chosen.replayed), time.monotonic() - began, frozen, newest)
    print(
        f"{name:17} {found.recent_rows:4} recent and {found.older_rows:4} older rows: "
        f"{_mean(frozen):.1%} of {len(frozen)} old right, {_mean(newest):.1%} of {len(newest)} recent; "
        f"{found.seconds:.0f} s",
        flush=True,
    )
    return found


def _train_and_answer(
    rows: Sequence[Example], splits: Splits, params: Params, asked: argparse.Namespace
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    from perpetune.inference.predictor import load_predictor
    from perpetune.training.job import train_here
    from perpetune.training.job_files import Job

    labels = sorted({row.output for row in rows})
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            base=params.base,
            assets=asked.assets,
            instruction=INSTRUCTION,
            params=params.train,
            adapter=Path(folder) / "adapter",
            checkpoints=None,
        )
        known = [row for row in splits.validation if row.output in labels]
        train_here(job, rows, known, report=lambda _: None)
        predictor = load_predictor(params.base, asked.assets, params.train.precision, params.evaluate.batch_tokens)
        predictor.load_adapter("tuned", job.adapter)

    def right(held_out: Sequence[Example]) -> tuple[float, ...]:
        from perpetune.records import conversation

        asked_of = [conversation(INSTRUCTION, row) for row in held_out]
        answers = predictor.answer("tuned", asked_of, labels, params.evaluate.max_new_tokens)
        return tuple(float(answer.text == row.output) for answer, row in zip(answers, held_out, strict=True))

    return right(splits.frozen), right(splits.recent)


def claims_of(found: Sequence[Found]) -> list[Claim]:
    """The default mix against no replay and against no traffic, paired over the same rows."""
    from perpetune.statistics.paired import compare

    by_mix = {one.mix: one for one in found}

    def claim(name: str, mix: str, rival: str, holdout: str, goal: float) -> Claim:
        ours, theirs = (getattr(by_mix[each], holdout) for each in (mix, rival))
        gain = compare(theirs, ours, confidence=0.95, samples=2000, seed=SEED)
        words = f"{name}: accuracy on {len(ours)} rows with {mix} less that with {rival}"
        return Claim(words, gain.difference, (gain.low, gain.high), goal, gain.low > goal)

    return [
        claim("replay keeps the old skill", DEFAULT, NO_REPLAY, "frozen", 0.0),
        claim("replay does not stand in the way of the new skill", DEFAULT, NO_REPLAY, "recent", WORST_ON_RECENT),
        claim("recent traffic teaches the new skill", DEFAULT, NO_TRAFFIC, "recent", 0.0),
        claim("recent traffic costs little of the old skill", DEFAULT, NO_TRAFFIC, "frozen", WORST_ON_RECENT),
    ]


def as_document(one: Found) -> dict[str, object]:
    """A mix with its scores and their intervals, and without its rows."""
    from perpetune.statistics.estimate import estimate_mean

    scores = {
        holdout: asdict(estimate_mean(getattr(one, holdout), confidence=0.95, samples=2000, seed=SEED))
        for holdout in ("frozen", "recent")
    }
    return {
        "mix": one.mix,
        "recent_rows": one.recent_rows,
        "older_rows": one.older_rows,
        "seconds": round(one.seconds, 1),
        **scores,
    }


def draw(found: Sequence[Found]) -> None:
    from matplotlib.figure import Figure

    from perpetune.evaluation.report.style import colour, house_style, write_png
    from perpetune.statistics.estimate import estimate_mean

    kinds = {"frozen": ("champion", "old: product reviews"), "recent": ("challenger", "recent: films and newspapers")}
    names = [f"{one.mix}\n{one.recent_rows} recent, {one.older_rows} older" for one in found]
    with house_style():
        figure = Figure(figsize=(7, 3.6))
        axes = figure.subplots()
        for shift, (holdout, (system, label)) in zip((-0.12, 0.12), kinds.items(), strict=True):
            scores = [estimate_mean(getattr(one, holdout), confidence=0.95, samples=2000, seed=SEED) for one in found]
            values = [100 * score.value for score in scores]
            reach = [
                [100 * (score.value - score.low) for score in scores],
                [100 * (score.high - score.value) for score in scores],
            ]
            positions = [position + shift for position in range(len(found))]
            axes.errorbar(
                values, positions, xerr=reach, fmt="o", color=colour(system), label=f"{label} (n = {scores[0].n})"
            )
            for value, position in zip(values, positions, strict=True):
                axes.annotate(
                    f"{value:.1f}", (value, position), (0, 5), textcoords="offset points", ha="center", fontsize=8
                )
        axes.set_yticks(range(len(found)), names)
        axes.invert_yaxis()
        axes.grid(axis="x")
        axes.set_xlabel("accuracy in percent, with 95% intervals")
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
        write_png(figure, Path(__file__).parent / "results" / "mix.png")


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)


if __name__ == "__main__":
    sys.exit(main())
