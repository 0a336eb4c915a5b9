"""`perpetune tune`: search with the data and the trainer of a refresh, logged to MLflow."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from transformers import AutoConfig

from perpetune.errors import PerpetuneError
from perpetune.evaluation.report.style import write_png
from perpetune.loop.curate import curate, log_data, read_split
from perpetune.loop.run_context import git_commit, log_params_files, settings_of, use_mlflow
from perpetune.model.weights import resolve
from perpetune.params import TrainParams
from perpetune.records import Example
from perpetune.tracking.runs import (
    Run,
    close_run,
    log_file,
    log_metrics,
    log_params,
    log_table,
    mark_killed,
    open_child,
    open_run,
    read_run,
    tag,
)
from perpetune.training.job_files import Job
from perpetune.training.launch import launch
from perpetune.training.processes import process_count
from perpetune.training.recipe import explicit
from perpetune.training.trainer import Progress
from perpetune.tuning.plot import history
from perpetune.tuning.search import OnProgress, Settings, TrainTrial, Trial, TrialPruned, search
from perpetune.workspace import Workspace

MIN_VALIDATIONS = 4  # with fewer, trials are pruned too late


@dataclass(frozen=True)
class Change:
    """A field of params.yaml, with its current value and that of the best trial."""

    field: str
    now: int | float
    best: int | float


@dataclass(frozen=True)
class Tuning:
    """The result of a search; without `changes` no trial was better than the current settings."""

    trials: tuple[Trial, ...]
    best: Trial
    changes: tuple[Change, ...]
    minutes: float
    run: Run


@dataclass(frozen=True)
class _Data:
    train: list[Example]
    validation: list[Example]


def tune(
    workspace: Workspace, on_trial: Callable[[Trial], None], on_progress: Callable[[int, Settings, Progress], None]
) -> Tuning:
    """Curate the data as a refresh does, search, and log a run with a child run for each trial to MLflow.

    `on_trial` is called with each ended trial, `on_progress` at each step. Raises PerpetuneError if there are no training
    or validation rows, or if the budget ends before the first trial.
    """
    params = workspace.params.tune
    budget = f"at most {params.trials} trials in {params.minutes:g} device minutes"
    with _parent_run(workspace, budget) as run:
        data = _read(workspace, run)
        trials = []
        explicit_now = _explicit(workspace)
        now = settings_in(explicit_now)
        space = (
            params if workspace.params.train.method != "full" else params.model_copy(update={"rank": (now.rank,) * 2})
        )
        for trial in search(space, now, _train_trial(workspace, data, run, on_progress)):
            trials.append(trial)
            on_trial(trial)
        best = _best(trials, params.minutes)
        better = changes(explicit_now, best.settings)
        found = Tuning(tuple(trials), best, better, sum(trial.minutes for trial in trials), run)
        _log(found, workspace)
    return found


def with_budget(workspace: Workspace, minutes: float | None, trials: int | None) -> Workspace:
    """The workspace with this budget instead of that of params.yaml; None keeps a value."""
    given = {"minutes": minutes, "trials": trials}
    update = {name: value for name, value in given.items() if value is not None}
    budget = workspace.params.tune.model_copy(update=update)
    return replace(workspace, params=workspace.params.model_copy(update={"tune": budget}))


def _explicit(workspace: Workspace) -> TrainParams:
    """The current settings with numbers instead of "auto"."""
    base = resolve(workspace.params.base, workspace.assets)
    return explicit(workspace.params.train, AutoConfig.from_pretrained(base).get_text_config().hidden_size)


def settings_in(params: TrainParams) -> Settings:
    assert params.learning_rate != "auto" and params.epochs != "auto"
    return Settings(params.lora.rank, params.learning_rate, params.epochs)


def with_settings(params: TrainParams, settings: Settings) -> TrainParams:
    """The section `train` with these settings; `alpha` is scaled with the rank, to keep the adapter's scale."""
    alpha = max(1, round(params.lora.alpha * settings.rank / params.lora.rank))
    lora = params.lora.model_copy(update={"rank": settings.rank, "alpha": alpha})
    update = {"lora": lora, "learning_rate": settings.learning_rate, "epochs": settings.epochs}
    return params.model_copy(update=update)


def changes(params: TrainParams, best: Settings) -> tuple[Change, ...]:
    better, now = with_settings(params, best), settings_in(params)
    pairs = {
        "train.lora.rank": (now.rank, best.rank),
        "train.lora.alpha": (params.lora.alpha, better.lora.alpha),
        "train.learning_rate": (now.learning_rate, best.learning_rate),
        "train.epochs": (now.epochs, best.epochs),
    }
    return tuple(Change(field, now, then) for field, (now, then) in pairs.items() if now != then)


def _read(workspace: Workspace, run: Run) -> _Data:
    curated = curate(workspace, run.id)
    log_data(workspace, run, curated)
    log_params(run, {"data.version": curated.version})
    data = _Data(read_split(workspace, "train"), read_split(workspace, "validation"))
    if not data.validation:
        raise PerpetuneError(
            "there are no validation rows to compare settings on",
            where="params.yaml: split.validation",
            do="raise it and set another split.seed, since recorded rows keep their split; or add more examples",
        )
    return data


