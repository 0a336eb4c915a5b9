"""A training job of Amazon SageMaker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from perpetune.errors import PerpetuneError
from perpetune.flows.remote_training.container import command

_ENDED = ("Completed", "Failed", "Stopped")


@dataclass(frozen=True)
class SageMaker:
    """`role` is an ARN that may read and write the object store; sizes are in GB, times in hours."""

    image: str
    role: str
    instance: str
    output: str
    disk_gb: int = 100
    hours: float = 24.0
    spot: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    def request(self, address: str) -> dict[str, Any]:
        """The body of CreateTrainingJob."""
        seconds = int(self.hours * 3600)
        program, *arguments = command(address)
        return {
            "TrainingJobName": f"perpetune-{uuid.uuid4().hex[:12]}",
            "RoleArn": self.role,
            "AlgorithmSpecification": {
                "TrainingImage": self.image,
                "TrainingInputMode": "File",
                "ContainerEntrypoint": [program],
                "ContainerArguments": arguments,
            },
            # Asked for by the API. The container stores its result itself, and nothing is put there.
            "OutputDataConfig": {"S3OutputPath": self.output},
            "ResourceConfig": {
                "InstanceType": self.instance,
                "InstanceCount": 1,
                "VolumeSizeInGB": self.disk_gb,
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": seconds}
            | ({"MaxWaitTimeInSeconds": 2 * seconds} if self.spot else {}),
            "EnableManagedSpotTraining": self.spot,
            "Environment": dict(self.environment),
        }

    def start(self, address: str) -> str:
        with _said():
            request = self.request(address)
            self._client.create_training_job(**request)
            return str(request["TrainingJobName"])

    def why_ended(self, job: str) -> str | None:
        with _said():
            found = self._client.describe_training_job(TrainingJobName=job)
        status = str(found["TrainingJobStatus"])
        return f"{status} {found.get('FailureReason', '')}".strip() if status in _ENDED else None

    def stop(self, job: str) -> None:
        with _said():
            self._client.stop_training_job(TrainingJobName=job)

    @cached_property
    def _client(self) -> Any:
        import boto3

        return boto3.client("sagemaker")


@contextmanager
def _said() -> Iterator[None]:
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise PerpetuneError("SageMaker needs the package boto3", do="pip install boto3") from None
    try:
        yield
    except (BotoCoreError, ClientError) as fault:
        raise PerpetuneError(
            f"SageMaker refused: {fault}", where="AWS", do="check the region, the credentials and the options"
        ) from fault
