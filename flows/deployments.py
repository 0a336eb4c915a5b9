"""What runs when: schedules, the automations on decay and on a trial, and one run of each at a time."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from prefect import get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ObjectNotFound
from prefect.runner.storage import LocalStorage
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType

from perpetune.errors import PerpetuneError
from perpetune.flows.refresh import refresh
from perpetune.flows.trial import trial
from perpetune.flows.watch import watch
from perpetune.params import Params
from perpetune.runtime.events import DECAYED, TRIAL, resource

# A second refresh would train on the same data: it is cancelled at once, not queued up behind the first.
ONE_AT_A_TIME = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)

# What watch and trial ask of a pool that counts such things (deploy/kubernetes/work-pool.json): they train nothing.
WATCHING = {"gpus": 0, "cpu": "1", "memory": "8Gi"}

# The workspace, which runs start in, may hold a flows.py, a folder mlflow/ or the like: nothing is imported from there.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}


def deployments(params: Params) -> list[RunnerDeployment]:
    """`refresh/TASK`, `watch/TASK` and `trial/TASK`."""
    task = params.task.name
    return [
        _deployed(
            refresh.to_deployment(
                name=task,
                schedules=[
                    Cron(params.refresh.cron, parameters={"trigger": "schedule", "reason": "the weekly schedule"})
                ],
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
                tags=["perpetune", task],
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
        ),
        _deployed(
            watch.to_deployment(
                name=task,
                schedules=[Cron(params.watch.cron, parameters={"trigger": "schedule"})],
                concurrency_limit=ONE_AT_A_TIME,
                description="Judge the newest traffic; decay starts a refresh.",
                tags=["perpetune", task],
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
        ),
        _deployed(
            trial.to_deployment(
                name=task,
                triggers=[
                    DeploymentEventTrigger(
                        name=f"judge the trial of {task} when it has begun",
                        expect={TRIAL},
                        match={"prefect.resource.id": resource(task)["prefect.resource.id"]},
                        parameters={"trigger": "begun"},
                        threshold=1,
                        within=timedelta(0),
                    )
                ],
                concurrency_limit=ONE_AT_A_TIME,
                description="Judge the version on trial until it takes over or is dropped.",
                tags=["perpetune", task],
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
        ),
    ]


def deploy(params: Params, pool: str, image: str | None, folder: Path) -> list[str]:
    """Register the same deployments with a work pool, whose workers start their runs elsewhere; returns their names.

    The runs work in `folder`, the workspace as those workers see it: unless told so, Prefect copies the folder that
    they start in, data and all, and runs in the copy.
    Raises PerpetuneError where there is no such pool, or it wants an image; DeploymentApplyError where it refuses them.
    """
    _require(pool, image)
    found = deployments(params)
    for deployment in found:
        deployment.job_variables = {"env": SAFE_PATH, **({} if deployment.flow_name == refresh.name else WATCHING)}
        deployment.storage = LocalStorage(str(folder))
        deployment.apply(work_pool_name=pool, image=image)
    return [deployment.full_name for deployment in found]


def _require(pool: str, image: str | None) -> None:
    with get_client(sync_client=True) as client:
        try:
            found = client.read_work_pool(pool)
        except ObjectNotFound as fault:
            raise PerpetuneError(
                f"Prefect has no work pool {pool}",
                where=str(client.api_url),
                do="create it with `prefect work-pool create` (docs/clusters.md), or correct the name",
            ) from fault
    if image is None and "image" in found.base_job_template.get("variables", {}).get("properties", {}):
        raise PerpetuneError(
            f"the work pool {pool} starts containers, and no image is named",
            where="--image",
            do="name one that holds perpetune, such as that of the deploy/Dockerfile",
        )


def _deployed(deployment: object) -> RunnerDeployment:
    """Narrows Prefect's sync-or-async return type."""
    assert isinstance(deployment, RunnerDeployment)
    return deployment
