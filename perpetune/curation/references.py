"""Rows with several right outputs."""

from __future__ import annotations

from collections.abc import Sequence

from perpetune.curation.text import normalised
from perpetune.records import Example


def with_all_references(rows: Sequence[Example]) -> Example:
    """The first of rows that ask and answer the same, with the references of all."""
    first = rows[0]
    others = tuple(dict.fromkeys(each for row in rows for each in row.references if each != first.output))
    return first if others == first.references else first.model_copy(update={"references": others})


def equivalent_outputs(rows: Sequence[Example]) -> dict[str, str]:
    """Of rows that ask the same, from each output's likeness to that of the first which says as much.

    Two outputs say as much where each is among the references of a row with the other.
    """
    taken: dict[str, set[str]] = {}
    for row in rows:
        taken.setdefault(normalised(row.output), set()).update(map(normalised, row.references))
    alike: dict[str, str] = {}
    for one in taken:
        alike[one] = next((alike[other] for other in alike if other in taken[one] and one in taken[other]), one)
    return alike
