"""The approval flow: what follows when a person has approved or refused a version."""

from __future__ import annotations

from uuid import UUID

from prefect import flow
from prefect.runtime import flow_run

from perpetune.workspace import open_workspace


@flow(name="approval", flow_run_name="approve version {version}?", log_prints=True)
def approval(version: str) -> str:
    """Carry out a person's answer; returns "promote" or "reject".

    A refresh makes this run suspended (perpetune.tasks.rollout.approve), so that nothing runs while the version waits. Whoever
    resumes it, in Prefect's UI or by `perpetune approve`, fills in the form, and a worker starts the run then. If nobody does
    in time, Prefect ends it as failed, and the next check or refresh records that (perpetune.flows.release).
    """
    # Imported late: a worker, which only starts runs, does not need torch, MLflow and Evidently.
    from perpetune.flows.release import carry_out
    from perpetune.tasks.rollout.approve import read_response

    return carry_out(open_workspace(), version, read_response(UUID(str(flow_run.id))))
