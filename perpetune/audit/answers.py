"""Answers to approvals that came over the API, under an identity that the gateway had authenticated."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from perpetune.audit.entry import Event
from perpetune.errors import PerpetuneError
from perpetune.prediction_log.database import error_text, open_log, redacted
from perpetune.prediction_log.storable import storable
from perpetune.prediction_log.tables import audit


def answer_event(who: str, approve: bool, task: str, version: str) -> Event:
    """What the gateway appends before it passes an answer on."""
    return Event(who, f"asked over the API to {'approve' if approve else 'refuse'}", f"{task} version {version}")


def was_authenticated(url: str, event: Event, since: datetime) -> bool:
    """Whether the log at this URL has such an answer since then. Whoever types the name into a form leaves no entry.

    Raises PerpetuneError if the database cannot be read.
    """
    log = open_log(url)
    try:
        return _is_there(log, event, since)
    except SQLAlchemyError as fault:
        raise PerpetuneError(f"the audit log cannot be read: {error_text(fault)}", where=redacted(url)) from None
    finally:
        log.dispose()


def _is_there(log: Engine, event: Event, since: datetime) -> bool:
    wanted = (
        audit.c.actor == storable(event.actor),
        audit.c.action == event.action,
        audit.c.subject == storable(event.subject),
        audit.c.time >= since,
    )
    with log.connect() as connection:
        return connection.execute(select(audit.c.number).where(*wanted).limit(1)).first() is not None
