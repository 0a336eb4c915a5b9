"""A version on trial is judged until it takes over or is dropped."""

from __future__ import annotations

from typing import Literal

from prefect import flow
from prefect.runtime import flow_run

from perpetune.workspace import open_workspace


def run_name() -> str:
    return f"trial ({flow_run.parameters['trigger']})"


@flow(name="trial", flow_run_name=run_name, log_prints=True)
def trial(trigger: Literal["manual", "begun"] = "manual") -> str:
    """Judge the trial that runs; returns "promote", "abort" or "no trial". One that broke off is gone on with."""
    # Late: it brings torch, MLflow and Evidently, which a worker, who only starts runs, does without.
    from perpetune.tasks.trial import follow_trial

    return follow_trial(open_workspace()) or "no trial"
