"""Whether labels that came unasked decide in this workspace: in checks, in trials, and in the holdouts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Engine

from perpetune.evaluation.scores.mistake_costs import deciding_scoring
from perpetune.evaluation.scores.scoring import Metric, scoring_of
from perpetune.policy.ignorable import Ignorability, SelectionRow, ignorable
from perpetune.policy.promotion.cost_margin import margin_by_cost
from perpetune.prediction_log.labels.rule import LabelRule
from perpetune.prediction_log.labels.selection import Selected, selection
from perpetune.workspace import Workspace


def unasked_labels(workspace: Workspace, log: Engine, rule: LabelRule, version: str | None = None) -> Ignorability:
    """Whether they decide, from the newest requests of the version; None: of all versions.

    With `promote.costs` they must be ignorable by what answers cost too: complaints about dear mistakes alone hardly move
    the accuracy.
    """
    task, params = workspace.params.task, workspace.params.watch
    selected = selection(log, task.name, version, datetime.now(UTC), rule)
    rows = _rows(workspace, selected, scoring_of(task.kind, task.output_schema).score)
    found = ignorable(rows, params.margin, params.unasked)
    if workspace.params.promote.costs is None or not found.decides:
        return found
    by_cost = _rows(workspace, selected, deciding_scoring(workspace.params).score)
    known = [row.score for row in by_cost if row.score is not None]
    return ignorable(by_cost, margin_by_cost(params.margin, sum(known) / len(known)), params.unasked)


def _rows(workspace: Workspace, selected: Sequence[Selected], score: Metric) -> list[SelectionRow]:
    of_labels = workspace.params.task.kind == "classification"
    return [
        SelectionRow(
            confidence=row.confidence,
            score=None if row.label is None else score(row.label, row.output),
            unasked=row.unasked,
            weight=row.weight,
            settled=row.settled,
            answer=row.output.strip() if of_labels else None,
        )
        for row in selected
    ]
