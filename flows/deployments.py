"""What runs when: schedules, the automation on decay, and one refresh at a time."""

from __future__ import annotations

from datetime import timedelta

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType

from flows.refresh import refresh
from flows.watch import watch
from perpetune.params import Params
from tasks.events import DECAYED, resource

# A second refresh would train on the same data: it is cancelled at once, not queued up behind the first.
ONE_AT_A_TIME = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)


def deployments(params: Params) -> list[RunnerDeployment]:
    """`refresh/TASK` and `watch/TASK`."""
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
                        match={"prefect.resource.id": resource(task)},
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
    ]


def _deployed(deployment: object) -> RunnerDeployment:
    """Narrows Prefect's sync-or-async return type."""
    assert isinstance(deployment, RunnerDeployment)
    return deployment
