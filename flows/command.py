"""`python -m perpetune.flows`: serve the deployments until a signal.

`python -m perpetune.flows deploy --pool gpu --image IMAGE --workspace /workspace`: register them with a work pool
instead (docs/guides/gpus.md).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import prefect
from prefect import get_client, serve
from prefect.deployments.runner import DeploymentApplyError

import perpetune
from perpetune.errors import PerpetuneError
from perpetune.flows.deployments import deploy, deployments
from perpetune.workspace import open_workspace

RETRY_SECONDS = 0.5
# The gateway on the same machine has priority. On two cores with two busy threads an answer of SmolLM2 took 430 ms
# instead of 60, with niced threads 70. Niced threads still get about a tenth of busy cores.
NICENESS = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m perpetune.flows", description="Serve the deployments until a signal."
    )
    commands = parser.add_subparsers(dest="command", metavar="deploy")
    to_pool = commands.add_parser("deploy", help="register the deployments with a work pool")
    to_pool.add_argument("--pool", required=True, help="the work pool's name, as in `prefect work-pool ls`")
    to_pool.add_argument("--image", help="container image of the runs, if the pool starts containers")
    to_pool.add_argument("--workspace", type=Path, help="path of this workspace on the workers, if it differs")
    arguments = parser.parse_args()
    try:
        workspace = open_workspace()
        require_no_namesake(workspace.root)
        if arguments.command == "deploy":
            folder = arguments.workspace or workspace.root
            for name in deploy(workspace.params, arguments.pool, arguments.image, folder):
                print(f"{name} now runs in the work pool {arguments.pool}")
            return
    except (PerpetuneError, DeploymentApplyError) as fault:
        sys.exit(str(fault))
    found = deployments(workspace.params)
    os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    await_server()
    # No pause on shutdown: it needs the server, which `perpetune up` stops at the same time.
    serve(*found, print_starting_message=False, pause_on_shutdown=False)


def require_no_namesake(folder: Path) -> None:
    """Refuse a workspace that hides perpetune or Prefect: Prefect imports both from the working directory first.

    Other modules come later, when `perpetune.flows` has moved the working directory to the end of the path.
    Raises PerpetuneError.
    """
    for hidden in (perpetune, prefect):
        name = hidden.__name__
        for file in (folder / f"{name}.py", folder / name / "__init__.py"):
            if file.is_file() and not file.samefile(str(hidden.__file__)):
                raise PerpetuneError(
                    f"this module hides {name} from the flow runs of this workspace", where=str(file), do="rename it"
                )


def await_server() -> None:
    """Wait until Prefect's server answers: `perpetune up` starts it at the same time as this process."""
    with get_client(sync_client=True) as client:
        printed = False
        while (fault := client.api_healthcheck()) is not None:
            if not printed:
                print(f"waiting for Prefect at {client.api_url}: {fault}")
            printed = True
            time.sleep(RETRY_SECONDS)
