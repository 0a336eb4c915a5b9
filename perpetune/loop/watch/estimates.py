"""The estimates of a check: of what the answers carry, and of what has to be asked for, within a budget."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import chain, zip_longest
from typing import Literal

from pydantic import SecretStr, TypeAdapter, ValidationError
from sqlalchemy import Engine

from perpetune.curation.text import fingerprint
from perpetune.engines.openai_api.tls import remote_tls
from perpetune.monitoring.estimated_accuracy import (
    LAST_LABELS,
    Estimator,
    ScoredRow,
    estimate_score,
    from_confidence,
    from_likelihood,
)
from perpetune.monitoring.estimates import judge
from perpetune.monitoring.estimates.measured import Answered, Measure, Measured, answered, lot
from perpetune.monitoring.estimates.self_consistency import agreements
from perpetune.monitoring.window import Window
from perpetune.params import JudgeParams, WatchParams
from perpetune.policy.estimated_accuracy import EstimatedFall
from perpetune.prediction_log.answers.values import add_cost, spent, store_values, values_of
from perpetune.prediction_log.database import open_log
from perpetune.records import Prediction, RecordedAnswer, conversation
from perpetune.runtime.gateway_client import NoGateway, gateway_of
from perpetune.tracking import registry
from perpetune.tracking.registry import Version
from perpetune.workspace import Workspace

ROWS = 100  # of the reference, and of the window, that are asked about; twice `watch.min_rows` if that is more
JUDGE, CONSISTENCY = "perpetune.estimate.judge", "perpetune.estimate.self-consistency"
Asked = Literal["judge", "self-consistency"]
TAGS: Mapping[Asked, str] = {"judge": JUDGE, "self-consistency": CONSISTENCY}


@dataclass(frozen=True)
class Estimates:
    """All estimates of a check, and sentences on what could not be asked for."""

    found: tuple[EstimatedFall, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReferenceValues:
    """What was measured of the champion's answers to reference rows, by a digest of row and answer; None without a value.

    It has no ids and no texts, because a tag of the version keeps it. `settings` is a digest of those of the method.
    """

    settings: str
    values: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class _Method:
    """A way to measure answers, with a digest of its settings."""

    name: Asked
    settings: str
    measure: Measure


@dataclass(frozen=True)
class _Rows:
    """What may be asked about: reference rows with their scores, new answers by lot, and labelled ones, newest first."""

    reference: Sequence[tuple[Answered, float]]
    newest: Sequence[Answered]
    labelled: Sequence[Answered]


def estimates(
    workspace: Workspace,
    champion: Version,
    window: Window,
    reference: Sequence[RecordedAnswer],
    labelled: Sequence[ScoredRow],
    now: datetime,
    watch: WatchParams,
) -> Estimates:
    """Estimate the window's score in every way that the task and its settings allow; `watch` has the margin of the fall."""
    predictions = window.predictions
    by_cost = workspace.params.promote.costs is not None
    of_confidence = from_confidence(predictions, reference, is_probability=not by_cost)
    estimators = [of_confidence, from_likelihood(predictions, reference)]
    newest_labels = [answered(each.row) for each in reversed(labelled[-LAST_LABELS:])]
    count = max(ROWS, 2 * workspace.params.watch.min_rows)  # half may be unreadable
    rows = _Rows(_reference(window, reference, count), lot(map(answered, predictions), count), newest_labels)
    notes: list[str] = []
    log = open_log(workspace.settings.prediction_log)
    try:
        for method in _methods(workspace, champion, window):
            estimator, fault = _measured(workspace, champion, method, rows, log, now)
            estimators.append(estimator)
            if fault is not None:
                notes.append(f"{method.name.capitalize()}: not all answers could be asked about: {fault}.")
    finally:
        log.dispose()
    found = (estimate_score(each, labelled, watch) for each in estimators)
    return Estimates(tuple(each for each in found if each is not None), tuple(notes))


def _methods(workspace: Workspace, champion: Version, window: Window) -> Iterable[_Method]:
    params, task = workspace.params.estimate, workspace.params.task
    if params.judge is not None:
        yield _judge(workspace, params.judge, task.instruction)
    if params.samples and task.kind == "generation":
        yield _self_consistency(workspace, champion, window, params.samples, params.temperature)


def _judge(workspace: Workspace, settings: JudgeParams, instruction: str) -> _Method:
    key = os.environ.get(settings.key_variable)

    def measure(answers: Sequence[Answered]) -> Measured:
        tls = remote_tls(workspace.settings)
        return judge.grades(answers, instruction, settings, SecretStr(key) if key else None, tls)

    return _Method("judge", _digest(settings.url, settings.model, settings.rubric, instruction), measure)


