"""What the user says about a file that cannot be found in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from perpetune.curation.readers.schemas.mapped import FIELDS
from perpetune.errors import PerpetuneError


@dataclass(frozen=True)
class ReadOptions:
    """The encoding, the separator of columns, for each of our fields the columns to use, and the sheet of a workbook."""

    encoding: str | None = None
    separator: str | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sheet: str | None = None


def read_options(
    columns: Sequence[str], encoding: str | None, separator: str | None, sheet: str | None = None
) -> ReadOptions:
    """Options from a command line, with columns such as `input=context+question`. Raises PerpetuneError."""
    if separator == "\\t":
        separator = "\t"
    if separator is not None and len(separator) != 1:
        raise PerpetuneError(f"a separator is one character, got {separator!r}", where="--separator")
    return ReadOptions(encoding, separator, dict(map(_pair, columns)), sheet)


def _pair(text: str) -> tuple[str, tuple[str, ...]]:
    field, _, sources = text.partition("=")
    named = tuple(name.strip() for name in sources.split("+"))
    if field.strip() not in FIELDS or not all(named):
        raise PerpetuneError(
            f"{text!r} does not say which column is which",
            where="--map",
            do=f"write FIELD=COLUMN, such as input=question; the fields are {', '.join(FIELDS)}",
        )
    return field.strip(), named
