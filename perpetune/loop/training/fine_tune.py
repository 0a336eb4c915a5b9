"""Step 2, fine-tune: train a challenger on the training split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from perpetune.classifiers.encoder import SETTING
from perpetune.classifiers.ensemble import read_powers
from perpetune.loop.curate import HOLDOUTS, read_split
from perpetune.loop.run_context import DEVICE_HOURS, LOSS
from perpetune.loop.training.answer_lengths import warnings_before_training
from perpetune.loop.training.ensemble_training import launch_ensemble
from perpetune.model.chat.chat_tokenizer import load_chat_tokenizer
from perpetune.model.release import ModelCard
from perpetune.model.weights import resolve
from perpetune.settings import Settings
from perpetune.tracking.runs import Run, log_metrics, log_params, read_run, system_metrics, tag
from perpetune.tracking.training_curve import training_curve
from perpetune.training.batches import encode_prompt
from perpetune.training.job import read_trained, write_trained
from perpetune.training.job_files import TRAINED, Job
from perpetune.training.trainer import OnForecast, Progress, Report, Trained
from perpetune.workspace import Workspace


@dataclass(frozen=True)
class Challenger:
    """A trained adapter on this machine, its model card and its training result."""

    adapter: Path
    card: ModelCard
    trained: Trained


def fine_tune(
    workspace: Workspace,
    run: Run,
    on_progress: Report,
    on_forecast: OnForecast = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> Challenger:
    """Train an adapter and log its metrics to the run; a resumed run returns the adapter that it trained before.

    `warn` is called before with each reason why answers could not be served as they are trained, `on_forecast` once with
    the expected duration and memory, `on_progress` after every step. Raises PerpetuneError if the base or the evaluation's encoder is missing, no example fits, or memory is insufficient.
    """
    encoder = workspace.params.evaluate.encoder
    if encoder and workspace.params.task.kind == "classification":
        resolve(encoder, workspace.assets, setting=SETTING)  # fail before the training rather than after it
    folder = workspace.run_folder(run.id)
    with training_curve(run, workspace.curve(run.id), LOSS) as draw:

        def report(progress: Progress) -> None:
            draw(progress.step, _metrics(progress))
            on_progress(progress)

        trained = _trained_before(folder) or _train(workspace, run, folder, report, on_forecast, warn)
    log_params(run, {"base.digest": trained.base_digest})
    tag(run, {"adapter.digest": trained.digest})
    log_metrics(run, _summary(trained), trained.steps)
    return Challenger(trained.adapter, _card(workspace, trained.base_digest, read_run(run.id).day), trained)


def device_hours(trained: Trained) -> float:
    """Training time in hours, summed over devices."""
    return trained.seconds * trained.devices / 3600


def _train(
    workspace: Workspace,
    run: Run,
    folder: Path,
    report: Report,
    on_forecast: OnForecast,
    warn: Callable[[str], None],
) -> Trained:
    task = workspace.params.task
    rows, validation = read_split(workspace, "train"), read_split(workspace, "validation")
    job = Job(
        base=workspace.params.base,
        assets=workspace.assets,
        instruction=task.instruction,
        params=workspace.params.training,
        adapter=folder / "adapter",
        checkpoints=workspace.home / "checkpoints" / task.name,
        labels=workspace.params.head_labels(row.output for row in rows),
        prompt_date=read_run(run.id).day,
    )
    tokenizer = load_chat_tokenizer(job.base, job.assets).formatted(job.prompt_format)
    _require_renderable(workspace, tokenizer)
    for name, sentence in warnings_before_training(tokenizer, rows, workspace.params).items():
        tag(run, {f"warning.{name}": sentence})
        warn(sentence)
    with system_metrics(run):
        encoder = workspace.params.evaluate.encoder
        trained = launch_ensemble(job, encoder, rows, validation, report, Settings().training_launcher, on_forecast)
        # Training has removed its checkpoint; this file marks it as done.
        write_trained(folder, trained)
    return trained


def _require_renderable(workspace: Workspace, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises PromptRejected if the chat template rejects a held-out conversation: before the training, not after it."""
    for holdout in HOLDOUTS:
        rows = read_split(workspace, holdout) if workspace.split(holdout).is_file() else []
        for row in rows:
            if row.messages:
                encode_prompt(tokenizer, row, workspace.params.task.instruction)


def _trained_before(folder: Path) -> Trained | None:
    """The adapter that this run trained before it was interrupted, if any."""
    if not (folder / TRAINED).is_file():
        return None
    return replace(read_trained(folder), adapter=folder / "adapter")


def _card(workspace: Workspace, base_digest: str, day: date) -> ModelCard:
    task = workspace.params.task
    return ModelCard(
        task=task.name,
        kind=task.kind,
        instruction=task.instruction,
        labels=task.labels_of(row.output for row in read_split(workspace, "train")),
        base=workspace.params.base,
        base_digest=base_digest,
        precision=workspace.params.train.precision,
        max_new_tokens=workspace.params.evaluate.max_new_tokens,
        output_schema=task.output_schema,
        prompt_date=day,
    )


def _metrics(progress: Progress) -> dict[str, float]:
    metrics = {
        LOSS: progress.loss,
        "train/learning_rate": progress.learning_rate,
        "train/tokens_per_second": progress.tokens_per_second,
    }
    if progress.validation_loss is not None:
        metrics["validation/loss"] = progress.validation_loss
    return metrics


def _summary(trained: Trained) -> dict[str, float]:
    summary = {
        "train/seconds": trained.seconds,
        DEVICE_HOURS: device_hours(trained),
        "train/tokens": float(trained.tokens),
        "train/best_step": float(trained.best_step),
        "train/rows_too_long": float(trained.too_long),
    }
    if trained.validation_loss is not None:
        summary["validation/best_loss"] = trained.validation_loss
    if powers := read_powers(trained.adapter):
        summary |= {"pool/own_power": powers.tuned, "pool/linear_power": powers.linear}
    return summary
