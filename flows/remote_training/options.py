"""Options of the services that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from perpetune.errors import PerpetuneError
from perpetune.flows.remote_training.kubeflow import Kubeflow


def add_kubeflow_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", required=True, help="with perpetune and the store's package")
    parser.add_argument("--host", default="", help="address of the Pipelines API; empty, that of the cluster")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--accelerator", default="nvidia.com/gpu", help="name of the resource")
    parser.add_argument("--cpu", default="4")
    parser.add_argument("--memory", default="32G")
    parser.add_argument("--service-account", help="which may use the store")
    add_environment(parser)


def kubeflow_of(options: argparse.Namespace) -> Kubeflow:
    return Kubeflow(
        image=options.image,
        host=options.host,
        gpus=options.gpus,
        accelerator=options.accelerator,
        cpu=options.cpu,
        memory=options.memory,
        service_account=options.service_account,
        environment=pairs(options.env, "--env"),
    )


def add_environment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of the container")


def pairs(given: Sequence[str], option: str) -> Mapping[str, str]:
    """The values by name. Raises PerpetuneError if one is not NAME=VALUE."""
    found = dict(text.partition("=")[::2] for text in given)
    if any("=" not in text for text in given) or "" in found:
        raise PerpetuneError(f"{option} takes NAME=VALUE", where=" ".join(given))
    return found
