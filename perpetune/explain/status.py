"""The status of a task, from the registry, the runs, the gateway and the prediction log."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from pathlib import Path
from typing import TypeVar

from cronsim import CronSim, CronSimError

from perpetune.errors import NoDecision, PerpetuneError
from perpetune.explain.month_costs import MonthCosts, month_costs, month_start
from perpetune.loop.approve import PendingApproval, pending_approvals
from perpetune.loop.label_rule import label_rule_at_hand, label_rule_of_rows
from perpetune.loop.planning.unfinished import unfinished_refresh
from perpetune.loop.rollout.versions import NEWEST, system_of
from perpetune.loop.run_context import LATER, RECORD, Kind, use_mlflow
from perpetune.loop.watch.refresh_history import device_hours_since
from perpetune.monitoring.detector_state import DETECTOR, from_text
from perpetune.policy.decision.headline import finds_decay, headline
from perpetune.policy.decision.hosted import hosted_in
from perpetune.policy.decision.next_step import next_step, next_steps
from perpetune.policy.decision.record import Decision
from perpetune.policy.estimated_accuracy import estimate_line, estimates_in
from perpetune.policy.wording import amount, one_line
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.summary import LogSummary, log_summary, worked_seconds
from perpetune.records import parse_time
from perpetune.runtime.prefect_api import ui_url
from perpetune.runtime.service_state import ServiceState, not_running, service_states
from perpetune.statistics.sequential.change_point import most_likely_change
from perpetune.tracking import registry
from perpetune.tracking.alias_moves import complete_move
from perpetune.tracking.registry import Version
from perpetune.tracking.runs import (
    ERROR,
    EndedRun,
    MlflowError,
    artifact,
    artifact_names,
    newest_ended,
    newest_run,
    runs_url,
)
from perpetune.workspace import Workspace

WATCH = "`perpetune watch`"
NOT_RUNNING = "not running"
MLFLOW, LOG = "MLflow", "log"  # parts that may be unknown
MOST_MISSED = 100  # missed checks that are counted
_OF_UNASKED = " labels came unasked and "  # in the reasons of a check: see perpetune.policy.ignorable
Part = TypeVar("Part")


@dataclass(frozen=True)
class VersionLine:
    """One version: aliases, last decision with its reason, release state ("" before a release).

    `system` is how it answers: tuned, prompted base or linear model; `verdict` is the decision in one line.
    """

    version: str
    aliases: tuple[str, ...]
    decision: str
    reason: str
    data_version: str
    release: str = ""
    system: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Status:
    """The state of one task. `serving` is None if no gateway answers; `open_label_requests` counts the labels that
    were requested and are not known yet, `urgent_labels` those that a suspected decay waits for. `versions` are the newest
    and those with an alias; `has_older_versions`: there are more. `check_failed`: the newest check ended without a verdict, and
    `last_check` says why; `checks_missed` counts the checks that `watch.cron` has planned since it and that did not run.
    `unfinished` is a decision of a refresh that is not carried out.

    `labels` counts labels by how their request was chosen; `unasked` is what the last check said of those that came
    unasked, `estimates` what it estimated without labels, with the error on labels: the one that may decide first. `hosted` compares what serves since the newest refresh with the hosted model's recorded answers, if there are
    any. `next_step` is the command to run next, if any; `next_steps` says it in sentences. `planned` are the next check and
    refresh; `alarms` are sentences on what is wrong or waits for a person; `unknown` says which parts could not be read, and why.
    """

    task: str
    serving: str | None
    versions: tuple[VersionLine, ...]
    last_check: str | None
    predictions: int
    labelled: int
    open_label_requests: int
    addresses: dict[str, str]
    ignored_labels: int = 0
    labels: Mapping[str, int] = field(default_factory=dict)
    unasked: str | None = None
    estimates: tuple[str, ...] = ()
    detector_state: str | None = None
    check_failed: bool = False
    checks_missed: int = 0
    unfinished: str | None = None
    next_steps: tuple[str, ...] = ()
    next_step: str | None = None
    has_older_versions: bool = False
    hosted: str | None = None
    urgent_labels: int = 0
    requests_per_day: float | None = None
    champion: str | None = None
    champion_since: datetime | None = None
    planned: Mapping[str, datetime] = field(default_factory=dict)
    alarms: tuple[str, ...] = ()
    services: tuple[ServiceState, ...] = ()
    costs: MonthCosts | None = None
    unknown: tuple[str, ...] = ()
    time: datetime | None = None

    def is_unknown(self, part: str) -> bool:
        """Whether a part (`MLFLOW` or `LOG`) could not be read."""
        return any(each.startswith(f"{part}:") for each in self.unknown)

    @property
    def system(self) -> str | None:
        """The system of the serving version."""
        return next((line.system for line in self.versions if line.version == self.serving), None)


def read_status(workspace: Workspace, *, all_versions: bool = False) -> Status:
    """Read the services, the prediction log and MLflow. What does not answer is named in `unknown`."""
    now, task = datetime.now(UTC), workspace.params.task.name
    services = service_states(workspace)
    mlflow = next(each for each in services if each.name == MLFLOW)
    known, fault = _or_fault(lambda: _read_registry(workspace, mlflow, now, all_versions))
    registry_part = known or _Registry()
    month, log_fault = _or_fault(lambda: _read_log(workspace, now, with_mlflow=known is not None))
    log = month or _Log()
    settings = workspace.settings
    return Status(
        task=task,
        time=now,
        serving=next((each.serving for each in services if each.serving is not None), None),
        services=services,
        predictions=log.found.predictions,
        labelled=log.found.labelled,
        ignored_labels=log.found.ignored,
        labels=log.found.labels,
        open_label_requests=log.found.open_requests,
        urgent_labels=log.found.urgent,
        requests_per_day=_per_day(log.found, workspace.params.log.sample_rate, now),
        costs=month_costs(
            workspace.params,
            now,
            (log.found.first, log.worked_seconds) if month else None,
            registry_part.training_hours,
        ),
        planned=_planned(workspace, now),
        alarms=_alarms(registry_part, log.found),
        unknown=tuple(f"{name}: {each}" for name, each in ((MLFLOW, fault), (LOG, log_fault)) if each),
        versions=registry_part.versions,
        has_older_versions=registry_part.has_older,
        champion=registry_part.champion,
        champion_since=registry_part.champion_since,
        next_steps=registry_part.steps,
        next_step=registry_part.step,
        last_check=registry_part.check.text if registry_part.check else None,
        check_failed=registry_part.check is not None and registry_part.check.failed,
        checks_missed=registry_part.missed,
        unasked=registry_part.check.unasked if registry_part.check else None,
        estimates=registry_part.check.estimates if registry_part.check else (),
        unfinished=registry_part.unfinished,
        detector_state=registry_part.detector_state,
        hosted=registry_part.hosted,
        addresses={
            "MLflow": runs_url(task) if known else settings.mlflow_tracking_uri or NOT_RUNNING,
            "Prefect": ui_url(settings.prefect_api_url) if settings.prefect_api_url else NOT_RUNNING,
            "gateway": settings.gateway_url or NOT_RUNNING,
        },
    )


def _or_fault(read: Callable[[], Part]) -> tuple[Part | None, str | None]:
    """What was read, or why it could not be."""
    try:
        return read(), None
    except (PerpetuneError, MlflowError) as fault:
        return None, str(fault)


@dataclass(frozen=True)
class _Check:
    """The newest check that has ended: when, its verdict or its error, and whether it failed.

    `unasked` is what it said of labels that came unasked, `estimates` what it estimated without labels; `decay` is the outcome of its decision if it found decay.
    """

    ended: datetime
    text: str
    failed: bool
    decay: str | None = None
    unasked: str | None = None
    estimates: tuple[str, ...] = ()


def _last_check(run: EndedRun | None, decision: Decision | None) -> _Check | None:
    """The check of a run, and its decision if it made one."""
    if run is None:
        return None
    ended = datetime.fromtimestamp(run.ended, UTC)
    if not run.succeeded:
        error = run.tags.get(ERROR, "it was killed")
        return _Check(ended, f"{ended:%Y-%m-%d %H:%M UTC}: failed, so nothing is known of decay: {error}", failed=True)
    if decision is None:
        return _Check(ended, "nothing to check yet", failed=False)
    unasked = next((reason for reason in decision.reasons if _OF_UNASKED in reason), None)
    text = f"{decision.time:%Y-%m-%d %H:%M %Z}: {headline(decision)}"
    return _Check(
        ended,
        text,
        failed=False,
        decay=decision.outcome if finds_decay(decision) else None,
        unasked=unasked,
        estimates=tuple(map(estimate_line, estimates_in(decision.evidence))),
    )


@dataclass(frozen=True)
class _Log:
    found: LogSummary = field(default_factory=LogSummary)
    worked_seconds: float = 0.0


def _read_log(workspace: Workspace, now: datetime, *, with_mlflow: bool) -> _Log:
    """The counts of the log, and the seconds that it worked this month, if those are what serving costs."""
    task, since = workspace.params.task.name, month_start(now)
    rule = label_rule_at_hand(workspace) if with_mlflow else label_rule_of_rows(workspace)
    log = open_log(workspace.settings.prediction_log)
    try:
        scales = workspace.params.economics.utilisation is not None
        worked = worked_seconds(log, task, since) / workspace.params.log.sample_rate if scales else 0.0
        return _Log(log_summary(log, task, since, rule), worked)
    finally:
        log.dispose()


def _per_day(found: LogSummary, sample_rate: float, now: datetime) -> float | None:
    """The requests a day of this month; None if it has none."""
    if found.first is None or now <= found.first:
        return None
    days = max((now - found.first) / timedelta(days=1), 1 / 24)
    return found.requests_since / sample_rate / days


@dataclass(frozen=True)
class _Registry:
    """What MLflow knows of the task."""

    versions: tuple[VersionLine, ...] = ()
    has_older: bool = False
    champion: str | None = None
    champion_since: datetime | None = None
    check: _Check | None = None
    missed: int = 0
    step: str | None = None
    steps: tuple[str, ...] = ()
    unfinished: str | None = None
    detector_state: str | None = None
    hosted: str | None = None
    training_hours: float | None = None
    waiting: tuple[PendingApproval, ...] = ()


def _read_registry(workspace: Workspace, mlflow: ServiceState, now: datetime, all_versions: bool) -> _Registry:
    """Raises PerpetuneError if MLflow does not answer; it is not asked again then, which would take minutes."""
    if not mlflow.up:
        where = f" at {mlflow.address}" if mlflow.address else ""
        raise PerpetuneError(f"the MLflow server {_is(mlflow.what)}{where}", do=mlflow.do)
    use_mlflow(workspace)
    task = workspace.params.task.name
    complete_move(task)  # a killed process may have left one
    aliases = registry.aliases_of(task)
    found, has_older = (registry.versions(task), False) if all_versions else registry.newest(task, NEWEST, aliases)
    lines = _versions(aliases, found)
    champion = next((each for each in found if "champion" in aliases.get(each.version, ())), None)
    ended = newest_ended(task, "watch")
    checked = _decision_in(ended.run_id) if ended and ended.succeeded else None
    check = _last_check(ended, checked)
    refreshed = _newest_decision(workspace, "refresh")
    latest = _latest(workspace, refreshed) if refreshed else None
    step, steps = _next_check() if check and check.failed else _next([latest, checked], lines)
    return _Registry(
        versions=lines,
        has_older=has_older,
        champion=champion.version if champion else None,
        champion_since=_since(champion),
        check=check,
        missed=_missed(workspace, check),
        step=step,
        steps=steps,
        unfinished=_unfinished(workspace),
        detector_state=_detector_state(workspace, champion),
        hosted=hosted_in(refreshed) if refreshed and lines else None,
        training_hours=device_hours_since(task, month_start(now).timestamp()),
        waiting=tuple(each for each in pending_approvals(workspace) if not each.approved),
    )


def _is(what: str) -> str:
    return f"is {what}" if what.startswith("not ") else what


def _since(champion: Version | None) -> datetime | None:
    """When the champion began to serve; None if its version does not say."""
    released = champion.tags.get(registry.TIME) if champion else None
    return parse_time(released) if released else None


def _alarms(found: _Registry, log: LogSummary) -> tuple[str, ...]:
    """What is wrong, and what waits for a person: the most urgent first."""
    check = found.check
    alarms = []
    if check is not None and check.failed:
        alarms.append("the last check failed, so nothing is known of decay")
    elif check is not None and check.decay and _is_after(check.ended, found.champion_since):
        alarms.append(f"decay: the last check says {check.decay}")
    if found.missed:
        alarms.append(f"checks missed since: {_counted(found.missed)}")
    if found.unfinished:
        alarms.append(f"decided and not carried out: {found.unfinished}")
    alarms += [
        f"version {each.version} waits for approval{_until(each.until)}: `perpetune approve {each.version}`, or with `--refuse`"
        for each in found.waiting
    ]
    if log.urgent:
        alarms.append(f"{log.urgent} labels are wanted urgently: `perpetune labels`")
    return tuple(alarms)


def _until(time: datetime | None) -> str:
    return f" until {time:%Y-%m-%d %H:%M UTC}" if time else ""


def _is_after(time: datetime, since: datetime | None) -> bool:
    """Whether a check was of the champion of now."""
    return since is None or time > since


def _planned(workspace: Workspace, now: datetime) -> dict[str, datetime]:
    """The next check and the next refresh by their schedules, in UTC; none if Prefect refuses the schedule."""
    crons = {"check": workspace.params.watch.cron, "refresh": workspace.params.refresh.cron}
    found = {}
    for name, cron in crons.items():
        with suppress(CronSimError, StopIteration):
            found[name] = next(CronSim(cron, now))
    return found


def without_temporary(status: Status) -> Status:
    """The status without servers that end with this command, or were not started for it."""
    ending = ("MLflow", "Prefect")
    services = tuple(not_running(each.name) if each.name in ending else each for each in status.services)
    addresses = {**status.addresses, **dict.fromkeys(ending, NOT_RUNNING)}
    return replace(status, addresses=addresses, services=services)


def _next_check() -> tuple[str | None, tuple[str, ...]]:
    return WATCH, (f"Correct the error of the check, then {WATCH}.",)


def _next(decisions: Sequence[Decision | None], versions: Sequence[VersionLine]) -> tuple[str | None, tuple[str, ...]]:
    """The command and the steps after the newest verdict, or how to get a serving version."""
    if not versions:
        return "`perpetune refresh`", ("`perpetune refresh` trains the first version.",)
    found = [each for each in decisions if each is not None]
    newest = max(found, key=lambda decision: decision.time) if found else None
    steps = next_steps(newest) if newest else ()
    if not any("champion" in line.aliases for line in versions) and not steps:
        command = f"`perpetune promote {versions[0].version} --reason '...'`, or `perpetune refresh`"
        return command, (f"No version serves: {command}.",)
    return next_step(newest) if newest else None, steps


def _newest_decision(workspace: Workspace, kind: Kind) -> Decision | None:
    try:
        return newest_decision(workspace, kind)[0]
    except NoDecision:
        return None


def _decision_in(run_id: str) -> Decision | None:
    try:
        return _read_decision(run_id)
    except NoDecision:
        return None


def _latest(workspace: Workspace, decision: Decision) -> Decision:
    """The last decision on the version of a refresh's decision."""
    version = decision.ids.model_version
    return decision if version is None else decisions_of(workspace, version)[0]


