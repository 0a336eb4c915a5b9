"""A search on a terminal: progress and result."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from perpetune.params.edit import number_as_yaml
from perpetune.training.trainer import Progress
from perpetune.tuning.search import Settings, Trial
from perpetune.tuning.tune import Tuning, tune
from perpetune.workspace import Workspace


def tune_on_terminal(workspace: Workspace, console: Console) -> Tuning:
    """Search with a line for each ended trial and a status line for the running one."""
    # The progress bar of loading the base would break the lines.
    disable_progress_bar()
    with console.status("curating the data") as status:
        return tune(
            workspace,
            on_trial=lambda trial: console.print(trial_line(trial), markup=False, soft_wrap=True),
            on_progress=lambda number, settings, progress: status.update(progress_line(number, settings, progress)),
        )


def trial_line(trial: Trial) -> str:
    loss = "" if trial.validation_loss is None else f", validation loss {trial.validation_loss:.4f}"
    return f"trial {trial.number}: {_words(trial.settings)}: {trial.state} after {trial.minutes:.2f} minutes{loss}"


def progress_line(number: int, settings: Settings, progress: Progress) -> str:
    position = f"step {progress.step}/{progress.steps}, {progress.seconds_left:.0f} s left"
    return f"trial {number}: {_words(settings)}: {position}"


def _words(settings: Settings) -> str:
    rate = number_as_yaml(settings.learning_rate)
    return f"rank {settings.rank}, learning rate {rate}, {number_as_yaml(settings.epochs)} epochs"


def show_tuning(found: Tuning, console: Console) -> None:
    """Print all trials, and the changes that the best one suggests."""
    table = Table("trial", "rank", "learning rate", "epochs", "validation loss", "minutes", "state")
    for trial in found.trials:
        settings, loss = trial.settings, trial.validation_loss
        table.add_row(
            f"{trial.number} (current)" if trial.number == 1 else str(trial.number),
            str(settings.rank),
            number_as_yaml(settings.learning_rate),
            number_as_yaml(settings.epochs),
            "" if loss is None else f"{loss:.4f}",
            f"{trial.minutes:.2f}",
            "best" if trial == found.best else trial.state,
            style="bold" if trial == found.best else None,
        )
    console.print(table)
    for change in found.changes:
        console.print(f"{change.field}: {number_as_yaml(change.now)} → {number_as_yaml(change.best)}", markup=False)
    if not found.changes:
        console.print("no trial is better than the current settings", markup=False)
    console.print(f"MLflow: {found.run.url}", markup=False, soft_wrap=True)
