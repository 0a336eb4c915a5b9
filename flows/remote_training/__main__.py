"""`python -m perpetune.flows.remote_training --store ADDRESS SERVICE OPTIONS`, as PERPETUNE_TRAINING_LAUNCHER.

perpetune appends `-m perpetune.training.job FOLDER`. See docs/guides/clouds.md.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from perpetune.errors import PerpetuneError
from perpetune.flows.remote_training.kubeflow import Kubeflow
from perpetune.flows.remote_training.options import add_environment, add_kubeflow_options, kubeflow_of, pairs
from perpetune.flows.remote_training.sagemaker import SageMaker
from perpetune.flows.remote_training.this_machine import ThisMachine
from perpetune.training.remote.client import Patience, Service, train_remotely
from perpetune.training.remote.store import JobStore
from perpetune.workspace import open_workspace

_APPENDED = ("-m", "perpetune.training.job")


def main(given: Sequence[str]) -> int:
    options, folder = _options(given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        service = _service(options)
        if folder is None:
            assert isinstance(service, Kubeflow)
            service.compile(options.compile)
            print(f"compiled {options.compile}")
            return 0
        return train_remotely(folder, JobStore(options.store), service, Patience(poll=options.poll_seconds))
    except PerpetuneError as fault:
        print(fault, file=sys.stderr)
        return 1


def _options(given: Sequence[str]) -> tuple[argparse.Namespace, Path | None]:
    """The options, and the job's folder from the words that perpetune appends; none if a pipeline is only compiled."""
    appended = tuple(given[-3:-1]) == _APPENDED
    parser = _parser()
    options = parser.parse_args(given[:-3] if appended else given)
    if appended:
        if options.store is None:
            parser.error("--store is needed: an address such as s3://BUCKET/perpetune")
        return options, Path(given[-1])
    if getattr(options, "compile", None) is None:
        parser.error(
            "perpetune appends `-m perpetune.training.job FOLDER`: set this command as PERPETUNE_TRAINING_LAUNCHER"
        )
    return options, None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m perpetune.flows.remote_training", allow_abbrev=False)
    parser.add_argument(
        "--store", help="where jobs and results go, such as s3://BUCKET/perpetune or gs://BUCKET/perpetune"
    )
    parser.add_argument("--poll-seconds", type=float, default=5.0, help="between two looks at the store")
    services = parser.add_subparsers(dest="service", required=True, metavar="SERVICE")

    sagemaker = services.add_parser("sagemaker", help="a training job of Amazon SageMaker")
    sagemaker.add_argument("--image", required=True, help="in ECR, with perpetune and s3fs")
    sagemaker.add_argument("--role", required=True, help="ARN of the role of the job, which may use the store")
    sagemaker.add_argument("--instance", required=True, help="such as ml.g5.2xlarge")
    sagemaker.add_argument("--disk-gb", type=int, default=100, help="for the base, the checkpoints and the adapter")
    sagemaker.add_argument("--hours", type=float, default=24.0, help="after which SageMaker stops it")
    sagemaker.add_argument(
        "--spot", action="store_true", help="on spot instances; an interrupted job goes on by itself"
    )
    add_environment(sagemaker)

    pool = services.add_parser("prefect", help="a Prefect work pool, such as one of type vertex-ai")
    pool.add_argument("--pool", required=True, help="its name, as in `prefect work-pool ls`")
    pool.add_argument("--image", help="with perpetune and the store's package, if the pool starts containers")
    pool.add_argument(
        "--variable", action="append", default=[], metavar="NAME=VALUE", help="a job variable of the pool"
    )

    kubeflow = services.add_parser("kubeflow", help="Kubeflow Pipelines")
    kubeflow.add_argument("--compile", type=Path, metavar="FILE", help="only write the pipeline to this YAML file")
    add_kubeflow_options(kubeflow)

    services.add_parser("here", help="a process of this machine, to try the store and the options")
    return parser


def _service(options: argparse.Namespace) -> Service:
    if options.service == "sagemaker":
        return SageMaker(
            image=options.image,
            role=options.role,
            instance=options.instance,
            output=f"{options.store}/sagemaker",
            disk_gb=options.disk_gb,
            hours=options.hours,
            spot=options.spot,
            environment=pairs(options.env, "--env"),
        )
    if options.service == "prefect":
        # Imported late: the other services do not need Prefect, which takes as long as all else.
        from perpetune.flows.remote_training.prefect_pool import PrefectPool

        variables = {name: _value(text) for name, text in pairs(options.variable, "--variable").items()}
        return PrefectPool(options.pool, open_workspace().params.task.name, options.image, variables)
    if options.service == "kubeflow":
        return kubeflow_of(options)
    return ThisMachine()


def _value(text: str) -> object:
    """A number, a list or the like if it is JSON; else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