def _versions(aliases: Mapping[str, tuple[str, ...]], found: Sequence[Version]) -> tuple[VersionLine, ...]:
    return tuple(
        VersionLine(
            each.version,
            aliases.get(each.version, ()),
            each.tags.get("decision", "undecided"),
            each.tags.get("decision.reason", ""),
            each.tags.get("data.version", ""),
            _release(each.tags),
            system_of(each.tags),
            _verdict(each.tags),
        )
        for each in found
    )


def _verdict(tags: Mapping[str, str]) -> str:
    """As its line; a version from before lines were kept has its reason, cut."""
    decision, reason = tags.get("decision", "undecided"), tags.get("decision.reason", "")
    return tags.get("decision.line") or one_line(f"{decision}: {reason}" if reason else decision)


def _release(tags: Mapping[str, str]) -> str:
    state = tags.get("release.state", "")
    if state in ("canary", "shadow"):
        return f"{state}, {registry.traffic_ratio(tags):.0%}"
    return f"{state}: {tags['release.reason']}" if state == "refused" and "release.reason" in tags else state


def _unfinished(workspace: Workspace) -> str | None:
    """A refresh may be running, or waiting for a person; one that was killed is finished by the next."""
    found = unfinished_refresh(workspace)
    if found is None or found.settled:
        return None
    version = found.decision.ids.model_version
    return f"{found.outcome} version {version}; if no refresh is running, `perpetune refresh` carries it out"


