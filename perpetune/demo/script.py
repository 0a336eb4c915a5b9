"""The demo's plot: what happens, in which order, told as it happens."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from perpetune.curation.ingest import ingest
from perpetune.curation.layout import INBOX
from perpetune.demo.application import Application, SentRequest
from perpetune.demo.data import DemoData, prepare
from perpetune.errors import PerpetuneError
from perpetune.records import Example
from perpetune.runtime.prefect_api import FlowRun, Prefect
from perpetune.runtime.processes import Supervisor, answers, free_ports
from perpetune.runtime.stack import Ports, environment, gateway, servers, worker
from perpetune.settings import Settings
from perpetune.workspace import Workspace

STABLE_REQUESTS = 100
UNLABELLED = 100
LATE = 200
ROUNDS_AT_MOST = 3
AFTERWARDS = 100
TRICKLE_SECONDS = 2.0
AUTOMATION_SECONDS = 90.0
READY_SECONDS = 60.0


@dataclass(frozen=True)
class CheckSummary:
    """One look of the monitor: after how many requests, what it decided, whether inputs had drifted."""

    requests: int
    outcome: str
    reason: str
    inputs_drifted: bool
    run: FlowRun
    mlflow: str


@dataclass
class DemoRecord:
    """What has happened so far."""

    began: float = field(default_factory=time.time)
    turned_at: int = 0
    checks: list[CheckSummary] = field(default_factory=list)
    refreshes: list[FlowRun] = field(default_factory=list)
    swap_at: int | None = None
    stages: list[tuple[str, float]] = field(default_factory=list)


def tell(assets: Path, folder: Path, *, keep: bool, console: Console) -> dict[str, object]:
    """Run the demo, write `report.html` into its folder and return the summary.

    Raises PerpetuneError where a part of the loop fails. A loop that does not help is no failure: the
    report says so.
    """
    from perpetune.demo.report import write_report
    from perpetune.demo.summary import summarise

    story = DemoRecord()
    with _stage(story, console, "lay out the folder and the reviews"):
        scene = prepare(assets, folder)
        brought = ingest(scene.curated, folder / INBOX)
        console.print(
            f"  {brought.examples} rated sentences of product reviews ingested; demo folder: {folder}", markup=False
        )
    ports = Ports(*free_ports(4))
    variables = environment(scene.workspace, ports)
    os.environ.update(variables)
    with Supervisor(
        folder, scene.workspace.home / "logs", variables, lambda line: console.print(line, style="yellow")
    ) as supervisor:
        with _stage(story, console, "start Prefect, MLflow, the worker and the gateway"):
            supervisor.start(servers(scene.workspace, ports))
            supervisor.start([worker(ports.worker), gateway(ports.gateway)])
            for child in supervisor.children:
                console.print(f"  {child.service.name:8} {child.service.page or ''}", markup=False, soft_wrap=True)
        scene = DemoData(
            Workspace(folder, scene.workspace.params, Settings()), scene.curated, scene.stable, scene.turned
        )
        settings = scene.workspace.settings
        application = Application(
            str(settings.gateway_url), scene.workspace.params.task.name, headers=settings.gateway_headers
        )
        _play(story, scene, application, console)
        story.swap_at = _swap(application.asked)
        with _stage(story, console, "let the first champion answer the same stream, and write the report"):
            summary = summarise(scene.workspace, story, application.asked)
            page = write_report(folder / "report.html", scene.workspace, summary)
        _show(summary, page, console)
        if keep:
            _keep(console)
    console.print(
        f"To open the pages of this demo again: cd {os.path.relpath(folder)} && perpetune up "
        f"--prefect-port {ports.prefect} --mlflow-port {ports.mlflow} --gateway-port {ports.gateway}",
        markup=False,
        soft_wrap=True,
    )
    return asdict(summary)


def _play(story: DemoRecord, scene: DemoData, application: Application, console: Console) -> None:
    prefect = Prefect(str(scene.workspace.settings.prefect_api_url))
    turned = iter(scene.turned)
    with _stage(story, console, "refresh: curate, fine-tune, evaluate, decide, release the first champion"):
        story.refreshes.append(_refresh(prefect, scene, console))
        _await_gateway(scene)
    with _stage(story, console, f"{STABLE_REQUESTS} requests about products; their labels arrive; the monitor looks"):
        application.label(_tell_asked(application.send(scene.stable[:STABLE_REQUESTS]), console))
        _look(story, prefect, scene, application, console)
    story.turned_at = len(application.asked)
    before = {run.id for run in prefect.runs_of(_deployment("refresh", scene))}
    with _stage(
        story, console, f"the stream turns to films and to what is no review: {UNLABELLED} requests, no labels yet"
    ):
        waiting = _tell_asked(application.send(_next(turned, UNLABELLED)), console)
        _look(story, prefect, scene, application, console)
    with _stage(story, console, "more of these requests; the labels of all arrive; the monitor looks"):
        for _ in range(ROUNDS_AT_MOST):
            waiting += _tell_asked(application.send(_next(turned, LATE)), console)
            application.label(waiting)
            waiting = []
            if _look(story, prefect, scene, application, console).outcome == "retrain":
                break
        else:
            console.print("  the monitor saw no decay in all of it")
            return
    with _stage(story, console, "the automation starts a refresh on old and newly labelled data, while requests go on"):
        with application.trickle(turned, TRICKLE_SECONDS) as so_far:
            run = _automated(prefect, scene, before)
            console.print(f"  {run.name}: {run.url}", markup=False, soft_wrap=True)
            story.refreshes.append(
                prefect.follow(run, lambda line: console.print(f"  {line}", markup=False, soft_wrap=True))
            )
            asked = so_far()
            console.print(f"  {len(asked)} requests meanwhile, {sum(one.answer is None for one in asked)} failed")
    with _stage(story, console, f"{AFTERWARDS} more of these requests; their labels arrive; the monitor looks"):
        application.label(_tell_asked(application.send(_next(turned, AFTERWARDS)), console))
        _look(story, prefect, scene, application, console)


def _refresh(prefect: Prefect, scene: DemoData, console: Console) -> FlowRun:
    run = prefect.start(_deployment("refresh", scene), {"trigger": "manual", "reason": "the first model"})
    console.print(f"  {run.name}: {run.url}", markup=False, soft_wrap=True)
    ended = prefect.follow(run, lambda line: console.print(f"  {line}", markup=False, soft_wrap=True))
    if fault := ended.fault():
        raise fault
    return ended


def _await_gateway(scene: DemoData) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not answers(f"{scene.workspace.settings.gateway_url}/readyz"):
        if time.monotonic() > deadline:
            raise PerpetuneError(
                "the gateway serves no champion", do=f"read {scene.workspace.home / 'logs/gateway.log'}"
            )
        time.sleep(0.5)


def _look(
    story: DemoRecord, prefect: Prefect, scene: DemoData, application: Application, console: Console
) -> CheckSummary:
    """Run the watch deployment, as the hourly schedule would."""
    from perpetune.explain.status import newest_decision

    run = prefect.start(_deployment("watch", scene), {"trigger": "manual"})
    ended = prefect.follow(run, lambda line: None)
    if fault := ended.fault():
        raise fault
    decision, page = newest_decision(scene.workspace, "watch")
    drift = decision.evidence.get("drift") or {}
    check = CheckSummary(
        len(application.asked), decision.outcome, decision.reason, bool(drift.get("inputs_drifted")), ended, page
    )
    story.checks.append(check)
    console.print(f"  the monitor: {check.outcome}. {' '.join(decision.reasons)}", markup=False, soft_wrap=True)
    return check


def _next(examples: Iterator[Example], count: int) -> list[Example]:
    return [example for _, example in zip(range(count), examples, strict=False)]


def _automated(prefect: Prefect, scene: DemoData, before: set[str]) -> FlowRun:
    """The refresh that Prefect's automation has started."""
    deadline = time.monotonic() + AUTOMATION_SECONDS
    while time.monotonic() < deadline:
        for run in prefect.runs_of(_deployment("refresh", scene)):
            if run.id not in before:
                return run
        time.sleep(1)
    raise PerpetuneError(
        f"the automation started no refresh within {AUTOMATION_SECONDS:.0f} s",
        do="look at Automations in Prefect's page",
    )


