"""Reading a version report from MLflow, the decision records and DVC."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from perpetune.curation.difference import Difference, difference
from perpetune.curation.running import dvc
from perpetune.errors import NoDecision, PerpetuneError
from perpetune.evaluation.costs import from_document, sentences
from perpetune.evaluation.systems import TITLES
from perpetune.explain.numbers import numbers_of
from perpetune.explain.status import decisions_of
from perpetune.explain.version_report import (
    Approval,
    Data,
    Event,
    Reproduction,
    Scores,
    Training,
    Trigger,
    VerdictSummary,
    VersionReport,
)
from perpetune.loop.curate import SPLIT_NAMES
from perpetune.loop.first_version import FIRST
from perpetune.loop.run_context import ECONOMICS, LOSS, REPORT, use_mlflow
from perpetune.policy.decision.record import Decision
from perpetune.records import Example, parse_time, read_jsonl
from perpetune.statistics.estimate import Estimate
from perpetune.tracking import registry
from perpetune.tracking.registry import Version
from perpetune.tracking.runs import RunRecord, artifact, artifact_url, curve_of, read_run
from perpetune.workspace import Workspace

TRAINED_WITH = {
    "base.model": "base",
    "train.method": "method",
    "train.lora.rank": "rank",
    "train.epochs": "epochs",
    "train.batch_size": "examples a step",
    "train.learning_rate": "learning rate",
    "train.seed": "seed",
}


def gather(workspace: Workspace, version: str) -> VersionReport:
    """The report on a version, by its number or alias. Raises PerpetuneError if it does not exist or MLflow is down."""
    use_mlflow(workspace)
    task = workspace.params.task.name
    found = registry.named(task, version)
    version = found.version
    run = read_run(found.run_id)
    decisions = _decisions(workspace, version)
    aliases = registry.aliases_of(task).get(version, ())
    return VersionReport(
        task=task,
        version=version,
        aliases=tuple(alias for alias in ("champion", "challenger", "previous") if alias in aliases),
        written=datetime.now(UTC),
        trigger=Trigger(
            run.tags.get("perpetune.trigger", "unknown"), run.tags.get("perpetune.reason", ""), run.started
        ),
        data=_data(workspace, found, run, _compared_with(found, decisions)),
        training=_training(run),
        scores=tuple(_scores(run)),
        verdicts=tuple(VerdictSummary(each, numbers_of(each.evidence)) for each in decisions),
        approval=_approval(found.tags),
        costs=tuple(_costs(workspace, run)),
        events=_events(found.tags, run, decisions),
        repeat=_repeat(found, run, decisions),
        links={
            "model version": registry.model_url(task, version),
            "MLflow run": run.run.url,
            "evaluation report": artifact_url(run.run.url, REPORT),
            "data card": artifact_url(run.run.url, "data/card.html"),
        },
    )


def _decisions(workspace: Workspace, version: str) -> list[Decision]:
    """The decisions on a version; empty if the refresh is undecided or failed before its decision."""
    try:
        return decisions_of(workspace, version)
    except NoDecision:
        return []


def _compared_with(version: Version, decisions: list[Decision]) -> Version | None:
    """The champion that the version was compared with, or else the previous version."""
    promotion = next((each for each in decisions if each.kind == "promotion"), None)
    if promotion is not None and promotion.ids.champion_version not in (None, version.version):
        return registry.get(version.task, str(promotion.ids.champion_version))
    return registry.version_before(version.task, version.version)


def _data(workspace: Workspace, version: Version, run: RunRecord, previous: Version | None) -> Data:
    current = version.tags.get("data.version", "unknown")
    rows = {name: int(run.metrics[f"data/{name}_rows"]) for name in SPLIT_NAMES if f"data/{name}_rows" in run.metrics}
    if previous is None:
        return Data(current, rows, None, None, "This is the first version, so there is no previous data.")
    before = previous.tags.get("data.version")
    if before is None:
        return Data(current, rows, previous.version, None, f"Version {previous.version} has no data version.")
    if before == current:
        return Data(current, rows, previous.version, None, f"The data is the same as for version {previous.version}.")
    try:
        return Data(current, rows, previous.version, _difference(workspace, before, current), "")
    except PerpetuneError as fault:
        note = f"The difference to the data of version {previous.version} is not available: {fault.what}."
        return Data(current, rows, previous.version, None, note)


def _difference(workspace: Workspace, before: str, after: str) -> Difference:
    labelled = workspace.params.task.kind == "classification"
    return difference(_splits(workspace, before), _splits(workspace, after), labelled=labelled)


def _splits(workspace: Workspace, version: str) -> dict[str, list[Example]]:
    """The splits of a data version: the workspace's if they have this version, else checked out."""
    if (workspace.root / "dvc.lock").is_file() and dvc.has_version(workspace.root, version):
        return _read(workspace.split("train").parent)
    with tempfile.TemporaryDirectory() as scratch:
        return _read(dvc.checkout_splits(workspace.root, version, Path(scratch)))


