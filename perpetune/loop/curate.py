"""Step 1, curate: run the DVC pipeline on the current data, including labelled traffic."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from perpetune.curation.inferred_schema import advice
from perpetune.curation.running import dvc
from perpetune.curation.running.layout import CARD, INBOX, SPLITS, TRAFFIC
from perpetune.errors import PerpetuneError
from perpetune.loop.label_rule import label_rule, label_rule_of_sources
from perpetune.loop.run_context import TRIGGER, data_version_of
from perpetune.loop.unasked_labels import unasked_labels
from perpetune.monitoring.detector_state import DETECTOR, from_text
from perpetune.params import unknown_labels
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.labels.admission import awaited
from perpetune.prediction_log.queries import counts, labelled_examples
from perpetune.records import Example, read_jsonl, write_jsonl
from perpetune.statistics.sequential.change_point import most_likely_change
from perpetune.tracking import registry
from perpetune.tracking.runs import Run, log_dataset, log_file, log_metrics, read_run
from perpetune.workspace import Workspace

HOLDOUTS = ("frozen", "recent")

LABELS = "data/labels"
LABELS_SINCE_FALL = "data/labels_since_fall"
MOST_NAMED = 10  # labels in an error
SPLIT_NAMES = ("train", "validation", "frozen", "recent")


@dataclass(frozen=True)
class CuratedData:
    """The data of a refresh: its DVC version (the splits' md5) and the number of rows by split.

    `labels` counts all labelled requests of production, whether curation kept them or not.
    """

    version: str
    rows: dict[str, int]
    labels: int


def curate(workspace: Workspace, flow_run_id: str) -> CuratedData:
    """Export labelled traffic, run the DVC pipeline and push its outputs.

    A retried flow run keeps the data it began to train on. Raises PerpetuneError with the output of the failed stage.
    """
    root = workspace.root
    begun = data_version_of(workspace, flow_run_id)
    if begun is None or not dvc.has_version(root, begun):
        dvc.prepare(root, workspace.settings.dvc_remote)
        (root / INBOX).mkdir(parents=True, exist_ok=True)
        export_labelled_traffic(workspace)
        dvc.reproduce(root)
        dvc.push(root)
    require_known_labels(workspace)
    rows = {name: len(read_split(workspace, name)) for name in SPLIT_NAMES}
    return CuratedData(dvc.data_version(root).version, rows, production_labels(workspace))


def require_known_labels(workspace: Workspace) -> None:
    """Raises PerpetuneError if `promote` names a label that is not in the training data, which has the task's labels."""
    task, rules = workspace.params.task, workspace.params.promote
    if task.kind == "generation" or not (rules.costs or rules.recall_floors):
        return
    labels = task.labels_of(row.output for row in read_split(workspace, "train"))
    for fault in unknown_labels(rules.costs or {}, rules.recall_floors, labels):
        raise PerpetuneError(
            f"promote.{'.'.join(fault)}: no row of the training data has the label {fault[-1]!r}",
            where=str(workspace.root / "params.yaml"),
            do=f"write one of its labels ({', '.join(sorted(labels or ())[:MOST_NAMED])}), or add examples of it",
        )


def schema_advice(workspace: Workspace) -> str | None:
    """A suggestion of `task.output_schema` if the outputs are JSON and the task has no schema; else None."""
    task = workspace.params.task
    if task.kind == "classification" or task.output_schema is not None:
        return None
    return advice([row.output for row in read_split(workspace, "train")])


def log_data(workspace: Workspace, run: Run, curated: CuratedData) -> None:
    """Log the data's version, row counts and data card to the run."""
    log_metrics(run, {rows_metric(name): float(count) for name, count in curated.rows.items()})
    log_metrics(run, {LABELS: float(curated.labels), **_since_fall(workspace, run)})
    for name, count in curated.rows.items():
        source = f"{SPLITS}/{name}.jsonl"
        log_dataset(run, f"{workspace.params.task.name}-{name}", curated.version, source, count, name)
    for page in ("card.html", "card.md"):
        log_file(run, workspace.root / CARD / page, "data")
    # The splits are enough to repeat a training; dvc.lock also names the outputs of the stages before them.
    log_file(run, workspace.root / "dvc.lock", "data")


def rows_metric(split: str) -> str:
    return f"data/{split}_rows"


def production_labels(workspace: Workspace) -> int:
    log = open_log(workspace.settings.prediction_log)
    try:
        return counts(log, workspace.params.task.name, label_rule(workspace)).labelled
    finally:
        log.dispose()


def export_labelled_traffic(workspace: Workspace) -> int:
    """Write the labelled requests of the prediction log for the pipeline's fetch stage; returns how many.

    Labels that cannot be right stay in the log, and those of a lot until nearly all of it have come: the first may be those
    of wrong answers, and a holdout of them would favour whatever answers otherwise. Those that came unasked and do not
    decide are only trained on.
    """
    log = open_log(workspace.settings.prediction_log)
    try:
        rule = label_rule_of_sources(workspace)
        decides = unasked_labels(workspace, log, rule).decides
        examples = labelled_examples(log, workspace.params.task.name, rule, unasked=decides)
        waiting = awaited(log, workspace.params.task.name, datetime.now(UTC), rule)
    finally:
        log.dispose()
    return write_jsonl(workspace.root / TRAFFIC, [row for row in examples if row.id not in waiting])


def _since_fall(workspace: Workspace, run: Run) -> dict[str, float]:
    """The labels since the champion's scores began to fall, if decay starts the refresh and a fall is visible."""
    champion = registry.find(workspace.params.task.name, "champion")
    if champion is None or DETECTOR not in champion.tags or read_run(run.id).tags.get(TRIGGER) != "decay":
        return {}
    state = from_text(champion.tags[DETECTOR])
    rows = most_likely_change(state.detector, workspace.params.watch.margin).since.rows
    return {LABELS_SINCE_FALL: float(rows)} if rows else {}


def read_split(workspace: Workspace, name: str) -> list[Example]:
    return read_jsonl(workspace.split(name), Example)
