"""Decisions in the audit log, by the digest of their record."""

from __future__ import annotations

import hashlib

from perpetune.audit.actor import actor
from perpetune.audit.entry import Event
from perpetune.audit.store import append_first
from perpetune.policy.decision.record import Decision
from perpetune.workspace import Workspace


def audit_decision(workspace: Workspace, decision: Decision) -> None:
    """Append the decision, once however often its step is repeated; before it is logged to MLflow and carried out.

    Raises PerpetuneError if the database cannot be written: a decision that cannot be traced is not carried out.
    """
    text = decision.to_json()
    digest = hashlib.sha256(text.encode()).hexdigest()
    subject = f"{decision.task} version {decision.ids.model_version}" if decision.ids.model_version else decision.task
    details = {"outcome": decision.outcome, "record": digest, "run": decision.ids.run_id or ""}
    append_first(
        workspace.settings.prediction_log,
        Event(actor(), f"decided ({decision.kind})", subject, details),
        f"the decision {decision.outcome!r} on {subject}",
        "see that the database can be written; the step is then repeated",
        once=f"record {digest}",
    )
