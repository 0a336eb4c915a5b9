"""Step 1: bring the data up to date, through DVC, with what production has labelled since."""

from __future__ import annotations

from dataclasses import dataclass

from perpetune.curation import dvc
from perpetune.curation.inferred_schema import advice
from perpetune.curation.layout import CARD, INBOX, SPLITS, TRAFFIC
from perpetune.loop.run_context import data_of
from perpetune.prediction_log.log import counts, labelled_examples, open_log
from perpetune.records import Example, read_jsonl, write_jsonl
from perpetune.tracking.runs import Run, log_dataset, log_file, log_metrics
from perpetune.workspace import Workspace

LABELS = "data/labels"
SPLIT_NAMES = ("train", "validation", "frozen", "recent")


@dataclass(frozen=True)
class Curated:
    """The data of this pass: its DVC version (the splits' md5), how many rows each split has, and the labels there were.

    `labels` are those of production, whatever curation kept of them.
    """

    version: str
    rows: dict[str, int]
    labels: int


def curate(workspace: Workspace, flow_run_id: str) -> Curated:
    """Export labelled traffic, run the pipeline and push what it made.

    A flow run that is tried again keeps the data it has begun to train on, whatever was labelled since.
    Raises PerpetuneError with the words of the stage that failed.
    """
    root = workspace.root
    begun = data_of(workspace, flow_run_id)
    if begun is None or not dvc.has_version(root, begun):
        dvc.prepare(root, workspace.settings.dvc_remote)
        (root / INBOX).mkdir(parents=True, exist_ok=True)
        export_labelled_traffic(workspace)
        dvc.reproduce(root)
        dvc.push(root)
    rows = {name: len(read_split(workspace, name)) for name in SPLIT_NAMES}
    return Curated(dvc.data_version(root).version, rows, labels_of_production(workspace))


def schema_advice(workspace: Workspace) -> str | None:
    """The schema that the training rows of free text suggest where the task has none, with what it is good for."""
    task = workspace.params.task
    if task.kind == "classification" or task.output_schema is not None:
        return None
    return advice([row.output for row in read_split(workspace, "train")])


def log_data(workspace: Workspace, run: Run, curated: Curated) -> None:
    """Say in MLflow which data this is."""
    log_metrics(run, {rows_metric(name): float(count) for name, count in curated.rows.items()})
    log_metrics(run, {LABELS: float(curated.labels)})
    for name, count in curated.rows.items():
        source = f"{SPLITS}/{name}.jsonl"
        log_dataset(run, f"{workspace.params.task.name}-{name}", curated.version, source, count, name)
    for page in ("card.html", "card.md"):
        log_file(run, workspace.root / CARD / page, "data")
    # The splits alone repeat a training; the lock names what each stage before them made, too.
    log_file(run, workspace.root / "dvc.lock", "data")


def rows_metric(split: str) -> str:
    return f"data/{split}_rows"


def labels_of_production(workspace: Workspace) -> int:
    log = open_log(workspace.settings.prediction_log)
    try:
        return counts(log, workspace.params.task.name).labelled
    finally:
        log.dispose()


def export_labelled_traffic(workspace: Workspace) -> int:
    """Write the labelled part of the prediction log where the pipeline's fetch stage reads it."""
    log = open_log(workspace.settings.prediction_log)
    try:
        examples = labelled_examples(log, workspace.params.task.name)
    finally:
        log.dispose()
    return write_jsonl(workspace.root / TRAFFIC, examples)


def read_split(workspace: Workspace, name: str) -> list[Example]:
    return read_jsonl(workspace.split(name), Example)
