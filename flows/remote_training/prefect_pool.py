"""A flow run in a Prefect work pool: Vertex AI custom jobs, Kubernetes, ECS or any other type."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
from prefect import flow, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.deployments.runner import DeploymentApplyError, RunnerDeployment
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.states import Cancelling
from prefect.types.entrypoint import EntrypointType

from perpetune.errors import PerpetuneError
from perpetune.flows.remote_training.container import command_here


@flow(name="train", log_prints=True)
def train(address: str) -> None:
    """Train the job at this address of an object store; started by PERPETUNE_TRAINING_LAUNCHER."""
    with subprocess.Popen(command_here(address)) as worker:
        try:
            status = worker.wait()
        except BaseException:
            worker.terminate()  # it stores its checkpoint before it ends
            raise
    if status:
        raise RuntimeError(f"the training ended with status {status}; the run that started it says why")


@dataclass(frozen=True)
class PrefectPool:
    """`variables` are job variables of the pool's template, such as a machine type. Tasks may share a pool: each has its
    own deployment `train/TASK`, because the image belongs to that.
    """

    pool: str
    task: str
    image: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)

    def start(self, address: str) -> str:
        deployment = train.to_deployment(
            name=self.task,
            tags=["perpetune", self.task],
            job_variables=dict(self.variables),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        assert isinstance(deployment, RunnerDeployment)
        name = f"{train.name}/{self.task}"
        with _said():
            try:
                deployment.apply(work_pool_name=self.pool, image=self.image)
            except DeploymentApplyError as fault:
                raise PerpetuneError(
                    f"Prefect refused the deployment: {fault}",
                    where=f"the work pool {self.pool}",
                    do="create the pool with `prefect work-pool create`, or name another one with --pool",
                ) from fault
            run = run_deployment(name, parameters={"address": address}, timeout=0, as_subflow=False)
        assert isinstance(run, FlowRun)
        return str(run.id)

    def why_ended(self, job: str) -> str | None:
        with _said(), get_client(sync_client=True) as client:
            try:
                state = client.read_flow_run(UUID(job)).state
            except ObjectNotFound:
                return "the flow run was deleted"
        if state is None or not state.is_final():
            return None
        return f"{state.name} {state.message or ''}".strip()

    def stop(self, job: str) -> None:
        with _said(), get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(job), Cancelling())


@contextmanager
def _said() -> Iterator[None]:
    try:
        yield
    # RuntimeError is Prefect's for a server that cannot be reached.
    except (httpx.HTTPError, PrefectException, RuntimeError) as fault:
        what = (str(fault) or type(fault).__name__).splitlines()[0]
        raise PerpetuneError(
            f"Prefect cannot be asked: {what}",
            where="PREFECT_API_URL",
            do="check the address, and that the server runs",
        ) from fault
