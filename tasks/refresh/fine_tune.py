"""Prefect task: fine-tune the challenger, with progress in Prefect's UI and log."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE

from perpetune.loop.planning.plan import Plan
from perpetune.loop.training.fine_tune import Challenger
from perpetune.loop.training.fine_tune import fine_tune as fine_tune_adapter
from perpetune.tasks.refresh.plan import correct
from perpetune.tasks.retries import unless_user_error
from perpetune.tasks.time_limits import limited_task
from perpetune.tracking.runs import Run
from perpetune.training.trainer import Forecast, Progress
from perpetune.workspace import Workspace

LOG_SECONDS = 10.0


@limited_task(
    "train",
    name="fine-tune",
    task_run_name="fine-tune the challenger",
    retries=2,
    retry_delay_seconds=10,
    retry_condition_fn=unless_user_error,
    cache_policy=NO_CACHE,
)
def fine_tune(workspace: Workspace, run: Run, planned: Plan) -> Challenger:
    bar = create_progress_artifact(0.0, key="training", description="steps done, in percent")
    assert isinstance(bar, UUID)

    def on_forecast(forecast: Forecast) -> None:
        print(forecast_line(forecast))
        for note in forecast.notes:
            print(note)
        correct(planned, forecast.seconds)

    def warn(sentence: str) -> None:
        print(f"warning: {sentence}")

    challenger = fine_tune_adapter(workspace, run, _progress_reporter(bar), on_forecast, warn)
    update_progress_artifact(bar, 100.0)
    return challenger


def _progress_reporter(bar: UUID) -> Callable[[Progress], None]:
    """Report progress in Prefect's UI and log every `LOG_SECONDS`, because each line is a request."""
    reported = time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal reported
        for note in progress.notes:
            print(note)
        done = progress.step == progress.steps
        if progress.validation_loss is None and not done and time.monotonic() - reported < LOG_SECONDS:
            return
        reported = time.monotonic()
        print(progress_line(progress))
        update_progress_artifact(bar, 100.0 * progress.step / progress.steps)

    return report


def forecast_line(forecast: Forecast) -> str:
    return (
        f"training: {forecast.steps} steps, about {_rounded(forecast.seconds)}, "
        f"{forecast.bytes_needed / 1e9:.1f} GB of memory beside the base model ({forecast.bytes_free / 1e9:.1f} GB free)"
    )


def _rounded(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def progress_line(progress: Progress) -> str:
    filled = round(20 * progress.step / progress.steps)
    validation = "" if progress.validation_loss is None else f", validation loss {progress.validation_loss:.3f}"
    return (
        f"training {'█' * filled}{'░' * (20 - filled)} {progress.step}/{progress.steps}, "
        f"{progress.tokens_per_second:,.0f} tokens/s, {progress.seconds_left:.0f} s left, "
        f"loss {progress.loss:.3f}{validation}"
    )
