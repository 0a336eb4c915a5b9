"""Leakage: held-out rows that were trained on, exactly or as near duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perpetune.curation.duplicates.shared_passages import is_long, with_shared_passages
from perpetune.curation.rows.dedup_key import input_key
from perpetune.records import Example


@dataclass(frozen=True)
class Leakage:
    """Ids of held-out rows whose input is in the training rows (`same`) or nearly so (`near`, of the `long` others)."""

    same: tuple[str, ...]
    near: tuple[str, ...]
    long: int
    rows: int


def leakage(trained: Sequence[Example], held_out: Sequence[Example]) -> Leakage:
    """Compare the input of each held-out row with all training rows.

    Two rows are near duplicates if the Jaccard similarity of their five-word shingles is at least 0.8, ignoring case
    and punctuation. The split leaves no such pair; data that was split elsewhere may have some.
    """
    questions = {input_key(row) for row in trained}
    same = {row.id for row in held_out if input_key(row) in questions}
    others = [row for row in held_out if row.id not in same]
    near = {others[position].id for position in with_shared_passages(others, trained)}
    return Leakage(tuple(sorted(same)), tuple(sorted(near)), sum(map(is_long, others)), len(held_out))
