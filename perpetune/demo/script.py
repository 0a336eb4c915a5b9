"""The demo: what happens, in which order, and a line for each stage as it happens."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from perpetune.curation.ingest import ingest
from perpetune.curation.running.layout import INBOX
from perpetune.demo.application import Application, SentRequest
from perpetune.demo.data import DemoData, prepare
from perpetune.demo.record import CheckSummary, DemoRecord
from perpetune.demo.stages import Stage, Stages
from perpetune.errors import PerpetuneError
from perpetune.policy.decision.headline import headline
from perpetune.records import Example
from perpetune.runtime.prefect_api import FlowRun, Prefect
from perpetune.runtime.processes.supervisor import Supervisor, answers, free_ports
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
class Scene:
    """What the stages of the demo share."""

    data: DemoData
    prefect: Prefect
    application: Application
    record: DemoRecord
    stages: Stages


def tell(assets: Path, folder: Path, *, keep: bool, console: Console) -> dict[str, object]:
    """Run the demo, write `report.html` and `demo.json` into its folder and return the summary.

    Raises PerpetuneError if a part of the loop fails. A loop that does not help is no failure: the
    report says so.
    """
    from perpetune.demo.report import write_report
    from perpetune.demo.saved import save_summary
    from perpetune.demo.summary import summarise

    story = DemoRecord()
    stages = Stages(console, story.began, story.stages)
    with stages.stage("folder and examples") as stage:
        data = prepare(assets, folder)
        brought = ingest(data.curated, folder / INBOX)
        stage.came(f"{brought.examples} rated sentences of product reviews in {folder}")
    ports = Ports(*free_ports(4))
    variables = environment(data.workspace, ports)
    os.environ.update(variables)
    with Supervisor(
        folder, data.workspace.home / "logs", variables, lambda line: console.print(line, style="yellow")
    ) as supervisor:
        with stages.stage("services") as stage:
            supervisor.start(servers(data.workspace, ports))
            supervisor.start([worker(ports.worker), gateway(ports.gateway)])
            pages = [f"{child.service.name} {page}" for child in supervisor.children if (page := child.service.page)]
            stage.came(", ".join(pages))
        data = DemoData(Workspace(folder, data.workspace.params, Settings()), data.curated, data.stable, data.turned)
        settings = data.workspace.settings
        application = Application(
            str(settings.gateway_url), data.workspace.params.task.name, headers=settings.gateway_headers
        )
        _play(Scene(data, Prefect(str(settings.prefect_api_url)), application, story, stages))
        story.swap_at = _swap(application.asked)
        with stages.stage("the first champion answers the same requests, for comparison"):
            summary = summarise(data.workspace, story, application.asked)
            report = write_report(folder / "report.html", data.workspace, summary)
            save_summary(folder, summary)
        _show(summary, report, console)
        if keep:
            _keep(console)
    console.print(
        f"open its pages again: cd {os.path.relpath(folder)} && perpetune up "
        f"--prefect-port {ports.prefect} --mlflow-port {ports.mlflow} --gateway-port {ports.gateway}",
        markup=False,
        soft_wrap=True,
    )
    return asdict(summary)


def _play(scene: Scene) -> None:
    story, application, stages = scene.record, scene.application, scene.stages
    turned = iter(scene.data.turned)
    with stages.stage("first refresh") as stage:
        run = scene.prefect.start(_deployment("refresh", scene), {"trigger": "manual", "reason": "the first model"})
        _follow(scene, run, stage)
        _await_gateway(scene.data)
    with stages.stage(f"{STABLE_REQUESTS} requests about products, labelled") as stage:
        application.label(_told(application.send(scene.data.stable[:STABLE_REQUESTS]), stage))
        _check(scene, stage)
    story.turned_at = len(application.asked)
    before = {run.id for run in scene.prefect.runs_of(_deployment("refresh", scene))}
    with stages.stage(f"{UNLABELLED} requests about films and news, no labels yet") as stage:
        waiting = _told(application.send(_next(turned, UNLABELLED)), stage, labelled=False)
        _check(scene, stage)
    if not _decays(scene, turned, waiting):
        return
    with stages.stage("refresh by Prefect's automation, requests go on") as stage:
        with application.trickle(turned, TRICKLE_SECONDS) as so_far:
            _follow(scene, _automated(scene, before), stage)
            asked = so_far()
            stage.came(f"{len(asked)} requests meanwhile, {sum(one.answer is None for one in asked)} failed")
    with stages.stage(f"{AFTERWARDS} more requests, labelled") as stage:
        application.label(_told(application.send(_next(turned, AFTERWARDS)), stage))
        _check(scene, stage)


def _decays(scene: Scene, turned: Iterator[Example], waiting: list[SentRequest]) -> bool:
    """Whether the monitor finds decay in more of the new requests, now that labels arrive."""
    for _ in range(ROUNDS_AT_MOST):
        with scene.stages.stage(f"{LATE} more, all labelled") as stage:
            waiting += _told(scene.application.send(_next(turned, LATE)), stage)
            scene.application.label(waiting)
            waiting = []
            if _check(scene, stage).outcome == "retrain":
                return True
    return False


def _follow(scene: Scene, run: FlowRun, stage: Stage) -> None:
    """Wait until a refresh has ended, and tell its verdict."""
    from perpetune.explain.status import decision_of

    ended = scene.prefect.follow(run, stage.show)
    scene.record.refreshes.append(ended)
    if fault := ended.fault():
        raise fault
    decision = decision_of(scene.data.workspace, "refresh", run.id)
    stage.came(headline(decision) if decision else "no verdict")


def _await_gateway(data: DemoData) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not answers(f"{data.workspace.settings.gateway_url}/readyz"):
        if time.monotonic() > deadline:
            raise PerpetuneError(
                "the gateway serves no champion", do=f"read {data.workspace.home / 'logs/gateway.log'}"
            )
        time.sleep(0.5)


def _check(scene: Scene, stage: Stage) -> CheckSummary:
    """Run the watch deployment, as the hourly schedule would."""
    from perpetune.explain.status import newest_decision

    run = scene.prefect.start(_deployment("watch", scene), {"trigger": "manual"})
    ended = scene.prefect.follow(run, stage.show)
    if fault := ended.fault():
        raise fault
    decision, page = newest_decision(scene.data.workspace, "watch")
    drift = decision.evidence.get("drift") or {}
    check = CheckSummary(
        requests=len(scene.application.asked),
        outcome=decision.outcome,
        reason=decision.reason,
        inputs_drifted=bool(drift.get("inputs_drifted")),
        run=ended,
        mlflow=page,
        line=headline(decision),
    )
    scene.record.checks.append(check)
    stage.came(check.line)
    return check


def _next(examples: Iterator[Example], count: int) -> list[Example]:
    return [example for _, example in zip(range(count), examples, strict=False)]


def _automated(scene: Scene, before: set[str]) -> FlowRun:
    """The refresh that Prefect's automation has started."""
    deadline = time.monotonic() + AUTOMATION_SECONDS
    while time.monotonic() < deadline:
        for run in scene.prefect.runs_of(_deployment("refresh", scene)):
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


def _told(asked: list[SentRequest], stage: Stage, *, labelled: bool = True) -> list[SentRequest]:
    """Tell how many failed, and of requests whose labels the monitor does not know yet how many are right."""
    right = sum(one.answer == one.example.output for one in asked) / len(asked)
    failed = sum(one.answer is None for one in asked)
    stage.came(f"{failed} failed" if labelled else f"{right:.1%} right, {failed} failed")
    return asked


def _deployment(flow: str, scene: Scene) -> str:
    return f"{flow}/{scene.data.workspace.params.task.name}"


def _show(summary: object, report: Path, console: Console) -> None:
    from perpetune.demo.summary import Summary

    assert isinstance(summary, Summary)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in summary.short_lines():
        table.add_row(name, value)
    console.print(table)
    console.print(summary.verdict, style="bold", markup=False, soft_wrap=True)
    console.print(f"report: {report}", markup=False, soft_wrap=True)


def _keep(console: Console) -> None:
    console.print("the services run on; Ctrl-C stops them")
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        console.print("stopping")