def _missed(workspace: Workspace, check: _Check | None) -> int:
    """The checks planned since the last one, at most `MOST_MISSED`; one may be running now."""
    if check is None:
        return 0
    try:
        now, planned = datetime.now(UTC), CronSim(workspace.params.watch.cron, check.ended)
    except CronSimError:  # Prefect refuses such a schedule
        return 0
    due = takewhile(lambda moment: moment < now, islice(planned, MOST_MISSED + 1))
    return max(0, sum(1 for _ in due) - 1)


def _detector_state(workspace: Workspace, champion: Version | None) -> str | None:
    """The champion's evidence of decay against the alarm threshold."""
    if champion is None or DETECTOR not in champion.tags:
        return None
    detector_state, rules = from_text(champion.tags[DETECTOR]), workspace.params.watch
    if not detector_state.labels:
        return None
    change = most_likely_change(detector_state.detector, rules.margin)
    threshold = change.before.total / change.before.weight - change.margin
    return (
        f"{detector_state.labels} independent labels of version {champion.version}, threshold {100 * threshold:.1f}, evidence "
        f"{amount(change.evidence)} of {amount(rules.run_length)}"
    )


def newest_decision(workspace: Workspace, kind: Kind) -> tuple[Decision, str]:
    """The newest decision of this kind and the URL of its run. Raises PerpetuneError if there is none."""
    use_mlflow(workspace)
    found = newest_run(workspace.params.task.name, kind)
    if found is None:
        raise NoDecision(f"there has been no {kind} yet", do=f"run `perpetune {kind}`")
    run, _ = found
    return _read_decision(run.id), run.url


