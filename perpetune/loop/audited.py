"""Decisions in the audit log, by the digest of their record."""

from __future__ import annotations

import hashlib

from sqlalchemy.exc import SQLAlchemyError

from perpetune.audit.actor import actor
from perpetune.audit.entry import Event
from perpetune.audit.store import append_first, has_key
from perpetune.errors import PerpetuneError
from perpetune.policy.decision.record import Decision
from perpetune.prediction_log.database import error_text, open_log, redacted
from perpetune.workspace import Workspace


def audit_decision(workspace: Workspace, decision: Decision) -> None:
    """Append the decision, once however often its step is repeated; before it is carried out.

    Raises PerpetuneError if the database cannot be written: a decision that cannot be traced is not carried out.
    """
    digest = record_digest(decision)
    subject = f"{decision.task} version {decision.ids.model_version}" if decision.ids.model_version else decision.task
    details = {"outcome": decision.outcome, "record": digest, "run": decision.ids.run_id or ""}
    append_first(
        workspace.settings.prediction_log,
        Event(actor(), f"decided ({decision.kind})", subject, details),
        f"the decision {decision.outcome!r} on {subject}",
        "see that the database can be written; the step is then repeated",
        once=_key(digest),
    )


def is_audited(workspace: Workspace, decision: Decision) -> bool:
    """Whether the decision is in the audit log. Raises PerpetuneError if the database cannot be read."""
    url = workspace.settings.prediction_log
    log = open_log(url)
    try:
        return has_key(log, _key(record_digest(decision)))
    except SQLAlchemyError as fault:
        raise PerpetuneError(f"the audit log cannot be read: {error_text(fault)}", where=redacted(url)) from None
    finally:
        log.dispose()


def record_digest(decision: Decision) -> str:
    """The SHA-256 of a decision record, in hex."""
    return hashlib.sha256(decision.to_json().encode()).hexdigest()


def _key(digest: str) -> str:
    return f"record {digest}"
