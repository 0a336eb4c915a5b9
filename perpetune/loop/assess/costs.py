"""The cost of a refresh and when it pays off, from its training, its evaluation and the prediction log."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from perpetune.curation.sources import is_traffic
from perpetune.evaluation.costs import (
    DAYS_PER_MONTH,
    SECONDS_PER_HOUR,
    RefreshCost,
    RefreshEconomics,
    Usage,
    refresh_economics,
    to_document,
)
from perpetune.evaluation.evaluate import Evaluation, SystemResults
from perpetune.loop.curate import read_split
from perpetune.loop.fine_tune import Challenger, device_hours
from perpetune.loop.run_context import ECONOMICS
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.queries import answered_since
from perpetune.records import to_json
from perpetune.tracking import registry
from perpetune.tracking.runs import Run, log_metrics, log_text, read_run
from perpetune.workspace import Workspace

COMPARED = ("base", "few-shot", "champion", "challenger")


def log_economics(
    workspace: Workspace,
    run: Run,
    challenger: Challenger,
    evaluations: Mapping[str, Evaluation],
    evaluation_seconds: float,
) -> RefreshEconomics | None:
    """Log to the run what the refresh cost and saves; None if no held-out row was answered."""
    if not evaluations:
        return None
    params = workspace.params
    hours = device_hours(challenger.trained) + evaluation_seconds / SECONDS_PER_HOUR
    found = refresh_economics(
        usage_of(evaluations),
        RefreshCost(hours, new_labels(workspace)),
        params.economics,
        params.evaluate,
        params.economics.requests_per_month or requests_per_month(workspace, datetime.now(UTC)),
    )
    log_metrics(run, found.flat_metrics())
    log_text(run, to_json(to_document(found)), ECONOMICS)
    return found


def usage_of(evaluations: Mapping[str, Evaluation]) -> dict[str, Usage]:
    """Seconds and tokens of each system of `COMPARED`, on the held-out rows that all of them answered."""
    systems = [name for name in COMPARED if all(name in each.scored for each in evaluations.values())]
    found: dict[str, list[tuple[float, int, int]]] = {name: [] for name in systems}
    for evaluation in evaluations.values():
        positions = set.intersection(*(set(evaluation.scored[name].positions) for name in systems))
        for name in systems:
            found[name] += _row_usage(evaluation.scored[name], positions)
    return {name: _usage(rows) for name, rows in found.items()}


def _row_usage(scored: SystemResults, positions: Collection[int]) -> list[tuple[float, int, int]]:
    """Seconds, prompt tokens and completion tokens of the rows at these positions."""
    usage = zip(scored.seconds, scored.prompt_tokens, scored.completion_tokens, strict=True)
    return [row for position, row in zip(scored.positions, usage, strict=True) if position in positions]


def _usage(rows: Sequence[tuple[float, int, int]]) -> Usage:
    return Usage(
        seconds=tuple(seconds for seconds, _, _ in rows),
        prompt_tokens=tuple(tokens for _, tokens, _ in rows),
        completion_tokens=tuple(tokens for _, _, tokens in rows),
    )


def new_labels(workspace: Workspace) -> int:
    """Labelled requests in the data newer than the champion's refresh; all of them if there is no champion."""
    task = workspace.params.task.name
    champion = registry.find(task, "champion")
    since = read_run(champion.run_id).started if champion else None
    rows = (row for name in ("train", "validation", "recent") for row in read_split(workspace, name))
    traffic = (row for row in rows if is_traffic(row))
    return sum(since is None or (row.time is not None and row.time > since) for row in traffic)


def requests_per_month(workspace: Workspace, now: datetime) -> int | None:
    """Requests of the last month, estimated from the sampled log; None if the log covers less than a day."""
    log = open_log(workspace.settings.prediction_log)
    try:
        count, first = answered_since(log, workspace.params.task.name, now - timedelta(days=DAYS_PER_MONTH))
    finally:
        log.dispose()
    if first is None or now - first < timedelta(days=1):
        return None
    return round(count / workspace.params.log.sample_rate * (timedelta(days=DAYS_PER_MONTH) / (now - first)))
