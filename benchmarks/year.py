"""A simulated year as one picture: the true accuracy of every answer, with the loop and without, each refresh marked.

    python benchmarks/year.py

52 weeks of real sentences: product reviews, from week 15 on film reviews, with the label "mixed" that is introduced with
them. A surrogate (TF-IDF with logistic regression) answers. A lot draws 40% of the requests; their labels come a day later
and are all that the loop sees. The accuracy shown is that on all requests. The watch checks once a day. (With 45 requests a week
instead of 120, three labels a day, the gain was 2.6 points: a refresh waits for `refresh.new_labels`.)
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from shared.record import RESULTS, Claim, write

from perpetune.curation.readers.reviews import find_wheel, labelled, product_examples, rated_sentences
from perpetune.demo.data import CLEAR, SEED, divide
from perpetune.evaluation.report.style import write_png
from perpetune.params import load_params
from perpetune.replay.histories.history import History, Request
from perpetune.replay.histories.reviews import BEGINS
from perpetune.replay.models.surrogate import Surrogate
from perpetune.replay.replay import replay
from perpetune.replay.report.plot import scores_over_time

WEEKS, PER_WEEK, CHANGE = 52, 120, 15
LOT = 0.4  # of the requests are labelled
DELAY = timedelta(days=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    asked = parser.parse_args()
    began = time.monotonic()
    params = load_params(Path("params.yaml"))
    params = params.model_copy(update={"watch": params.watch.model_copy(update={"cron": "0 6 * * *"})})
    history = year(asked.assets)
    found = replay(
        history, Surrogate(params.task.kind, params.evaluate.seed), params, print, only=("never", "perpetune")
    )
    never, loop = found.outcomes
    gain = loop.score.value - never.score.value
    early = sum(each.trigger == "decay" for each in loop.refreshes if each.time < history.changes[0])
    claims = [
        Claim("points gained by the loop over the year", 100 * gain, (100 * gain, 100 * gain), 5.0, gain >= 0.05),
        Claim("refreshes for decay before the change", early, (early, early), 0, early == 0),
    ]
    for claim in claims:
        print(f"{'PASS ' if claim.holds else 'FAIL '} {claim.claim}: {claim.value:.3g}, goal {claim.goal:g}")
    for refresh in loop.refreshes:
        print(f"{refresh.time:%Y-%m-%d} {refresh.trigger}: {refresh.outcome}: {refresh.reason}")
    details = [
        {
            "policy": each.policy,
            "score": asdict(each.score),
            "refreshes": [[f"{one.time:%Y-%m-%d}", one.trigger, one.outcome, one.reason] for one in each.refreshes],
        }
        for each in found.outcomes
    ]
    print(write("year", claims, details, time.monotonic() - began))
    write_png(scores_over_time(found, history.changes), RESULTS / "year.png")
    return 0 if all(claim.holds for claim in claims) else 1


def year(assets: Path) -> History:
    wheel, rng = find_wheel(assets), random.Random(SEED)
    initial, products = divide(product_examples(wheel, CLEAR))
    films = [example for rated in rated_sentences(wheel, "films") if (example := labelled(rated))]
    rng.shuffle(films)
    rows = [*products[: CHANGE * PER_WEEK], *films[: (WEEKS - CHANGE) * PER_WEEK]]
    times = [BEGINS + position * timedelta(weeks=1) / PER_WEEK for position in range(len(rows))]
    never = times[-1] + DELAY
    requests = tuple(
        Request(row.model_copy(update={"time": when}), when, when + DELAY if rng.random() < LOT else never)
        for row, when in zip(rows, times, strict=True)
    )
    return History("a year of reviews", requests, (times[CHANGE * PER_WEEK],), tuple(initial))


if __name__ == "__main__":
    sys.exit(main())
