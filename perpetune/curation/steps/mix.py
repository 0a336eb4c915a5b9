"""What is trained on: recent labelled traffic, with replay of older rows so that old skills stay.

Rehearsal of old examples is the plainest remedy against forgetting them (Robins 1995, Connection Science 7:123), and
a small share of them goes a long way in fine-tuning language models (Scialom et al. 2022, EMNLP, arXiv:2205.12393).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from perpetune.curation.quarantine import EARLIEST, Quarantined, in_order
from perpetune.curation.sources import is_traffic
from perpetune.curation.text import fingerprint
from perpetune.params import MixParams
from perpetune.records import Example

NOT_REPLAYED = "older than the recent traffic, and mix.replay has enough of its kind"


@dataclass(frozen=True)
class Mix:
    """What is trained on, in two parts, and the older rows that are left out."""

    recent: tuple[Example, ...]
    replayed: tuple[Example, ...]
    quarantined: tuple[Quarantined, ...]

    @property
    def rows(self) -> tuple[Example, ...]:
        return tuple(in_order([*self.recent, *self.replayed]))


def mix(train: Sequence[Example], params: MixParams, least: int) -> Mix:
    """Keep every recent row, and of the older ones at most `params.replay` for each of them.

    Older rows are kept, as far as there are any, until `least` rows are trained on: a handful of new labels must not
    leave a model without data. Without recent rows, or where `replay` is null, all are kept. Which ones stay depends
    on what the rows are, never on their order: outputs take turns, and of one output the smallest hashes come first,
    so that a rare label is replayed as often as a common one.
    """
    recent, older = recent_and_older(train, params)
    if params.replay is None or not recent:
        return Mix(recent, older, ())
    budget = max(math.floor(params.replay * len(recent)), least - len(recent))
    taken = _in_turns(older)[:budget]
    kept = {id(row) for row in taken}
    quarantined = tuple(Quarantined(reason=NOT_REPLAYED, example=row) for row in older if id(row) not in kept)
    return Mix(recent, tuple(in_order(taken)), quarantined)


def recent_and_older(train: Sequence[Example], params: MixParams) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Traffic of the last `recent_days` before the newest row of traffic among these (all traffic for null), and the rest.

    Traffic without a time is as old as can be where days are counted.
    """
    rows = in_order(train)
    newest = max((row.time or EARLIEST for row in rows if is_traffic(row)), default=EARLIEST)

    def is_recent(row: Example) -> bool:
        if not is_traffic(row):
            return False
        if params.recent_days is None:
            return True
        return row.time is not None and newest - row.time <= timedelta(days=params.recent_days)

    recent = tuple(row for row in rows if is_recent(row))
    return recent, tuple(row for row in rows if not is_recent(row))


def _in_turns(rows: Sequence[Example]) -> list[Example]:
    """One row of each output, then another of each, as long as there are any.

    Of free text nearly every output is its own, and the hash alone decides.
    """
    hashed = sorted((fingerprint("mix", row.source, row.id), row.model_dump_json(), row) for row in rows)
    turns: Counter[str] = Counter()
    ranked = []
    for digest, text, row in hashed:
        turns[row.output] += 1
        ranked.append((turns[row.output], digest, text, row))
    return [row for *_, row in sorted(ranked, key=lambda each: each[:3])]
