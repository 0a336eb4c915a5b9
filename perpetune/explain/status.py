"""The status of a task, from the registry, the runs, the gateway and the prediction log."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice, takewhile
from pathlib import Path

import httpx
from cronsim import CronSim, CronSimError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from perpetune.errors import NoDecision
from perpetune.loop.label_rule import label_rule
from perpetune.loop.rollout.versions import NEWEST, newest_versions, system_of
from perpetune.loop.run_context import LATER, RECORD, Kind, use_mlflow
from perpetune.loop.unasked_labels import unasked_labels
from perpetune.loop.unfinished import unfinished_refresh
from perpetune.monitoring.detector_state import DETECTOR, from_text
from perpetune.policy.decision.headline import headline
from perpetune.policy.decision.hosted import hosted_in
from perpetune.policy.decision.next_step import next_step, next_steps
from perpetune.policy.decision.record import Decision
from perpetune.policy.wording import amount, one_line
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.label_counts import counted, label_counts
from perpetune.prediction_log.label_requests import count_open
from perpetune.prediction_log.queries import counts
from perpetune.proxies import is_on_this_machine
from perpetune.runtime.prefect_api import ui_url
from perpetune.statistics.change_point import most_likely_change
from perpetune.tracking import registry
from perpetune.tracking.alias_moves import complete_move
from perpetune.tracking.runs import ERROR, artifact, artifact_names, newest_ended, newest_run, runs_url
from perpetune.workspace import Workspace

WATCH = "`perpetune watch`"
MOST_MISSED = 100  # missed checks that are counted
KINDS: tuple[Kind, ...] = ("refresh", "watch")


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
    were requested and are not known yet. `versions` are the newest and those with an alias; `older_versions` counts the
    rest. `check_failed`: the newest check ended without a verdict, and `last_check` says why; `checks_missed` counts the
    checks that `watch.cron` has planned since it and that did not run. `unfinished` is a decision of a refresh that is
    not carried out.

    `labels` counts labels by how their request was chosen; `unasked` says why those that came unasked decide, or why not.
    `hosted` compares what serves since the newest refresh with the hosted model's recorded answers, if there are any.
    `next_step` is the command to run next, if any; `next_steps` says it in sentences.
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
    unasked_decide: bool = False
    detector_state: str | None = None
    check_failed: bool = False
    checks_missed: int = 0
    unfinished: str | None = None
    next_steps: tuple[str, ...] = ()
    next_step: str | None = None
    older_versions: int = 0
    hosted: str | None = None

    @property
    def system(self) -> str | None:
        """The system of the serving version."""
        return next((line.system for line in self.versions if line.version == self.serving), None)


def read_status(workspace: Workspace, *, all_versions: bool = False) -> Status:
    """Read MLflow, the gateway and the prediction log. Raises PerpetuneError if MLflow is down."""
    use_mlflow(workspace)
    task = workspace.params.task.name
    complete_move(task)  # a killed process may have left one
    log = open_log(workspace.settings.prediction_log)
    try:
        rule = label_rule(workspace)
        found, open_label_requests = counts(log, task, rule), count_open(log, task, rule)
        labels, unasked = label_counts(log, task, rule), unasked_labels(workspace, log, rule)
    finally:
        log.dispose()
    settings = workspace.settings
    versions, older = _versions(task, None if all_versions else NEWEST)
    check = _last_check(workspace)
    step, steps = _next_check() if check and check.failed else _next(workspace, versions)
    return Status(
        task=task,
        serving=_serving(settings.gateway_url, task),
        versions=versions,
        older_versions=older,
        next_steps=steps,
        next_step=step,
        last_check=check.text if check else None,
        check_failed=check is not None and check.failed,
        checks_missed=_missed(workspace, check),
        unfinished=_unfinished(workspace),
        detector_state=_detector_state(workspace),
        predictions=found.predictions,
        labelled=found.labelled,
        ignored_labels=found.ignored,
        labels=labels,
        unasked=unasked.reason if unasked.unasked else None,
        unasked_decide=unasked.decides,
        open_label_requests=open_label_requests,
        hosted=_hosted(workspace) if versions else None,
        addresses={
            "MLflow": runs_url(task),
            "Prefect": ui_url(str(settings.prefect_api_url)),
            "gateway": settings.gateway_url or "not running",
        },
    )


def _next_check() -> tuple[str | None, tuple[str, ...]]:
    return WATCH, (f"Correct the error of the check, then {WATCH}.",)


def _next(workspace: Workspace, versions: Sequence[VersionLine]) -> tuple[str | None, tuple[str, ...]]:
    """The command and the steps after the newest verdict, or how to get a serving version."""
    if not versions:
        return "`perpetune refresh`", ("`perpetune refresh` trains the first version.",)
    found = [each for kind in KINDS if (each := _newest(workspace, kind)) is not None]
    newest = max(found, key=lambda decision: decision.time) if found else None
    steps = next_steps(newest) if newest else ()
    if not any("champion" in line.aliases for line in versions) and not steps:
        command = f"`perpetune promote {versions[0].version} --reason '...'`, or `perpetune refresh`"
        return command, (f"No version serves: {command}.",)
    return next_step(newest) if newest else None, steps


def _newest(workspace: Workspace, kind: Kind) -> Decision | None:
    try:
        decision, _ = newest_decision(workspace, kind)
    except NoDecision:
        return None
    version = decision.ids.model_version
    return decisions_of(workspace, version)[0] if kind == "refresh" and version is not None else decision


def _versions(task: str, count: int | None) -> tuple[tuple[VersionLine, ...], int]:
    """The newest versions, and how many are left out."""
    aliases, found = registry.aliases_of(task), registry.versions(task)
    shown = newest_versions(found, aliases, count)
    lines = tuple(
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
        for each in shown
    )
    return lines, len(found) - len(shown)


def _verdict(tags: Mapping[str, str]) -> str:
    """As its line; a version from before lines were kept has its reason, cut."""
    decision, reason = tags.get("decision", "undecided"), tags.get("decision.reason", "")
    return tags.get("decision.line") or one_line(f"{decision}: {reason}" if reason else decision)


def _release(tags: Mapping[str, str]) -> str:
    state = tags.get("release.state", "")
    if state in ("canary", "shadow"):
        return f"{state}, {registry.traffic_ratio(tags):.0%}"
    return f"{state}: {tags['release.reason']}" if state == "refused" and "release.reason" in tags else state


@dataclass(frozen=True)
class _Check:
    """The newest check that has ended: when, its verdict or its error, and whether it failed."""

    ended: datetime
    text: str
    failed: bool


def _last_check(workspace: Workspace) -> _Check | None:
    """None if there has been none."""
    run = newest_ended(workspace.params.task.name, "watch")
    if run is None:
        return None
    ended = datetime.fromtimestamp(run.ended, UTC)
    if not run.succeeded:
        error = run.tags.get(ERROR, "it was killed")
        return _Check(ended, f"{ended:%Y-%m-%d %H:%M UTC}: failed, so nothing is known of decay: {error}", failed=True)
    decision = _newest(workspace, "watch")
    text = f"{decision.time:%Y-%m-%d %H:%M %Z}: {headline(decision)}" if decision else "nothing to check yet"
    return _Check(ended, text, failed=False)


def _hosted(workspace: Workspace) -> str | None:
    try:
        return hosted_in(newest_decision(workspace, "refresh")[0])
    except NoDecision:
        return None


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


def _detector_state(workspace: Workspace) -> str | None:
    """The champion's evidence of decay against the alarm threshold."""
    champion = registry.find(workspace.params.task.name, "champion")
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