def _self_consistency(
    workspace: Workspace, champion: Version, window: Window, samples: int, temperature: float
) -> _Method:
    def measure(answers: Sequence[Answered]) -> Measured:
        try:
            gateway = gateway_of(workspace)
        except NoGateway:
            return Measured((), fault="no gateway runs")
        return agreements(answers, gateway, champion.version, samples, temperature, window.score)

    return _Method("self-consistency", _digest(champion.version, samples, temperature), measure)


def _digest(*settings: object) -> str:
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]


def _measured(
    workspace: Workspace, champion: Version, method: _Method, rows: _Rows, log: Engine, now: datetime
) -> tuple[Estimator, str | None]:
    """Ask for values that are missing, as many as the budget allows; returns the estimator, and why asking stopped early."""
    before = reference_values(champion, method.name, method.settings)
    known = values_of(log, method.name, method.settings, [each.id for each in (*rows.newest, *rows.labelled)])
    # A small budget serves new answers and labelled ones alike; the reference comes first, without it there is no estimate.
    of_reference = [each for each, _ in rows.reference if _row_digest(each) not in before.values]
    missing = {each.id: each for each in _in_turn(rows.newest, rows.labelled) if each.id not in known}
    wanted = [*of_reference, *missing.values()]
    asked = wanted[: _budget(workspace, method, wanted, log, now)]
    done = method.measure(asked) if asked else Measured(())
    if done.requests:
        add_cost(log, champion.task, method.name, now, done.requests, done.dollars)
    measured = {**before.values, **dict(zip(map(_row_digest, of_reference), done.values, strict=False))}
    pairs = [
        (digest, measured[digest], score) for each, score in rows.reference if (digest := _row_digest(each)) in measured
    ]
    after = replace(before, values={digest: value for digest, value, _ in pairs})
    if after != before:
        _save(champion, method.name, after)
    asked_later, later = asked[len(of_reference) :], done.values[len(of_reference) :]
    new = dict(zip((each.id for each in asked_later), later, strict=False))
    store_values(log, method.name, method.settings, new)
    reference = [(value, score) for _, value, score in pairs]
    return _estimator(method.name, reference, rows.newest, known | new), done.fault


def _row_digest(row: Answered) -> str:
    return fingerprint("estimate", row.id, row.output)


def _reference(window: Window, reference: Sequence[RecordedAnswer], count: int) -> list[tuple[Answered, float]]:
    """The champion's recorded answers to reference rows by lot, with their scores; rows that are gone are left out."""
    examples = {row.id: row for row in window.reference}
    known = {row.id: row for row in reference if row.id in examples}
    drawn = lot((Answered(row.id, conversation("", examples[row.id]), row.output) for row in known.values()), count)
    return [(each, known[each.id].score) for each in drawn]


def _in_turn(first: Sequence[Answered], second: Sequence[Answered]) -> Iterable[Answered]:
    """One of each in turn, so that a small budget serves both."""
    return (each for each in chain.from_iterable(zip_longest(first, second)) if each is not None)


def _budget(workspace: Workspace, method: _Method, wanted: Sequence[Answered], log: Engine, now: datetime) -> int:
    """How many of the answers may be asked about now."""
    params, task = workspace.params.estimate, workspace.params.task
    month = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    used = spent(log, task.name, method.name, now - timedelta(days=1), month)
    left = max(0, params.requests_per_day - used.requests)
    if method.name != "judge" or params.judge is None or params.judge.dollars_per_month is None:
        return left
    return judge.affordable(
        wanted[:left], task.instruction, params.judge, params.judge.dollars_per_month - used.dollars
    )


def _estimator(
    name: Asked,
    of_reference: Sequence[tuple[float | None, float]],
    newest: Sequence[Answered],
    known: Mapping[str, float | None],
) -> Estimator:
    def value(row: Prediction) -> float | None:
        return known.get(row.id)

    return Estimator(
        name,
        [found for each in newest if (found := known.get(each.id)) is not None],
        [(found, score) for found, score in of_reference if found is not None],
        value,
        unreadable=sum(found is None for found in [*known.values(), *(found for found, _ in of_reference)]),
    )


_VALUES = TypeAdapter(ReferenceValues)


def reference_values(champion: Version, method: Asked, settings: str) -> ReferenceValues:
    """What the version's tag has; none if it was measured with other settings."""
    try:
        found = _VALUES.validate_json(champion.tags.get(TAGS[method], ""))
    except ValidationError:
        return ReferenceValues(settings)
    return found if found.settings == settings else ReferenceValues(settings)


def _save(champion: Version, method: Asked, values: ReferenceValues) -> None:
    registry.tag_version(champion.task, champion.version, {TAGS[method]: _VALUES.dump_json(values).decode()})