def _read(folder: Path) -> dict[str, list[Example]]:
    files = {name: folder / f"{name}.jsonl" for name in SPLIT_NAMES}
    return {name: read_jsonl(file, Example) for name, file in files.items() if file.is_file()}


def _training(run: RunRecord) -> Training:
    metrics = run.metrics
    facts = {title: run.params[name] for name, title in TRAINED_WITH.items() if name in run.params}
    if "train/seconds" in metrics:
        facts["time"] = f"{metrics['train/seconds']:,.0f} s"
    if "train/tokens" in metrics:
        facts["tokens"] = f"{metrics['train/tokens']:,.0f}"
    if "validation/best_loss" in metrics:
        facts["best validation loss"] = (
            f"{metrics['validation/best_loss']:.4f} at step {metrics.get('train/best_step', 0):.0f}"
        )
    return Training(facts, curve_of(run.run.id, LOSS), curve_of(run.run.id, "validation/loss"))


def _scores(run: RunRecord) -> list[Scores]:
    level = float(run.params.get("evaluate.confidence", "0.95"))
    found = []
    for holdout in ("frozen", "recent"):
        for metric in ("accuracy", "slot_f1", "token_f1"):
            systems = {
                system: Estimate(
                    run.metrics[name],
                    run.metrics[f"{name}_low"],
                    run.metrics[f"{name}_high"],
                    _rows(run, holdout, system),
                )
                for system in TITLES
                if f"{(name := f'{holdout}/{system}/{metric}')}_low" in run.metrics
            }
            if systems:
                found.append(Scores(holdout, metric, level, systems))
    return found


def _rows(run: RunRecord, holdout: str, system: str) -> int:
    """The rows that a system answered; older runs have only the rows of the holdout."""
    return int(run.metrics.get(f"{holdout}/{system}/rows", run.metrics.get(f"{holdout}/rows", 0)))


def _approval(tags: Mapping[str, str]) -> Approval | None:
    if "approval" not in tags:
        return None
    return Approval(tags["approval"], tags.get("approval.by", ""), tags.get("approval.comment", ""))


def _costs(workspace: Workspace, run: RunRecord) -> list[str]:
    path = artifact(run.run.id, ECONOMICS, workspace.run_folder(run.run.id))
    return sentences(from_document(json.loads(path.read_text(encoding="utf-8")))) if path else []


def _events(tags: Mapping[str, str], run: RunRecord, decisions: list[Decision]) -> tuple[Event, ...]:
    """The events since its refresh, oldest first; a release state without a time comes last."""
    first_event = "first version" if run.tags.get("perpetune.kind") == FIRST else "refresh began"
    events = [Event(run.started, first_event, run.tags.get("perpetune.reason", ""))]
    events += [Event(each.time, f"{each.kind}: {each.outcome}", each.reason) for each in decisions]
    if "release.state" in tags:
        time = parse_time(tags["release.time"]) if "release.time" in tags else None
        events.append(Event(time, f"release: {tags['release.state']}", tags.get("release.reason", "")))
    if registry.CHECK_ERROR in tags:
        events.append(Event(None, "the newest check failed", tags[registry.CHECK_ERROR]))
    return tuple(sorted(events, key=lambda event: event.time or datetime.max.replace(tzinfo=UTC)))


def _repeat(version: Version, run: RunRecord, decisions: list[Decision]) -> Reproduction:
    digest = next((each.ids.params_sha256 for each in reversed(decisions) if each.ids.params_sha256), None)
    ids = {
        "git commit": version.tags.get("git.commit", run.tags.get("git.commit", "unknown")),
        "data version": version.tags.get("data.version", "unknown"),
        "base digest": version.tags.get("base.digest", "unknown"),
        "adapter digest": version.tags.get("adapter.digest", "unknown"),
        "params.yaml, sha256": digest,
        "perpetune": run.tags.get("perpetune.version"),
        "torch": run.tags.get("torch.version"),
        "MLflow run": run.run.id,
        "Prefect flow run": version.tags.get("prefect.flow_run_id"),
    }
    commands = (f"perpetune reproduce {version.version}",) if "data.version" in version.tags else ()
    return Reproduction(commands, {name: value for name, value in ids.items() if value})
