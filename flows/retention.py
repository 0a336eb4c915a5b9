"""The retention flow: delete what is old and no longer needed, or say what that is."""

from __future__ import annotations

from typing import Literal

from prefect import flow
from prefect.runtime import flow_run

from perpetune.workspace import open_workspace


def run_name() -> str:
    return f"retention ({flow_run.parameters['trigger']})"


@flow(name="retention", flow_run_name=run_name, log_prints=True)
def retention(trigger: Literal["manual", "schedule"] = "manual", delete: bool | None = None) -> str:
    """Delete what the section `retention` of params.yaml does not keep; returns what, in one line.

    `delete: false` only says what would go. Without it `retention.delete` decides.
    """
    # Imported late: a worker, which only starts runs, does not need MLflow and DVC.
    from perpetune.tasks.retention import prune

    workspace = open_workspace()
    return prune(workspace, delete=workspace.params.retention.delete if delete is None else delete)
