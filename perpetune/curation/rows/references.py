"""Rows with several correct outputs."""

from __future__ import annotations

from collections.abc import Sequence

from perpetune.curation.text import normalised
from perpetune.records import Example


def with_all_references(rows: Sequence[Example]) -> Example:
    """The first of rows with the same input and output, with the references of all."""
    first = rows[0]
    others = tuple(dict.fromkeys(each for row in rows for each in row.references if each != first.output))
    return first if others == first.references else first.model_copy(update={"references": others})


def equivalent_outputs(rows: Sequence[Example]) -> dict[str, str]:
    """For rows with the same input: each normalised output mapped to the first equivalent one.

    Two outputs are equivalent if each is a reference of a row with the other.
    """
    references: dict[str, set[str]] = {}
    for row in rows:
        references.setdefault(normalised(row.output), set()).update(map(normalised, row.references))
    equivalent: dict[str, str] = {}
    for one in references:
        equivalent[one] = next(
            (equivalent[other] for other in equivalent if other in references[one] and one in references[other]), one
        )
    return equivalent