def _best(trials: list[Trial], minutes: float) -> Trial:
    """The finished trial with the lowest validation loss, the first of equal ones."""
    finished = {trial.validation_loss: trial for trial in reversed(trials) if trial.validation_loss is not None}
    if not finished:
        raise PerpetuneError(
            f"no trial finished within {minutes:g} device minutes",
            where="params.yaml: tune.minutes",
            do="raise it, or use --minutes",
        )
    return finished[min(finished)]


def _train_trial(
    workspace: Workspace, data: _Data, parent: Run, on_progress: Callable[[int, Settings, Progress], None]
) -> TrainTrial:
    section = workspace.params.training
    section = section.model_copy(update={"validations": max(section.validations, MIN_VALIDATIONS)})
    day = read_run(parent.id).day

    def train_trial(number: int, settings: Settings, check_budget: OnProgress) -> float:
        # Free the last trial's model, because two bases may not fit into memory.
        gc.collect()
        params = with_settings(section, settings)
        with _child_run(parent, number, settings, params) as run, _scratch(workspace) as adapter:
            began = time.monotonic()

            def report(progress: Progress) -> None:
                minutes = (time.monotonic() - began) * process_count(params) / 60
                if progress.validation_loss is not None:
                    log_metrics(run, _metrics(progress, progress.validation_loss, minutes), progress.step)
                on_progress(number, settings, progress)
                check_budget(progress, minutes)

            job = Job(
                base=workspace.params.base,
                assets=workspace.assets,
                instruction=workspace.params.task.instruction,
                params=params,
                adapter=adapter,
                checkpoints=None,
                labels=workspace.params.head_labels(row.output for row in data.train),
                prompt_date=day,
            )
            trained = launch(job, data.train, data.validation, report)
            if trained.validation_loss is None:
                raise PerpetuneError(
                    f"all validation rows are longer than {params.max_example_tokens} tokens",
                    where="params.yaml: train.max_example_tokens",
                    do="raise it, or shorten the inputs",
                )
            log_metrics(run, {"validation/best_loss": trained.validation_loss}, trained.steps)
        return trained.validation_loss

    return train_trial


@contextmanager
def _scratch(workspace: Workspace) -> Iterator[Path]:
    """A temporary folder for a trial's adapter."""
    workspace.home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=workspace.home) as folder:
        yield Path(folder)


def _metrics(progress: Progress, validation_loss: float, minutes: float) -> dict[str, float]:
    return {
        "validation/loss": validation_loss,
        "train/loss": progress.loss,
        "train/tokens_per_second": progress.tokens_per_second,
        "tune/minutes": minutes,
    }


@contextmanager
def _parent_run(workspace: Workspace, note: str) -> Iterator[Run]:
    use_mlflow(workspace)
    tags = {"perpetune.kind": "tune", "git.commit": git_commit(workspace.root), "mlflow.note.content": note}
    name = f"tune {datetime.now(UTC):%Y-%m-%d %H:%M}"
    run = open_run(workspace.params.task.name, name, tags, settings_of(workspace, "tune"))
    succeeded = False
    try:
        log_params_files(run, workspace)
        yield run
        succeeded = True
    finally:
        close_run(run, succeeded=succeeded)


@contextmanager
def _child_run(parent: Run, number: int, settings: Settings, params: TrainParams) -> Iterator[Run]:
    """The MLflow run of a trial; its status is KILLED if the trial was pruned or stopped."""
    run = open_child(
        parent,
        f"trial {number}",
        {"perpetune.kind": "trial"},
        {**asdict(settings), "alpha": params.lora.alpha, "trial": number},
    )
    try:
        yield run
    except TrialPruned as end:
        tag(run, {"perpetune.state": end.state})
        mark_killed(run)
        raise
    except KeyboardInterrupt:
        mark_killed(run)
        raise
    except BaseException:
        close_run(run, succeeded=False)
        raise
    tag(run, {"perpetune.state": "finished"})
    close_run(run, succeeded=True)


def _log(found: Tuning, workspace: Workspace) -> None:
    losses = {"tune/best_loss": found.best.validation_loss, "tune/loss_now": found.trials[0].validation_loss}
    log_metrics(found.run, {name: loss for name, loss in losses.items() if loss is not None})
    log_metrics(found.run, {"tune/minutes": found.minutes, "tune/trials": float(len(found.trials))})
    log_params(found.run, {f"best.{name}": value for name, value in asdict(found.best.settings).items()})
    log_params(found.run, {"best.trial": found.best.number})
    rows = [{**asdict(trial), **asdict(trial.settings)} for trial in found.trials]
    log_table(found.run, pd.DataFrame(rows).drop(columns="settings"), "trials.json")
    picture = workspace.run_folder(found.run.id) / "history.png"
    write_png(history(found.trials), picture)
    log_file(found.run, picture)
