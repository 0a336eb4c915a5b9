"""Which requests to ask labels for: some by chance, so that scores stay unbiased, the rest the most useful ones."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil

from perpetune.curation.text import normalised
from perpetune.monitoring.window import Window, current_frame
from perpetune.prediction_log.hash_sampling import is_sampled
from perpetune.prediction_log.label_requests import LabelReason


@dataclass(frozen=True)
class Candidate:
    """An answered request. `label` is the answer where the task has labels, `doubt` (0 to 1) how unsure it was."""

    request_id: str
    input: str
    label: str | None
    doubt: float


def candidates(window: Window) -> list[Candidate]:
    """The window's requests. Doubt is what confidence leaves to 1; without confidence the share of words that the
    reference does not have."""
    unseen = current_frame(window)["unseen word share"]
    return [
        Candidate(
            row.id,
            row.input,
            row.output.strip() if window.kind == "classification" else None,
            float(share) if row.confidence is None else 1 - row.confidence,
        )
        for row, share in zip(window.predictions, unseen, strict=True)
    ]


def choose(
    candidates: Sequence[Candidate], labelled_ids: Collection[str], count: int, random_share: float, seed: int
) -> list[tuple[str, LabelReason]]:
    """Up to `count` of the requests that are not among `labelled_ids`, each with why it was chosen.

    A lot, of seed and request id alone, sets `random_share` of all requests apart. Random requests are drawn from these
    and uncertain ones from the others: were they drawn from what earlier looks had left, the doubtful ones would be
    missing and the champion would seem better than it is. Where the others do not suffice, more are drawn by chance;
    the other way round never.

    Uncertain are the most doubtful, but of inputs alike up to case and space one, and of one predicted label at most
    twice its equal share, unless nothing else is left. The same whatever the order of the rows.
    """
    known = set(labelled_ids)
    unlabelled = {each.request_id: each for each in candidates if each.request_id not in known}
    by_lot = sorted(unlabelled.values(), key=lambda each: _lot(each.request_id, seed))
    apart = [each for each in by_lot if is_sampled(f"{seed} {each.request_id}", random_share)]
    others = [each for each in by_lot if not is_sampled(f"{seed} {each.request_id}", random_share)]
    useful = _most_useful(others, count - round(count * random_share))
    drawn = apart[: count - len(useful)]
    return [
        *((each.request_id, "random") for each in drawn),
        *((each.request_id, "uncertain") for each in useful),
    ]


def _most_useful(by_lot: Sequence[Candidate], count: int) -> list[Candidate]:
    """The most doubtful, those last that teach what another one teaches; ties fall as they stand."""
    labels = {each.label for each in by_lot}
    most = ceil(2 * count / max(len(labels), 1))
    inputs: set[str] = set()
    taken: Counter[str | None] = Counter()
    first: list[Candidate] = []
    last: list[Candidate] = []
    for each in sorted(by_lot, key=lambda each: -each.doubt):
        alike = normalised(each.input)
        spread = alike not in inputs and (each.label is None or taken[each.label] < most)
        (first if spread else last).append(each)
        if spread:
            inputs.add(alike)
            taken[each.label] += 1
    return [*first, *last][: max(count, 0)]


def _lot(request_id: str, seed: int) -> str:
    return hashlib.sha256(f"{request_id} {seed}".encode()).hexdigest()
