"""The audit log in the prediction log's database, whose triggers refuse to change or delete entries."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, text
from sqlalchemy.exc import SQLAlchemyError

from perpetune.audit.entry import Entry, Event, Head, seal
from perpetune.errors import PerpetuneError
from perpetune.prediction_log.database import error_text, open_log, redacted, writing
from perpetune.prediction_log.storable import storable
from perpetune.prediction_log.tables import audit

_LOCK = 0x61756469  # the key of PostgreSQL's advisory lock, an arbitrary constant
_CHUNK = 1000


def append(log: Engine, event: Event, *, once: str | None = None) -> Entry | None:
    """Append an event; None if one with the same key `once` is there, so that a repeated step is recorded once.

    Appends of any number of processes come one after the other. Raises SQLAlchemyError if the database cannot be
    written.
    """
    event = _storable(event)
    with writing(log) as connection:
        if log.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        if once is not None and connection.execute(select(audit.c.number).where(audit.c.once == once)).first():
            return None
        entry = seal(event, datetime.now(UTC), _head(connection))
        connection.execute(
            insert(audit).values(
                number=entry.number,
                time=entry.time,
                actor=event.actor,
                action=event.action,
                subject=event.subject,
                details=dict(event.details),
                previous=entry.previous,
                digest=entry.digest,
                once=once,
            )
        )
        return entry


def append_first(url: str, event: Event, what: str, do: str, *, once: str | None = None) -> None:
    """Append an event to the log at this URL before it is carried out: what could not be traced is not done.

    Raises PerpetuneError, which says that `what` cannot be written and what to `do`, if the database cannot be written.
    """
    log = open_log(url)
    try:
        append(log, event, once=once)
    except SQLAlchemyError as fault:
        what = f"{what} cannot be written to the audit log: {error_text(fault)}"
        raise PerpetuneError(what, where=redacted(url), do=do) from None
    finally:
        log.dispose()


def has_key(log: Engine, once: str) -> bool:
    """Whether an event was appended with this key."""
    with log.connect() as connection:
        return connection.execute(select(audit.c.number).where(audit.c.once == once)).first() is not None


def entries(log: Engine, after: int = 0) -> Iterator[Entry]:
    """All entries after this number, in order, in bounded memory."""
    while True:
        query = select(audit).where(audit.c.number > after).order_by(audit.c.number).limit(_CHUNK)
        with log.connect() as connection:
            rows = connection.execute(query).all()
        yield from map(_entry, rows)
        if len(rows) < _CHUNK:
            return
        after = rows[-1].number


def head_of(log: Engine) -> Head:
    """The last entry's number and digest."""
    with log.connect() as connection:
        return _head(connection)


def _head(connection: Connection) -> Head:
    newest = connection.execute(select(audit.c.number, audit.c.digest).order_by(audit.c.number.desc()).limit(1)).first()
    return Head(newest.number, newest.digest) if newest else Head()


def _storable(event: Event) -> Event:
    """The event as the database gives it back, which is what the digest seals."""
    details = {storable(name): storable(value) for name, value in event.details.items()}
    return Event(storable(event.actor), storable(event.action), storable(event.subject), details)


def _entry(row: Row[Any]) -> Entry:
    event = Event(row.actor, row.action, row.subject, row.details)
    return Entry(row.number, row.time, event, row.previous, row.digest)
