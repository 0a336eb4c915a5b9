"""A search on a terminal: while it runs, and what it found."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from perpetune.training.trainer import Progress
from perpetune.tuning.params_file import as_yaml
from perpetune.tuning.search import Settings, Trial
from perpetune.tuning.tune import Tuning, tune
from perpetune.workspace import Workspace


def tune_aloud(workspace: Workspace, console: Console) -> Tuning:
    """Search with a line for each trial that has ended and, on a terminal, one for the trial that runs."""
    # Each trial loads the base, whose bar would break the lines.
    disable_progress_bar()
    with console.status("curating the data") as status:
        return tune(
            workspace,
            tell=lambda trial: console.print(trial_line(trial), markup=False, soft_wrap=True),
            show=lambda number, settings, progress: status.update(progress_line(number, settings, progress)),
        )


def trial_line(trial: Trial) -> str:
    loss = "" if trial.validation_loss is None else f", validation loss {trial.validation_loss:.4f}"
    return f"trial {trial.number}: {_words(trial.settings)}: {trial.state} after {trial.minutes:.2f} minutes{loss}"


def progress_line(number: int, settings: Settings, progress: Progress) -> str:
    where = f"step {progress.step}/{progress.steps}, {progress.seconds_left:.0f} s left"
    return f"trial {number}: {_words(settings)}: {where}"


def _words(settings: Settings) -> str:
    rate = as_yaml(settings.learning_rate)
    return f"rank {settings.rank}, learning rate {rate}, {as_yaml(settings.epochs)} epochs"


def show_tuning(found: Tuning, console: Console) -> None:
    """All trials, and what the best would change."""
    table = Table("trial", "rank", "learning rate", "epochs", "validation loss", "minutes", "state")
    for trial in found.trials:
        settings, loss = trial.settings, trial.validation_loss
        table.add_row(
            f"{trial.number} (today's)" if trial.number == 1 else str(trial.number),
            str(settings.rank),
            as_yaml(settings.learning_rate),
            as_yaml(settings.epochs),
            "" if loss is None else f"{loss:.4f}",
            f"{trial.minutes:.2f}",
            "best" if trial == found.best else trial.state,
            style="bold" if trial == found.best else None,
        )
    console.print(table)
    for change in found.changes:
        console.print(f"{change.field}: {as_yaml(change.now)} → {as_yaml(change.best)}", markup=False)
    if not found.changes:
        console.print("nothing that was tried is better than today's settings", markup=False)
    console.print(f"MLflow: {found.run.url}", markup=False, soft_wrap=True)
