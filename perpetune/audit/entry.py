"""An entry of the audit log, and the digest that seals it and all before it.

Each entry holds the SHA-256 of the one before (Haber & Stornetta, "How to time-stamp a digital document", 1991), so that
an entry cannot be changed, removed or put between two others unless all later ones are rewritten. A digest that was noted
elsewhere shows that too, and shows whether the last entries were cut off.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from perpetune.errors import PerpetuneError

BEGIN = "0" * 64  # what the first entry holds as the digest before it
_RERUN = "somebody changed the table with the rights of its owner: compare with a backup"


@dataclass(frozen=True)
class Event:
    """What happened: `actor` did `action` to `subject`. No value holds a text of a request or of a row."""

    actor: str
    action: str
    subject: str
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """An event with its number, from 1 on and without gaps, its time, and the digests before and after it, in hex."""

    number: int
    time: datetime
    event: Event
    previous: str
    digest: str


@dataclass(frozen=True)
class Head:
    """The last entry of a log at some time; number 0 before the first."""

    number: int = 0
    digest: str = BEGIN

    def __str__(self) -> str:
        return f"{self.number}:{self.digest}"


def parse_head(text: str) -> Head:
    """A head as `perpetune audit verify` prints it. Raises PerpetuneError if the text is none."""
    number, _, digest = text.strip().partition(":")
    if (
        not number.isascii()
        or not number.isdigit()
        or len(digest) != len(BEGIN)
        or set(digest) - set("0123456789abcdef")
    ):
        raise PerpetuneError(
            f"{text!r} is no head of an audit log", do="give NUMBER:DIGEST as `audit verify` prints it"
        )
    return Head(int(number), digest)


def seal(event: Event, time: datetime, before: Head) -> Entry:
    """The entry after `before`."""
    number = before.number + 1
    return Entry(number, time, event, before.digest, _digest(number, time, event, before.digest))


def verify(entries: Iterable[Entry], noted: Head | None = None) -> Head:
    """Check that every entry follows from the one before, and that a head noted earlier is among them; returns the last.

    Raises PerpetuneError with the first entry that does not fit.
    """
    head, found = Head(), noted is None or noted.number == 0
    for entry in entries:
        if entry.number != head.number + 1:
            raise _broken(f"entry {head.number + 1} is missing: after {head.number} comes {entry.number}")
        if entry.previous != head.digest:
            raise _broken(f"entry {entry.number} does not follow from entry {head.number}")
        if entry.digest != _digest(entry.number, entry.time, entry.event, entry.previous):
            raise _broken(f"entry {entry.number} was changed")
        head = Head(entry.number, entry.digest)
        if noted is not None and noted.number == head.number:
            if noted != head:
                raise _broken(f"entry {head.number} is not the one that was noted")
            found = True
    if not found:
        raise _broken(
            f"entries are missing at the end: {noted.number if noted else 0} was noted, {head.number} is the last"
        )
    return head


def _digest(number: int, time: datetime, event: Event, previous: str) -> str:
    """The SHA-256 of an entry as canonical JSON: sorted keys, no spaces, UTC in microseconds."""
    content = [
        number,
        time.astimezone(UTC).isoformat(timespec="microseconds"),
        event.actor,
        event.action,
        event.subject,
        dict(sorted(event.details.items())),
        previous,
    ]
    return hashlib.sha256(json.dumps(content, separators=(",", ":"), ensure_ascii=True).encode()).hexdigest()


def _broken(what: str) -> PerpetuneError:
    return PerpetuneError(f"the audit log is not intact: {what}", do=_RERUN)
