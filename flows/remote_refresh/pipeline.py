"""The pipeline of Kubeflow Pipelines, made from the steps of the flow.

kfp reads the annotations of components, so that they are no texts here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpetune.flows.remote_refresh.steps import STEPS, command
from perpetune.flows.remote_training.kubeflow import Kubeflow, kfp_package, said

PIPELINE = "perpetune-refresh"


@dataclass(frozen=True)
class RefreshPipeline:
    """A step in a container each, with the image and the resources of `kubeflow`; GPUs only for those that compute."""

    kubeflow: Kubeflow

    def pipeline(self) -> Any:
        """The pipeline function of kfp, whose parameter is the address of the copied workspace."""
        components = [(step, self.kubeflow.component(step.name, command(step, ""))) for step in STEPS]

        def refresh(address: str) -> None:
            before = None
            for step, component in components:
                task = self.kubeflow.configured(component(address=address), computes=step.computes)
                if before is not None:
                    task.after(before)
                before = task

        return kfp_package().dsl.pipeline(
            refresh, name=PIPELINE, description="Refresh a copy of a workspace in an object store."
        )

    def compile(self, file: Path) -> None:
        kfp_package().compiler.Compiler().compile(self.pipeline(), str(file))

    def start(self, address: str) -> str:
        with said():
            return self.kubeflow.run(self.pipeline(), address)

    def why_ended(self, job: str) -> str | None:
        return self.kubeflow.why_ended(job)

    def stop(self, job: str) -> None:
        self.kubeflow.stop(job)
