"""The training mix: recent labelled traffic, with replay of older rows against forgetting.

Rehearsal: Robins 1995, Connection Science 7:123. Few old rows suffice for language models: Scialom et al. 2022, EMNLP,
arXiv:2205.12393.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from perpetune.curation.quarantine import EARLIEST, Quarantined, in_order
from perpetune.curation.rows.sources import is_traffic
from perpetune.curation.text import fingerprint
from perpetune.params import MixParams
from perpetune.records import Example

NOT_REPLAYED = "older than the recent traffic and not replayed (mix.replay)"


@dataclass(frozen=True)
class Mix:
    """The training rows, recent and replayed, and the quarantined older ones."""

    recent: tuple[Example, ...]
    replayed: tuple[Example, ...]
    quarantined: tuple[Quarantined, ...]

    @property
    def rows(self) -> tuple[Example, ...]:
        return tuple(in_order([*self.recent, *self.replayed]))


def mix(train: Sequence[Example], params: MixParams, min_rows: int) -> Mix:
    """Keep every recent row, and at most `params.replay` older rows for each of them.

    More older rows are kept if needed for `min_rows` training rows, so that a few new labels do not leave too little
    data. Without recent rows, or if `replay` is null, all are kept. The choice does not depend on the rows' order: it
    goes round robin over the outputs, smallest hash first, so that rare labels are replayed as often as common ones.
    """
    recent, older = recent_and_older(train, params)
    if params.replay is None or not recent:
        return Mix(recent, older, ())
    budget = max(math.floor(params.replay * len(recent)), min_rows - len(recent))
    replayed = _round_robin(older)[:budget]
    kept = {id(row) for row in replayed}
    quarantined = tuple(Quarantined(reason=NOT_REPLAYED, example=row) for row in older if id(row) not in kept)
    return Mix(recent, tuple(in_order(replayed)), quarantined)


def recent_and_older(train: Sequence[Example], params: MixParams) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The recent rows, and the others."""
    rows, is_recent = in_order(train), recent_of(train, params)
    recent = tuple(row for row in rows if is_recent(row))
    return recent, tuple(row for row in rows if not is_recent(row))


def recent_of(train: Iterable[Example], params: MixParams) -> Callable[[Example], bool]:
    """Whether a row is traffic of the `recent_days` before the newest traffic row (null: all traffic).

    Traffic without a time is older than any `recent_days`.
    """
    newest = max((row.time or EARLIEST for row in train if is_traffic(row)), default=EARLIEST)

    def is_recent(row: Example) -> bool:
        if not is_traffic(row):
            return False
        if params.recent_days is None:
            return True
        return row.time is not None and newest - row.time <= timedelta(days=params.recent_days)

    return is_recent


def _round_robin(rows: Sequence[Example]) -> list[Example]:
    """Round robin over the outputs, smallest hash first. For free text with unique outputs only the hash decides."""
    hashed = sorted((fingerprint("mix", row.source, row.id), row.model_dump_json(), row) for row in rows)
    rank_of_output: Counter[str] = Counter()
    ranked = []
    for digest, text, row in hashed:
        rank_of_output[row.output] += 1
        ranked.append((rank_of_output[row.output], digest, text, row))
    return [row for *_, row in sorted(ranked, key=lambda each: each[:3])]
