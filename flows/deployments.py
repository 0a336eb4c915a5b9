"""The deployments: schedules, event triggers, and a concurrency limit of one run each."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import Flow, get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ObjectNotFound
from prefect.runner.storage import LocalStorage
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType

from perpetune.errors import PerpetuneError
from perpetune.flows import OUTSIDE, RUN_FOLDER
from perpetune.flows.approval import approval
from perpetune.flows.refresh import refresh
from perpetune.flows.retention import retention
from perpetune.flows.trial import trial
from perpetune.flows.watch import watch
from perpetune.params import Params
from perpetune.runtime.events import DECAYED, TRIAL, resource

# A second refresh would train on the same data, so it is cancelled rather than queued.
ONE_AT_A_TIME = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)

# Job variables of watch, trial, approval and retention, which train nothing (deploy/kubernetes/work-pool.json).
WITHOUT_TRAINING = {"gpus": 0, "cpu": "1", "memory": "8Gi"}

# The workspace, which runs start in, may hold a flows.py, a folder mlflow/ or the like: nothing is imported from there.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}


def deployments(params: Params) -> list[RunnerDeployment]:
    """The deployments `refresh/TASK`, `watch/TASK`, `trial/TASK`, `approval/TASK` and `retention/TASK`."""
    task = params.task.name
    return [
        _deployment(
            refresh,
            task,
            schedules=[Cron(params.refresh.cron, parameters={"trigger": "schedule", "reason": "the weekly schedule"})],
            triggers=[
                DeploymentEventTrigger(
                    name=f"refresh {task} when it has decayed",
                    expect={DECAYED},
                    match={"prefect.resource.id": resource(task)["prefect.resource.id"]},
                    parameters={"trigger": "decay", "reason": "{{ event.payload.reason }}"},
                    threshold=1,
                    within=timedelta(0),
                )
            ],
            concurrency_limit=ONE_AT_A_TIME,
            description="Curate, fine-tune, evaluate, decide, release.",
        ),
        _deployment(
            watch,
            task,
            schedules=[Cron(params.watch.cron, parameters={"trigger": "schedule"})],
            concurrency_limit=ONE_AT_A_TIME,
            description="Check the newest traffic; decay triggers a refresh.",
        ),
        _deployment(
            trial,
            task,
            triggers=[
                DeploymentEventTrigger(
                    name=f"check the trial of {task} when it has begun",
                    expect={TRIAL},
                    match={"prefect.resource.id": resource(task)["prefect.resource.id"]},
                    parameters={"trigger": "begun"},
                    threshold=1,
                    within=timedelta(0),
                )
            ],
            concurrency_limit=ONE_AT_A_TIME,
            description="Check the version on trial until it is promoted or aborted.",
        ),
        _deployment(
            approval,
            task,
            description="A run of it is suspended until a person approves or refuses a version, and carries that out.",
        ),
        _deployment(
            retention,
            task,
            schedules=[Cron(params.retention.cron, parameters={"trigger": "schedule"})],
            concurrency_limit=ONE_AT_A_TIME,
            description="Delete what is old and nothing needs, or say what would go (retention.delete).",
        ),
    ]


def deploy(params: Params, pool: str, image: str | None, folder: Path) -> list[str]:
    """Register the deployments with a work pool; returns their names.

    The runs work in `folder`, the path of the workspace on the workers, and import nothing from it: by default Prefect
    would run in a copy of it.
    Raises PerpetuneError if there is no such pool or it needs an image, DeploymentApplyError if Prefect rejects them.
    """
    _require(pool, image)
    found = deployments(params)
    for deployment in found:
        deployment.job_variables = {
            "env": {**SAFE_PATH, RUN_FOLDER: str(folder)},
            **({} if deployment.flow_name == refresh.name else WITHOUT_TRAINING),
        }
        deployment.storage = LocalStorage(str(OUTSIDE))
        deployment.apply(work_pool_name=pool, image=image)
    return [deployment.full_name for deployment in found]


def _require(pool: str, image: str | None) -> None:
    with get_client(sync_client=True) as client:
        try:
            found = client.read_work_pool(pool)
        except ObjectNotFound as fault:
            raise PerpetuneError(
                f"Prefect has no work pool named {pool}",
                where=str(client.api_url),
                do="create it with `prefect work-pool create` (docs/guides/gpus.md), or pass another name with --pool",
            ) from fault
    if image is None and "image" in found.base_job_template.get("variables", {}).get("properties", {}):
        raise PerpetuneError(
            f"the work pool {pool} starts containers, so it needs an image",
            where="--image",
            do="pass an image with perpetune, such as one built from deploy/Dockerfile",
        )


def _deployment(flow: Flow[..., Any], task: str, **options: Any) -> RunnerDeployment:
    found = flow.to_deployment(
        name=task, tags=["perpetune", task], entrypoint_type=EntrypointType.MODULE_PATH, **options
    )
    assert isinstance(found, RunnerDeployment)  # Prefect's return type is also that of an asynchronous call
    return found
