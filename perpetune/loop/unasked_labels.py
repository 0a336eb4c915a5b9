"""Whether labels that came unasked decide in this workspace: in checks, in trials, and in the holdouts."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Engine

from perpetune.evaluation.scores.scoring import scoring_of
from perpetune.policy.ignorable import Ignorability, SelectionRow, ignorable
from perpetune.prediction_log.label_rule import LabelRule
from perpetune.prediction_log.selection import selection
from perpetune.workspace import Workspace


def unasked_labels(workspace: Workspace, log: Engine, rule: LabelRule, version: str | None = None) -> Ignorability:
    """Whether they decide, from the newest requests of the version; None: of all versions."""
    task, params = workspace.params.task, workspace.params.watch
    score = scoring_of(task.kind, task.output_schema).score
    rows = [
        SelectionRow(
            confidence=row.confidence,
            score=None if row.label is None else score(row.label, row.output),
            unasked=row.unasked,
            weight=row.weight,
            settled=row.settled,
            answer=row.output.strip() if task.kind == "classification" else None,
        )
        for row in selection(log, task.name, version, datetime.now(UTC), rule)
    ]
    return ignorable(rows, params.margin, params.unasked)
