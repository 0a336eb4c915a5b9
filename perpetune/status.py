"""What stands where: read back from the registry, the runs and the log."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
from rich.console import Console
from rich.table import Table

from perpetune import registry
from perpetune.decision import Decision
from perpetune.errors import PerpetuneError
from perpetune.loop.passage import LATER, RECORD, use_mlflow
from perpetune.monitoring.watched import DETECTOR, from_text
from perpetune.policy.phrases import amount
from perpetune.serving.label_requests import count_open
from perpetune.serving.log import counts, open_log
from perpetune.tracking import artifact, artifact_names, newest_run, runs_url
from perpetune.workspace import Workspace


@dataclass(frozen=True)
class VersionLine:
    """One version: its aliases, how it was last decided on and why, and how its release stands ("" before one)."""

    version: str
    aliases: tuple[str, ...]
    decision: str
    reason: str
    data_version: str
    release: str = ""


@dataclass(frozen=True)
class Status:
    """The state of one task. `serving` is None where no gateway answers; `wanted` are labels that were asked for."""

    task: str
    serving: str | None
    versions: tuple[VersionLine, ...]
    last_look: str | None
    predictions: int
    labelled: int
    wanted: int
    addresses: dict[str, str]
    watched: str | None = None


def read_status(workspace: Workspace) -> Status:
    """Ask MLflow, the gateway and the prediction log. Raises PerpetuneError where MLflow is down."""
    use_mlflow(workspace)
    task = workspace.params.task.name
    log = open_log(workspace.settings.prediction_log)
    try:
        found, wanted = counts(log, task), count_open(log, task)
    finally:
        log.dispose()
    settings = workspace.settings
    return Status(
        task=task,
        serving=_serving(settings.gateway_url),
        versions=_versions(task),
        last_look=_last_look(workspace),
        watched=_watched(workspace),
        predictions=found.predictions,
        labelled=found.labelled,
        wanted=wanted,
        addresses={
            "MLflow": runs_url(task),
            "Prefect": str(settings.prefect_api_url).removesuffix("/api"),
            "gateway": settings.gateway_url or "not running",
        },
    )


def _versions(task: str) -> tuple[VersionLine, ...]:
    aliases: dict[str, list[str]] = {}
    for alias in ("champion", "challenger", "previous"):
        found = registry.find(task, alias)
        if found is not None:
            aliases.setdefault(found.version, []).append(alias)
    return tuple(
        VersionLine(
            each.version,
            tuple(aliases.get(each.version, ())),
            each.tags.get("decision", "undecided"),
            each.tags.get("decision.reason", ""),
            each.tags.get("data.version", ""),
            _release(each.tags),
        )
        for each in registry.versions(task)
    )


def _release(tags: Mapping[str, str]) -> str:
    state = tags.get("release.state", "")
    if state in ("canary", "shadow"):
        return f"{state}, {float(tags.get('release.share', 0)):.0%}"
    return f"{state}: {tags['release.reason']}" if state == "refused" and "release.reason" in tags else state


def _last_look(workspace: Workspace) -> str | None:
    try:
        decision, _ = newest_decision(workspace, "watch")
    except PerpetuneError:
        return None
    return f"{decision.time:%Y-%m-%d %H:%M %Z}: {decision.outcome}. {decision.reason}"


def _watched(workspace: Workspace) -> str | None:
    """How near the champion is to an alarm."""
    champion = registry.find(workspace.params.task.name, "champion")
    if champion is None or DETECTOR not in champion.tags:
        return None
    watched, rules = from_text(champion.tags[DETECTOR], 0.0), workspace.params.watch
    return (
        f"{watched.labels} labels of version {champion.version} judged, evidence that it scores below "
        f"{100 * watched.detector.bound:.1f} is {amount(watched.detector.evidence)} of the {amount(rules.run_length)} "
        "that raise the alarm"
    )


def _serving(gateway: str | None) -> str | None:
    if gateway is None:
        return None
    try:
        return str(httpx.get(f"{gateway}/readyz", timeout=5).json().get("serving"))
    except (httpx.HTTPError, ValueError):  # something else listens there, or a proxy whose gateway is away
        return None


def newest_decision(workspace: Workspace, kind: Literal["refresh", "watch"]) -> tuple[Decision, str]:
    """The newest decision of this kind and the page of its run. Raises PerpetuneError where there is none."""
    use_mlflow(workspace)
    found = newest_run(workspace.params.task.name, kind)
    if found is None:
        raise PerpetuneError(f"there was no {kind} yet", do=f"run `perpetune {kind}`")
    run, _ = found
    return _read_decision(run.id), run.url


def decisions_of(workspace: Workspace, version: str) -> list[Decision]:
    """All that was decided on a version, newest first. Raises PerpetuneError where there is nothing."""
    use_mlflow(workspace)
    run_id = registry.get(workspace.params.task.name, version).run_id
    later = [_read_decision(run_id, name) for name in artifact_names(run_id, LATER)]
    return [*reversed([each for each in later if each.ids.model_version == version]), _read_decision(run_id)]


def _read_decision(run_id: str, name: str = RECORD) -> Decision:
    with tempfile.TemporaryDirectory() as folder:
        path = artifact(run_id, name, Path(folder))
        if path is None:
            raise PerpetuneError(
                f"the run {run_id} holds no decision record", do="it may have failed before it decided"
            )
        return Decision.from_json(path.read_text(encoding="utf-8"))


def show_status(status: Status, console: Console) -> None:
    """The state as a table for a terminal."""
    table = Table(
        "version",
        "aliases",
        "release",
        "decision",
        "why",
        title=f"{status.task}: serving {status.serving or 'nothing'}",
    )
    for line in status.versions:
        table.add_row(line.version, ", ".join(line.aliases), line.release, line.decision, line.reason)
    console.print(table)
    console.print(f"log: {status.predictions} predictions, {status.labelled} labelled", markup=False)
    if status.wanted:
        console.print(f"{status.wanted} labels wanted: perpetune labels", markup=False)
    console.print(f"last look: {status.last_look or 'none yet'}", markup=False)
    console.print(f"watched: {status.watched or 'no labels judged yet'}", markup=False)
    for name, address in status.addresses.items():
        console.print(f"{name}: {address}", markup=False)
