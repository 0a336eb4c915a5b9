"""What is sent to SageMaker, Vertex AI and Kubeflow, checked by their own libraries. None of their services is asked."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
import yaml
from moto import mock_aws
from prefect.settings import PREFECT_API_URL, temporary_settings

from perpetune.errors import PerpetuneError
from perpetune.flows.remote_training.__main__ import main
from perpetune.flows.remote_training.container import command
from perpetune.flows.remote_training.kubeflow import Kubeflow
from perpetune.flows.remote_training.prefect_pool import PrefectPool
from perpetune.flows.remote_training.sagemaker import SageMaker

pytestmark = pytest.mark.slow

ADDRESS = "s3://models/perpetune/jobs/1"
IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/perpetune:1"
ROLE = "arn:aws:iam::123456789012:role/training"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        yield


def sagemaker(**options: Any) -> SageMaker:
    return SageMaker(
        image=IMAGE, role=ROLE, instance="ml.g5.2xlarge", output="s3://models/perpetune/sagemaker", **options
    )


@pytest.mark.usefixtures("aws")
def test_sagemaker_gets_the_command_the_limits_and_the_environment() -> None:
    service = sagemaker(hours=2, spot=True, environment={"HF_TOKEN": "x"})
    found = boto3.client("sagemaker").describe_training_job(TrainingJobName=service.start(ADDRESS))
    algorithm = found["AlgorithmSpecification"]
    assert algorithm["TrainingImage"] == IMAGE
    assert [*algorithm["ContainerEntrypoint"], *algorithm["ContainerArguments"]] == command(ADDRESS)
    assert found["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200, "MaxWaitTimeInSeconds": 14400}
    request = service.request(ADDRESS)  # the simulation keeps less
    assert (request["Environment"], request["EnableManagedSpotTraining"]) == ({"HF_TOKEN": "x"}, True)
    assert found["ResourceConfig"] == {"InstanceType": "ml.g5.2xlarge", "InstanceCount": 1, "VolumeSizeInGB": 100}


@pytest.mark.usefixtures("aws")
def test_sagemaker_says_how_a_job_ended() -> None:
    service = sagemaker()
    assert service.why_ended(service.start(ADDRESS)) == "Completed"  # at once, in the simulation


@pytest.mark.usefixtures("aws")
def test_a_refusal_of_sagemaker_is_one_sentence() -> None:
    with pytest.raises(PerpetuneError, match=r"SageMaker refused: .*nosuch"):
        sagemaker().why_ended("nosuch")


def test_sagemaker_without_its_package_says_which_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("boto3", "botocore", "botocore.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PerpetuneError, match="needs the package boto3"):
        sagemaker().start(ADDRESS)


def test_a_service_that_cannot_be_asked_for_a_while_ends_no_training() -> None:
    """The client waits for a service that raises PerpetuneError, and stops the training at any other error."""
    job = str(uuid4())
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        for ask in (
            PrefectPool("gpu", "reviews").why_ended,
            PrefectPool("gpu", "reviews").stop,
            PrefectPool("gpu", "reviews").start,
        ):
            with pytest.raises(PerpetuneError, match=r"Prefect (cannot be asked|refused)"):
                ask(job)

    class Unreachable:
        def __getattr__(self, name: str) -> Any:
            raise ConnectionError("no route to host")

    kubeflow = Kubeflow(image=IMAGE)
    kubeflow.__dict__["_client"] = Unreachable()
    for ask in (kubeflow.why_ended, kubeflow.stop):
        with pytest.raises(PerpetuneError, match="Kubeflow Pipelines cannot be asked: no route to host"):
            ask(job)


def test_kubeflow_gets_a_pipeline_whose_step_holds_the_gpus(tmp_path: Path) -> None:
    pytest.importorskip("kfp", reason="kfp is not installed: `make test-clouds`")
    Kubeflow(image=IMAGE, gpus=2, memory="64G", environment={"HF_HOME": "/tmp/hf"}).compile(tmp_path / "pipeline.yaml")
    pipeline = yaml.safe_load((tmp_path / "pipeline.yaml").read_text())
    [executor] = pipeline["deploymentSpec"]["executors"].values()
    container = executor["container"]
    assert container["image"] == IMAGE
    assert [*container["command"], *container["args"]] == command("{{$.inputs.parameters['address']}}")
    assert container["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert container["resources"]["accelerator"]["resourceCount"] == "2"
    assert container["env"] == [{"name": "HF_HOME", "value": "/tmp/hf"}]
    assert list(pipeline["root"]["inputDefinitions"]["parameters"]) == ["address"]


def test_vertex_gets_a_custom_job_of_our_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vertex = pytest.importorskip(
        "prefect_gcp.workers.vertex", reason="prefect-gcp is not installed: `make test-clouds`"
    )
    user = {"type": "authorized_user", "client_id": "x", "client_secret": "x", "refresh_token": "x"}
    (tmp_path / "user.json").write_text(json.dumps(user))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "user.json"))
    given = {"machine_type": "g2-standard-8", "accelerator_type": "NVIDIA_L4", "accelerator_count": 1}
    pool = PrefectPool("vertex", "reviews", IMAGE, given)
    worker = vertex.VertexAIWorker
    configuration = asyncio.run(
        worker.job_configuration.from_template_and_values(
            base_job_template=worker.get_default_base_job_template(),
            client=object(),  # which blocks would be asked for
            values={
                **pool.variables,
                "image": pool.image,
                "region": "europe-west4",
                "command": "prefect flow-run execute",
            },
        )
    )
    [machines] = worker._build_job_spec(None, configuration).worker_pool_specs
    assert machines.container_spec.image_uri == IMAGE
    assert machines.machine_spec.machine_type == "g2-standard-8"
    assert (machines.machine_spec.accelerator_type.name, machines.machine_spec.accelerator_count) == ("NVIDIA_L4", 1)


def test_an_option_without_a_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--store", "file:///tmp/x", "prefect", "--pool", "gpu", "--variable", "region"]
    assert main([*options, "-m", "perpetune.training.job", "/tmp/job"]) == 1
    assert "--variable takes NAME=VALUE" in capsys.readouterr().err
