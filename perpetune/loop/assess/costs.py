"""The cost of a refresh and when it pays off, from its training, its evaluation and the prediction log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from perpetune.curation.rows.sources import is_traffic
from perpetune.evaluation.costs import (
    DAYS_PER_MONTH,
    RefreshCost,
    RefreshEconomics,
    refresh_economics,
    to_document,
)
from perpetune.evaluation.economics.machine import SECONDS_PER_HOUR, MachineUse, fully_used
from perpetune.evaluation.economics.usage import Usage
from perpetune.evaluation.evaluate import Evaluation, SystemResults
from perpetune.evaluation.systems import RECORDED
from perpetune.loop.curate import read_split
from perpetune.loop.run_context import ECONOMICS
from perpetune.loop.training.fine_tune import Challenger, device_hours
from perpetune.prediction_log.answers.utilisation import utilisation
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
    params, now = workspace.params, datetime.now(UTC)
    hours = device_hours(challenger.trained) + evaluation_seconds / SECONDS_PER_HOUR
    found = refresh_economics(
        usage_of(evaluations),
        RefreshCost(hours, new_labels(workspace)),
        params.economics,
        params.evaluate,
        params.economics.requests_per_month or requests_per_month(workspace, now),
        machine_use(workspace, now),
        recorded_scores(evaluations),
    )
    log_metrics(run, found.flat_metrics())
    log_text(run, to_json(to_document(found)), ECONOMICS)
    return found


def usage_of(evaluations: Mapping[str, Evaluation]) -> dict[str, Usage]:
    """What each system of `COMPARED` used on the held-out rows that all of them answered."""
    systems = _compared(evaluations)
    found: dict[str, list[_RowUsage]] = {name: [] for name in systems}
    for evaluation in evaluations.values():
        positions = _answered_by_all(evaluation, systems)
        for name in systems:
            found[name] += _row_usage(evaluation.scored[name], positions)
    return {name: _usage(rows) for name, rows in found.items()}


def recorded_scores(evaluations: Mapping[str, Evaluation]) -> list[float | None]:
    """The score of the recorded answer to each row of `usage_of`; [] if there are no recorded answers."""
    system = next((name for name in RECORDED if any(name in each.scored for each in evaluations.values())), None)
    if system is None:
        return []
    systems = _compared(evaluations)
    return [score for each in evaluations.values() for score in _scores(each, system, _answered_by_all(each, systems))]


def _scores(evaluation: Evaluation, system: str, positions: Sequence[int]) -> list[float | None]:
    scored = evaluation.scored.get(system)
    known = dict(zip(scored.positions, scored.scores, strict=True)) if scored else {}
    return [known.get(position) for position in positions]


def _compared(evaluations: Mapping[str, Evaluation]) -> list[str]:
    return [name for name in COMPARED if all(name in each.scored for each in evaluations.values())]


def _answered_by_all(evaluation: Evaluation, systems: Sequence[str]) -> list[int]:
    return sorted(set.intersection(*(set(evaluation.scored[name].positions) for name in systems)))


# Seconds, prompt tokens, completion tokens, score and batch of a row.
_RowUsage = tuple[float, int, int, float, str | None]


def _row_usage(scored: SystemResults, positions: Sequence[int]) -> list[_RowUsage]:
    """What was used for the rows at these positions."""
    used = zip(
        scored.seconds, scored.prompt_tokens, scored.completion_tokens, scored.scores, scored.batches, strict=True
    )
    rows = dict(zip(scored.positions, used, strict=True))
    return [rows[position] for position in positions]


def _usage(rows: Sequence[_RowUsage]) -> Usage:
    seconds, prompt, completion, scores, batches = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    return Usage(seconds, prompt, completion, scores, batches)


def machine_use(workspace: Workspace, now: datetime) -> MachineUse:
    """How busy the machine is: by `economics.utilisation`, else by the prediction log of the last month."""
    price, ratio = workspace.params.evaluate.dollars_per_hour, workspace.params.economics.utilisation
    if ratio is not None:
        return MachineUse(ratio, price, "setting")
    log = open_log(workspace.settings.prediction_log)
    try:
        found = utilisation(log, workspace.params.task.name, now, workspace.params.log.sample_rate, DAYS_PER_MONTH)
    finally:
        log.dispose()
    if found is None:
        return fully_used(price)
    return MachineUse(found.ratio, price, "measured", found.requests_per_day, found.days)


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
