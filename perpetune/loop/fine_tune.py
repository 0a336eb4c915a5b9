"""Step 2: fine-tune a challenger on the training split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perpetune.loop.curate import read_split
from perpetune.release import ModelCard
from perpetune.settings import Settings
from perpetune.tracking import Run, log_metrics, log_params, system_metrics
from perpetune.training.job import Job
from perpetune.training.launch import launch
from perpetune.training.trainer import Progress, Trained
from perpetune.workspace import Workspace


@dataclass(frozen=True)
class Challenger:
    """An adapter on this machine, its card, and how its training went."""

    adapter: Path
    card: ModelCard
    trained: Trained


def fine_tune(workspace: Workspace, run: Run, tell: Callable[[Progress], None]) -> Challenger:
    """Train an adapter, streaming its metrics (with those of the system) into the run.

    `tell` hears of every step. Raises PerpetuneError where the base is missing or no example fits.
    """
    params, task = workspace.params.train, workspace.params.task
    rows = read_split(workspace, "train")
    validation = read_split(workspace, "validation")
    job = Job(
        base=workspace.params.base,
        assets=workspace.assets,
        instruction=task.instruction,
        params=params,
        adapter=workspace.run_folder(run.id) / "adapter",
        checkpoints=workspace.home / "checkpoints" / task.name,
    )

    def report(progress: Progress) -> None:
        log_metrics(run, _metrics(progress), progress.step)
        tell(progress)

    with system_metrics(run):
        trained = launch(job, rows, validation, report, Settings().training_launcher)
    card = ModelCard(
        task=task.name,
        kind=task.kind,
        instruction=task.instruction,
        labels=_labels(workspace, [row.output for row in rows]),
        base=workspace.params.base,
        base_digest=trained.base_digest,
        precision=params.precision,
        max_new_tokens=workspace.params.evaluate.max_new_tokens,
    )
    log_params(run, {"base.digest": trained.base_digest, "adapter.digest": trained.digest})
    log_metrics(run, _summary(trained), trained.steps)
    return Challenger(job.adapter, card, trained)


def _labels(workspace: Workspace, outputs: list[str]) -> tuple[str, ...] | None:
    """The labels named in params, else those of the training data."""
    task = workspace.params.task
    if task.kind == "generation":
        return None
    return task.labels or tuple(sorted(set(outputs)))


def _metrics(progress: Progress) -> dict[str, float]:
    metrics = {
        "train/loss": progress.loss,
        "train/learning_rate": progress.learning_rate,
        "train/tokens_per_second": progress.tokens_per_second,
    }
    if progress.validation_loss is not None:
        metrics["validation/loss"] = progress.validation_loss
    return metrics


def _summary(trained: Trained) -> dict[str, float]:
    summary = {
        "train/seconds": trained.seconds,
        "train/tokens": float(trained.tokens),
        "train/best_step": float(trained.best_step),
        "train/rows_too_long": float(trained.too_long),
    }
    if trained.validation_loss is not None:
        summary["validation/best_loss"] = trained.validation_loss
    return summary