def _swap(asked: Sequence[SentRequest]) -> int | None:
    """How many requests were asked before the first one that a later version answered."""
    first = next((one.version for one in asked if one.version), None)
    return next((position for position, one in enumerate(asked) if one.version not in ("", first)), None)


def _tell_asked(asked: list[SentRequest], console: Console) -> list[SentRequest]:
    right = sum(one.answer == one.example.output for one in asked)
    seconds = max(one.time + one.seconds for one in asked) - min(one.time for one in asked)
    failed = sum(one.answer is None for one in asked)
    console.print(
        f"  {len(asked)} requests in {seconds:.0f} s, {failed} failed, {right / len(asked):.1%} right", markup=False
    )
    return asked


def _deployment(flow: str, scene: DemoData) -> str:
    return f"{flow}/{scene.workspace.params.task.name}"


@contextmanager
def _stage(story: DemoRecord, console: Console, title: str) -> Iterator[None]:
    began = time.time()
    clock = time.strftime("%M:%S", time.gmtime(began - story.began))
    console.print(f"[bold]{clock}[/] {escape(title)}", soft_wrap=True)
    yield
    story.stages.append((title, time.time() - began))


def _show(summary: object, page: Path, console: Console) -> None:
    from perpetune.demo.summary import Summary

    assert isinstance(summary, Summary)
    table = Table(title="what happened", show_header=False)
    for name, value in summary.lines():
        table.add_row(name, value)
    console.print(table)
    console.print(summary.verdict, style="bold", markup=False, soft_wrap=True)
    console.print(f"report: {page}", markup=False, soft_wrap=True)


def _keep(console: Console) -> None:
    console.print("the services run on; Ctrl-C stops them")
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        console.print("stopping")
