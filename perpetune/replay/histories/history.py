"""A history: requests in order of time, each with its label and the time when the label became known."""

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
    """One request: `time` of the request, label (the example's output), and `label_time`, when it became known.

    `answer` and `confidence` are those of the model that served then, if they were recorded.
    """

    example: Example
    time: datetime
    label_time: datetime
    answer: str | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class History:
    """Requests in order of time; `changes` are the known times at which the traffic or its labels changed.

    `initial` are the training examples of the first model; if empty, the earliest requests are used.
    """

    name: str
    requests: tuple[Request, ...]
    changes: tuple[datetime, ...] = ()
    initial: tuple[Example, ...] = ()
    rejected: tuple[Rejected, ...] = ()

    @property
    def begins(self) -> datetime:
        return self.requests[0].time

    @property
    def ends(self) -> datetime:
        """The time of the last request or label."""
        return max(max(request.time, request.label_time) for request in self.requests)

    @property
    def days(self) -> float:
        """Days from the first request to the last."""
        return (self.requests[-1].time - self.begins) / timedelta(days=1)


def read_history(path: Path, label_delay: timedelta = timedelta()) -> History:
    """Read JSONL, CSV or Parquet with `input`, `output`, `time`, and optionally the other `COLUMNS`.

    A row without `label_time` gets its label `label_delay` after the request. A true `change` marks the time of a change.
    Bad rows are quarantined with line, field and reason. Raises PerpetuneError if the file cannot be read or has no
    valid row.
    """
    read = list(_read(path, label_delay))
    requests = [row[0] for row in read if not isinstance(row, Rejected)]
    quarantined = tuple(row for row in read if isinstance(row, Rejected))
    if not requests:
        raise PerpetuneError(f"there is no valid row; the first error: {quarantined[0]}", where=str(path))
    changes = sorted({row[0].time for row in read if not isinstance(row, Rejected) and row[1]})
    return History(path.name, by_time(requests), tuple(changes), rejected=quarantined)


def by_time(requests: Sequence[Request]) -> tuple[Request, ...]:
    """The requests in order of time."""
    return tuple(sorted(requests, key=lambda request: (request.time, request.example.id)))


def between(history: History, start: datetime | None, end: datetime | None) -> History:
    """The requests from `start` up to, but not including, `end`. Raises PerpetuneError if there are none."""
    kept = [
        request
        for request in history.requests
        if (start is None or request.time >= start) and (end is None or request.time < end)
    ]
    if not kept:
        raise PerpetuneError(
            f"there is no request between {start or history.begins} and {end or history.ends}", where=history.name
        )
    return replace(history, requests=tuple(kept))


def with_initial_examples(history: History, ratio: float) -> History:
    """The history with initial examples: its own, or else its earliest requests (the ratio `ratio` of all).

    The labels of the initial examples count as known from the start. Raises PerpetuneError if there are too few requests.
    """
    if history.initial:
        return history
    count = math.ceil(ratio * len(history.requests))
    if not 0 < count < len(history.requests):
        raise PerpetuneError(
            f"{len(history.requests)} requests are too few to train a first model and to replay the rest",
            where=history.name,
            do="use a longer history, or another --start",
        )
    initial = tuple(request.example.model_copy(update={"source": "initial"}) for request in history.requests[:count])
    return replace(history, requests=history.requests[count:], initial=initial)


def _read(path: Path, label_delay: timedelta) -> Iterator[tuple[Request, bool] | Rejected]:
    for row in read_table(path, COLUMNS).rows:
        if isinstance(row, UnreadableRow):
            yield rejected(row, path, row.reason)
            continue
        try:
            yield _request(row, label_delay), _is_true(row.values.get("change"))
        except InvalidRow as fault:
            yield rejected(row, path, fault.reason, fault.field)


def _request(row: Row, label_delay: timedelta) -> Request:
    example = example_of(row.values, "history")
    if example.time is None:
        raise InvalidRow("time", "missing, but a replay needs the time of every request")
    label_time = time_of(row.values, "label_time") or example.time + label_delay
    if label_time < example.time:
        raise InvalidRow("label_time", "must not be before the time of the request")
    answer = row.values.get("answer")
    if answer not in (None, "") and not isinstance(answer, str):
        raise InvalidRow("answer", f"must be text, got {answer!r:.40}")
    return Request(example, example.time, label_time, answer or None, _confidence(row.values))


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


def _is_true(value: object) -> bool:
    return value is True or str(value).strip().casefold() in {"1", "true", "yes"}
