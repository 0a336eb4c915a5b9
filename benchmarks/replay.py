"""Retraining policies on streams: the bundled reviews, and intents of which half are new.

    python benchmarks/replay.py                # the bundled reviews, minutes on two cores
    python benchmarks/replay.py --data DATA    # also 15 intents of a bank's customers, later 15 others too

The stream "reviews" is also drawn four more times, from other films and products. `--streams NAME ...` measures these alone,
and keeps the last results of the others.

DATA has banking77/train.csv (columns text, category). The first model is trained on 600 rows of 15 intents; then come 500
requests of these, 50 a day, and 1,500 of all 30. Labels come a day later. Intents and rows are drawn at random five times;
the mean of the five counts, and the first is plotted. The surrogate answers for all policies: TF-IDF with logistic
regression. The goals: no other policy is more accurate with as many or fewer retrainings, and at most 3 points behind the
best policy. Intervals of accuracy are paired over the requests.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
from recipe import banking
from shared.record import RESULTS, Claim, write

from perpetune.curation.readers.reviews import find_wheel, labelled, product_examples, rated_sentences
from perpetune.demo.data import CLEAR, SEED, divide
from perpetune.evaluation.report.style import write_png
from perpetune.params import load_params
from perpetune.records import Example
from perpetune.replay.histories.history import History
from perpetune.replay.histories.reviews import FILMS, STREAMS, history_of, review_history
from perpetune.replay.histories.reviews import STABLE as REVIEWS_STABLE
from perpetune.replay.models.surrogate import Surrogate
from perpetune.replay.outcome import Lead, Outcome
from perpetune.replay.policies.perpetune_policy import PERPETUNE
from perpetune.replay.replay import Replay, replay
from perpetune.replay.report.plot import scores_over_time

BEHIND = 0.03  # of the best policy
INTENTS, TAUGHT, STABLE, CHANGED = 15, 600, 500, 1500
DRAWS = 5
DELAY = timedelta(days=1)


def main() -> int:
    asked = _arguments()
    began = time.monotonic()
    params = load_params(Path("params.yaml"))
    streams = [[review_history(name, asked.assets, DELAY)] for name in STREAMS]
    streams.append([other_reviews(asked.assets, draw) for draw in range(1, DRAWS)])
    if asked.data:
        streams.append([intents(asked.data, params.split.seed + draw) for draw in range(DRAWS)])
    streams = [alike for alike in streams if alike[0].name in (asked.streams or [alike[0].name])]
    claims: list[Claim] = []
    details: list[dict[str, object]] = []
    for alike in streams:
        found = [replay(each, Surrogate(params.task.kind, params.evaluate.seed), params) for each in alike]
        claims += claims_of(found)
        details += [
            {"stream": each.history, "policies": [_as_record(outcome) for outcome in each.outcomes]} for each in found
        ]
        write_png(scores_over_time(found[0], alike[0].changes), RESULTS / f"replay-{found[0].history}.png")
    for claim in claims:
        print(f"{'PASS ' if claim.holds else 'FAIL '} {claim.claim}: {claim.value:g}, goal {claim.goal:g}")
    kept, kept_details = _kept(asked.streams)
    print(write("replay", [*claims, *kept], [*details, *kept_details], time.monotonic() - began))
    return 0 if all(claim.holds for claim in claims) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with banking77")
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--streams", nargs="+", metavar="NAME", help="measure these alone")
    return parser.parse_args()


def _kept(streams: Sequence[str] | None) -> tuple[list[Claim], list[dict[str, object]]]:
    """Claims and details of the last results that are not of these streams; none if all streams are measured."""
    if not streams:
        return [], []
    last = json.loads((RESULTS / "replay.json").read_text(encoding="utf-8"))
    claims = [Claim(**claim) for claim in last["claims"] if claim["claim"].split(":")[0] not in streams]
    return claims, [each for each in last["details"] if each["stream"] not in streams]


def other_reviews(assets: Path, draw: int) -> History:
    """The stream "reviews" from films that are in no other draw, and products in another order."""
    wheel = find_wheel(assets)
    initial, stable = divide(product_examples(wheel, CLEAR))
    films = [example for rated in rated_sentences(wheel, "films") if (example := labelled(rated))]
    random.Random(SEED).shuffle(films)
    random.Random(draw).shuffle(stable)
    rows = [*stable[:REVIEWS_STABLE], *films[draw * FILMS : (draw + 1) * FILMS]]
    return history_of("reviews-others", initial, rows, (REVIEWS_STABLE,), DELAY)


def intents(data: Path, seed: int) -> History:
    """Requests of 15 intents, and after ten days of 15 others too."""
    rng, rows = random.Random(seed), banking(data, "train")
    rng.shuffle(rows)
    names = sorted({label for _, label in rows})
    rng.shuffle(names)
    old, new = set(names[:INTENTS]), set(names[INTENTS : 2 * INTENTS])
    known = [_example(position, row) for position, row in enumerate(rows) if row[1] in old]
    initial, stable, later = known[:TAUGHT], known[TAUGHT : TAUGHT + STABLE], known[TAUGHT + STABLE :]
    mixed = [*later, *(_example(len(rows) + position, row) for position, row in enumerate(rows) if row[1] in new)]
    rng.shuffle(mixed)
    return history_of("intents", initial, [*stable, *mixed[:CHANGED]], (STABLE,), DELAY)


def _example(position: int, row: tuple[str, str]) -> Example:
    name = f"{position:05}"
    return Example(id=name, group=name, source="intents", input=row[0], output=row[1])


def claims_of(found: Sequence[Replay]) -> list[Claim]:
    """The score behind the best other policy, and the difference in retrainings: mean and range."""

    def each(policy: str, of: Callable[[Outcome], float]) -> np.ndarray:
        return np.array([of(one) for replay in found for one in replay.outcomes if one.policy == policy])

    def claim(what: str, ours_less_theirs: np.ndarray, goal: float, holds: bool) -> Claim:
        low, high = (round(float(end), 4) for end in (ours_less_theirs.min(), ours_less_theirs.max()))
        return Claim(f"{found[0].history}: {what}", round(float(ours_less_theirs.mean()), 4), (low, high), goal, holds)

    def gain(policy: str, goal: float, besides: str = "") -> Claim:
        less = each(PERPETUNE, _score) - each(policy, _score)
        made = claim(f"perpetune less {policy}{besides}", less, goal, bool(less.mean() >= goal))
        leads = [one.perpetune_lead for replay in found for one in replay.outcomes if one.policy == policy]
        return replace(made, interval=_paired([lead for lead in leads if lead is not None]))

    others = [one.policy for one in found[0].outcomes if one.policy != PERPETUNE]
    best = max(others, key=lambda policy: float(each(policy, _score).mean()))
    retrained = {policy: float(each(policy, _retrainings).mean()) for policy in (*others, PERPETUNE)}
    cheap = [policy for policy in others if retrained[policy] <= retrained[PERPETUNE]]
    more = each(PERPETUNE, _retrainings) - each(best, _retrainings)
    return [
        *(gain(policy, 0.0, f", which retrains {retrained[policy]:g} times") for policy in cheap),
        gain(best, -BEHIND),
        claim(f"retrainings more than {best}", more, -1, bool(more.mean() <= -1)),
    ]


def _paired(leads: Sequence[Lead]) -> tuple[float, float]:
    """The interval of the mean of leads, each of requests of its own."""
    mean = float(np.mean([lead.difference for lead in leads]))
    reach = float(np.sqrt(sum(((lead.high - lead.low) / 2) ** 2 for lead in leads))) / len(leads)
    return round(mean - reach, 4), round(mean + reach, 4)


def _score(outcome: Outcome) -> float:
    return outcome.score.value


def _retrainings(outcome: Outcome) -> float:
    return len(outcome.refreshes)


def _as_record(found: Outcome) -> dict[str, object]:
    return {
        "policy": found.policy,
        "score": asdict(found.score),
        "perpetune_lead": asdict(found.perpetune_lead) if found.perpetune_lead else None,
        "retrainings": len(found.refreshes),
        "promotions": found.promotions,
        "before_change": found.before,
        "days_to_first": [each.days for each in found.detections],
        "minutes": found.minutes,
        "dollars": found.dollars,
    }


if __name__ == "__main__":
    raise SystemExit(main())