def decision_of(workspace: Workspace, kind: Kind, flow_run_id: str) -> Decision | None:
    """The final decision of a flow run, including a person's approval; None if it made no decision."""
    decision = _newest_decision(workspace, kind)
    if decision and kind == "refresh":
        decision = _latest(workspace, decision)
    return decision if decision and decision.ids.prefect_flow_run_id == flow_run_id else None


def decisions_of(workspace: Workspace, version: str) -> list[Decision]:
    """All decisions on a version, newest first. Raises PerpetuneError if there is none."""
    use_mlflow(workspace)
    run_id = registry.get(workspace.params.task.name, version).run_id
    later = [_read_decision(run_id, name) for name in artifact_names(run_id, LATER)]
    return [*reversed([each for each in later if each.ids.model_version == version]), _read_decision(run_id)]


def _read_decision(run_id: str, name: str = RECORD) -> Decision:
    with tempfile.TemporaryDirectory() as folder:
        path = artifact(run_id, name, Path(folder))
        if path is None:
            raise NoDecision(
                f"the run {run_id} has no decision record", do="check in MLflow whether it failed before its decision"
            )
        return Decision.from_json(path.read_text(encoding="utf-8"))


def _counted(missed: int) -> str:
    count = f"over {MOST_MISSED}" if missed >= MOST_MISSED else str(missed)
    return f"{count} of watch.cron: does a worker run (`perpetune up`)?"
