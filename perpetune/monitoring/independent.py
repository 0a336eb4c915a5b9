"""Labels that count: one a day of each user or session, and of equal inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

from perpetune.curation.text import fingerprint, normalised
from perpetune.records import Prediction


def independent(rows: Sequence[Prediction], counted: Iterable[Prediction] = ()) -> list[Prediction]:
    """The first row of each cluster and day, in the order given; those of a day with a `counted` row are left out.

    Answers to one user or session, and to inputs that are equal up to case and space, are right or wrong together: a burst
    of ten is one observation. The first label counts, whatever comes later, so that it does not matter which check reads
    it.
    """
    return list(_first_of_each(rows, {cluster_and_day(row) for row in counted}))


class Clustered(Protocol):
    """A row with an input, and perhaps a user or session and a time."""

    @property
    def input(self) -> str: ...

    @property
    def group(self) -> str | None: ...

    @property
    def time(self) -> datetime | None: ...


def cluster_of(row: Clustered) -> str:
    """The user or session of a row; if it is unknown, its input up to case and space."""
    return row.group or fingerprint(normalised(row.input))


def _first_of_each(rows: Iterable[Prediction], seen: set[str]) -> Iterator[Prediction]:
    for row in rows:
        key = cluster_and_day(row)
        if key not in seen:
            seen.add(key)
            yield row


def cluster_and_day(row: Clustered) -> str:
    """The cluster of a row on the day of its request; on any day, if that is not known."""
    return f"{cluster_of(row)} {row.time.date()}" if row.time else cluster_of(row)
