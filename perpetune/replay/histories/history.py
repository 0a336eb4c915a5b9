"""A history: requests in order of time, each with its label and when that became known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from perpetune.curation.quarantine import Rejected
from perpetune.curation.readers.reader import FIELDS, read_table, rejected
from perpetune.curation.readers.row import InvalidRow, example_of, time_of
from perpetune.curation.readers.table import Row, UnreadableRow
from perpetune.errors import PerpetuneError
from perpetune.records import Example

COLUMNS = (*FIELDS, "label_time", "answer", "confidence", "change")


@dataclass(frozen=True)
class Request:
    """One request: what was asked when, the label (the example's output), and when that became known.

    `answer` and `confidence` are the recorded ones of the model of that time, where the history has them.
    """

    example: Example
    asked: datetime
    known: datetime
    answer: str | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class History:
    """Requests by the time they were asked; `changes` are the moments at which the world is known to have changed.

    `taught` is what the first model learns from; where it is empty, the earliest requests are.
    """

    name: str
    requests: tuple[Request, ...]
    changes: tuple[datetime, ...] = ()
    taught: tuple[Example, ...] = ()
    rejected: tuple[Rejected, ...] = ()

    @property
    def begins(self) -> datetime:
        return self.requests[0].asked

    @property
    def ends(self) -> datetime:
        """When the last request had been asked and the last label was known."""
        return max(max(request.asked, request.known) for request in self.requests)

    @property
    def days(self) -> float:
        """From the first request to the last."""
        return (self.requests[-1].asked - self.begins) / timedelta(days=1)


def read_history(path: Path, label_delay: timedelta = timedelta()) -> History:
    """Read JSONL, CSV or Parquet with `input`, `output` and `time`, and perhaps the other `COLUMNS`.

    A row without `label_time` has its label `label_delay` after its request. A row whose `change` says yes marks the
    moment of a change. Bad rows are set aside with line, field and reason. Raises PerpetuneError where the file
    cannot be read, or has not one good row.
    """
    read = list(_read(path, label_delay))
    requests = [row[0] for row in read if not isinstance(row, Rejected)]
    quarantined = tuple(row for row in read if isinstance(row, Rejected))
    if not requests:
        raise PerpetuneError(f"it has no row that could be replayed; the first: {quarantined[0]}", where=str(path))
    changes = sorted({row[0].asked for row in read if not isinstance(row, Rejected) and row[1]})
    return History(path.name, in_time(requests), tuple(changes), rejected=quarantined)


def in_time(requests: Sequence[Request]) -> tuple[Request, ...]:
    """In the order of asking, whatever order they came in."""
    return tuple(sorted(requests, key=lambda request: (request.asked, request.example.id)))


def between(history: History, start: datetime | None, end: datetime | None) -> History:
    """The part asked from `start` on and before `end`. Raises PerpetuneError where it holds nothing."""
    kept = [
        request
        for request in history.requests
        if (start is None or request.asked >= start) and (end is None or request.asked < end)
    ]
    if not kept:
        raise PerpetuneError(
            f"it has no request between {start or history.begins} and {end or history.ends}", where=history.name
        )
    return replace(history, requests=tuple(kept))


def divided(history: History, share: float) -> History:
    """The history behind what the first model is taught: its earliest `share`, unless it brought examples for that.

    What is taught was known before the rest was asked: its labels are taken as there from the start.
    """
    if history.taught:
        return history
    count = math.ceil(share * len(history.requests))
    if not 0 < count < len(history.requests):
        raise PerpetuneError(
            f"{len(history.requests)} requests cannot be divided into what is taught and what is replayed",
            where=history.name,
            do="bring more, or another --start",
        )
    taught = tuple(request.example.model_copy(update={"source": "taught"}) for request in history.requests[:count])
    return replace(history, requests=history.requests[count:], taught=taught)


def _read(path: Path, label_delay: timedelta) -> Iterator[tuple[Request, bool] | Rejected]:
    for row in read_table(path, COLUMNS).rows:
        if isinstance(row, UnreadableRow):
            yield rejected(row, path, row.reason)
            continue
        try:
            yield _request(row, label_delay), _says_yes(row.values.get("change"))
        except InvalidRow as fault:
            yield rejected(row, path, fault.reason, fault.field)


def _request(row: Row, label_delay: timedelta) -> Request:
    example = example_of(row.values, "history")
    if example.time is None:
        raise InvalidRow("time", "missing: a history is replayed in the order of its times")
    known = time_of(row.values, "label_time") or example.time + label_delay
    if known < example.time:
        raise InvalidRow("label_time", "must not be before the time of the request")
    answer = row.values.get("answer")
    if answer not in (None, "") and not isinstance(answer, str):
        raise InvalidRow("answer", f"must be text, got {answer!r:.40}")
    return Request(example, example.time, known, answer or None, _confidence(row.values))


def _confidence(values: Mapping[str, object]) -> float | None:
    value = values.get("confidence")
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        found = float(str(value))
    except ValueError:
        found = math.nan
    if not 0 <= found <= 1:
        raise InvalidRow("confidence", f"must be a number from 0 to 1, got {value!r:.40}")
    return found


def _says_yes(value: object) -> bool:
    return value is True or str(value).strip().casefold() in {"1", "true", "yes"}
