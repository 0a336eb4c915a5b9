"""The trial flow: check the version on trial until it is promoted or aborted."""

from __future__ import annotations

from typing import Literal

from prefect import flow
from prefect.runtime import flow_run

from perpetune.workspace import open_workspace


def run_name() -> str:
    return f"trial ({flow_run.parameters['trigger']})"


@flow(name="trial", flow_run_name=run_name, log_prints=True)
def trial(trigger: Literal["manual", "begun"] = "manual") -> str:
    """Check the running trial until there is a verdict; returns "promote", "abort" or "no trial"."""
    # Imported late: a worker, which only starts runs, does not need torch, MLflow and Evidently.
    from perpetune.tasks.rollout.trial import follow_trial

    return follow_trial(open_workspace()) or "no trial"
