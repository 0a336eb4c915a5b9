"""Sampling of requests to label: some at random, so that scores stay unbiased, the rest by uncertainty."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil

from perpetune.curation.text import normalised
from perpetune.monitoring.window import Window, current_frame
from perpetune.prediction_log.hash_sampling import is_sampled
from perpetune.prediction_log.label_requests import Drawn


@dataclass(frozen=True)
class Candidate:
    """An answered request. `label` is the predicted label of a classification task, `uncertainty` is 0 to 1."""

    request_id: str
    input: str
    label: str | None
    uncertainty: float


def candidates(window: Window) -> list[Candidate]:
    """The window's requests. Uncertainty is 1 - confidence; without confidence the ratio of words not in the reference."""
    unseen = current_frame(window)["unseen word ratio"]
    return [
        Candidate(
            row.id,
            row.input,
            row.output.strip() if window.kind == "classification" else None,
            float(ratio) if row.confidence is None else 1 - row.confidence,
        )
        for row, ratio in zip(window.predictions, unseen, strict=True)
    ]


def choose(
    candidates: Sequence[Candidate], labelled_ids: Collection[str], count: int, random_ratio: float, seed: int
) -> list[Drawn]:
    """Up to `count` of the requests that are not in `labelled_ids`, each with the reason "random" or "uncertain".

    A hash of seed and request id reserves the ratio `random_ratio` of all requests for random sampling; uncertain ones
    are chosen from the others. Otherwise earlier checks would have removed uncertain requests from the random sample, and
    the champion's score would be biased upwards. If there are too few of the others, more are drawn at random, but not
    the other way round.

    The uncertain ones have the highest uncertainty, but only one of inputs that are equal up to case and space, and of
    one predicted label at most twice its equal part, unless nothing else is left. The order of the rows does not matter.
    """
    known = set(labelled_ids)
    unlabelled = {each.request_id: each for each in candidates if each.request_id not in known}
    shuffled = sorted(unlabelled.values(), key=lambda each: _random_key(each.request_id, seed))
    reserved = [each for each in shuffled if is_sampled(f"{seed} {each.request_id}", random_ratio)]
    others = [each for each in shuffled if not is_sampled(f"{seed} {each.request_id}", random_ratio)]
    useful = _most_useful(others, count - round(count * random_ratio))
    drawn = reserved[: count - len(useful)]
    return [
        *(Drawn(each.request_id, "lot", weight=1.0) for each in drawn),
        *(Drawn(each.request_id, "doubt") for each in useful),
    ]


def _most_useful(shuffled: Sequence[Candidate], count: int) -> list[Candidate]:
    """The most uncertain; near duplicates and over-represented labels come last."""
    labels = {each.label for each in shuffled}
    most = ceil(2 * count / max(len(labels), 1))
    inputs: set[str] = set()
    taken: Counter[str | None] = Counter()
    first: list[Candidate] = []
    last: list[Candidate] = []
    for each in sorted(shuffled, key=lambda each: -each.uncertainty):
        text = normalised(each.input)
        diverse = text not in inputs and (each.label is None or taken[each.label] < most)
        (first if diverse else last).append(each)
        if diverse:
            inputs.add(text)
            taken[each.label] += 1
    return [*first, *last][: max(count, 0)]


def _random_key(request_id: str, seed: int) -> str:
    return hashlib.sha256(f"{request_id} {seed}".encode()).hexdigest()


def uniform_lot(request_ids: Sequence[str], drawn: Collection[str], count: int, seed: int) -> list[Drawn]:
    """About `count` of the requests that no lot has `drawn` before, each with the same propensity.

    Requests that are labelled already take part: a lot without them would lack the answers that people complained of.
    """
    left = [name for name in request_ids if name not in set(drawn)]
    ratio = min(1.0, count / max(len(left), 1))
    return [Drawn(name, "lot", ratio, 1.0) for name in left if is_sampled(f"{seed} {len(drawn)} {name}", ratio)]