def _serving(gateway: str | None, task: str) -> str | None:
    """The version that the gateway serves; None if there is no gateway or it serves another task."""
    if gateway is None:
        return None
    try:
        state = httpx.get(f"{gateway}/readyz", timeout=5, trust_env=not is_on_this_machine(gateway)).json()
    except (httpx.HTTPError, ValueError):  # another server listens there, or a proxy without the gateway
        return None
    if not isinstance(state, dict) or state.get("task", task) != task or state.get("serving") is None:
        return None
    return str(state["serving"])


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
    decision = _newest(workspace, kind)
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


def show_status(status: Status, console: Console, *, verbose: bool = False) -> None:
    """Print the status as a table; with `verbose` the reason of each decision, and all next steps."""
    table = Table("version", "aliases", "system", "release", "verdict", title=f"{status.task}: {_serving_text(status)}")
    for line in status.versions:
        verdict = f"{line.decision}: {line.reason}" if verbose and line.reason else line.verdict
        table.add_row(line.version, ", ".join(line.aliases), line.system, line.release, escape(verdict))
    console.print(table)
    if status.older_versions:
        console.print(f"older versions: {status.older_versions}, see `perpetune status --all`", markup=False)
    if status.hosted:
        console.print(status.hosted, markup=False, soft_wrap=True)
    console.print(f"log: {status.predictions} predictions, {status.labelled} labelled", markup=False)
    if status.labels:
        console.print(f"labels: {_labels_text(status)}", markup=False, soft_wrap=True)
    if status.ignored_labels:
        console.print(f"labels that are not the task's, ignored: {status.ignored_labels}", markup=False)
    if status.unfinished:
        console.print(f"decided and not carried out: {status.unfinished}", markup=False, soft_wrap=True)
    if status.open_label_requests:
        console.print(f"label requests: {status.open_label_requests} open, see `perpetune labels`", markup=False)
    style = "bold red" if status.check_failed else None
    console.print(f"last check: {status.last_check or 'none yet'}", markup=False, soft_wrap=True, style=style)
    if status.checks_missed:
        console.print(f"checks missed since: {_counted(status.checks_missed)}", markup=False, style="bold red")
    console.print(f"decay detector: {status.detector_state or 'no labels yet'}", markup=False, soft_wrap=True)
    short = () if status.next_step is None else (status.next_step,)
    for step in status.next_steps if verbose else short:
        console.print(f"next: {step}", markup=False)
    for name, address in status.addresses.items():
        console.print(f"{name}: {address}", markup=False)


def _labels_text(status: Status) -> str:
    """As "45 by lot, 30 unasked, which decide nothing: they score 12 points lower than labels by lot"."""
    why = ""
    if status.unasked and "unasked" in status.labels:
        why = f", which {'count' if status.unasked_decide else 'decide nothing'}: {status.unasked}"
    return counted(dict(status.labels)) + why


def _counted(missed: int) -> str:
    count = f"over {MOST_MISSED}" if missed >= MOST_MISSED else str(missed)
    return f"{count} of watch.cron: does a worker run (`perpetune up`)?"


def _serving_text(status: Status) -> str:
    if status.serving is None:
        return "no version is serving"
    return f"serving version {status.serving}" + (f", {status.system}" if status.system else "")
