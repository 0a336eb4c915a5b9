"""A run of Kubeflow Pipelines with one step, the training.

kfp reads the annotations of components, so that they are no texts here.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from perpetune.errors import PerpetuneError
from perpetune.flows.remote_training.container import command

PIPELINE = "perpetune-training"
_ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


@dataclass(frozen=True)
class Kubeflow:
    """`host` is the address of the Pipelines API; `memory` and `cpu` are Kubernetes quantities."""

    image: str
    host: str = ""
    gpus: int = 1
    accelerator: str = "nvidia.com/gpu"
    cpu: str = "4"
    memory: str = "32G"
    service_account: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def pipeline(self) -> Any:
        """The pipeline function of kfp, whose parameter is the job's address."""
        component = self.component("train", command(""))

        def training(address: str) -> None:
            self.configured(component(address=address), computes=True)

        return kfp_package().dsl.pipeline(training, name=PIPELINE, description="Train a job of an object store.")

    def component(self, name: str, words: Sequence[str]) -> Any:
        """A component of kfp that runs this command in our image, with its parameter, an address, as the last word."""
        dsl, image = kfp_package().dsl, self.image
        program, *arguments = words

        def container(address: str) -> Any:
            return dsl.ContainerSpec(image=image, command=[program], args=[*arguments[:-1], address])

        del container.__annotations__["return"]  # the kind of component says it
        container.__name__ = name
        return dsl.container_component(container)

    def configured(self, step: Any, *, computes: bool) -> Any:
        """The task of a pipeline with our resources and environment, with GPUs if it computes."""
        step.set_caching_options(enable_caching=False)
        step.set_cpu_limit(self.cpu).set_memory_limit(self.memory)
        if self.gpus and computes:
            step.set_accelerator_type(self.accelerator).set_accelerator_limit(self.gpus)
        for name, value in self.environment.items():
            step.set_env_variable(name, value)
        return step

    def compile(self, file: Path) -> None:
        kfp_package().compiler.Compiler().compile(self.pipeline(), str(file))

    def start(self, address: str) -> str:
        with said():
            return self.run(self.pipeline(), address)

    def run(self, pipeline: Any, address: str) -> str:
        """Start a run of the pipeline; returns its id."""
        run = self._client.create_run_from_pipeline_func(
            pipeline, arguments={"address": address}, service_account=self.service_account, enable_caching=False
        )
        return str(run.run_id)

    def why_ended(self, job: str) -> str | None:
        with said():
            found = self._client.get_run(job)
        state = str(found.state)
        if state not in _ENDED:
            return None
        return f"{state} {getattr(found.error, 'message', '') or ''}".strip()

    def stop(self, job: str) -> None:
        with said():
            self._client.terminate_run(job)

    @cached_property
    def _client(self) -> Any:
        return kfp_package().Client(host=self.host)


@contextmanager
def said() -> Iterator[None]:
    try:
        yield
    except PerpetuneError:
        raise
    # kfp raises errors of its client, of urllib3 and of requests, which share no class.
    except Exception as fault:
        what = (str(fault) or type(fault).__name__).splitlines()[0]
        raise PerpetuneError(
            f"Kubeflow Pipelines cannot be asked: {what}", where="--host", do="check the address and the credentials"
        ) from fault


def kfp_package() -> Any:
    try:
        import kfp
        import kfp.compiler
        import kfp.dsl
    except ImportError:
        raise PerpetuneError("Kubeflow Pipelines needs the package kfp", do="pip install kfp") from None
    return kfp
