"""`python -m perpetune.flows`: register the deployments and run what is due, until a signal ends it.

`python -m perpetune.flows deploy --pool gpu --image IMAGE --workspace /workspace`: leave them to the workers of a work pool (docs/clusters.md).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from prefect import get_client, serve
from prefect.deployments.runner import DeploymentApplyError

import perpetune
from perpetune.errors import PerpetuneError
from perpetune.flows.deployments import deploy, deployments
from perpetune.workspace import open_workspace

SECONDS_BETWEEN_TRIES = 0.5
# Requests come first. Beside two busy threads on the same two cores an answer of SmolLM2 took 430 ms instead of 60; beside
# two that give way it takes 70. They still get about a tenth of cores that are busy all the time.
NICENESS = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m perpetune.flows", description="Serve the deployments, until a signal."
    )
    commands = parser.add_subparsers(dest="command", metavar="deploy")
    to_pool = commands.add_parser("deploy", help="leave them to the workers of a work pool")
    to_pool.add_argument("--pool", required=True, help="its name, as in `prefect work-pool ls`")
    to_pool.add_argument("--image", help="in which the runs start, where the pool starts containers")
    to_pool.add_argument("--workspace", type=Path, help="this folder, as the workers see it, where that differs")
    wanted = parser.parse_args()
    try:
        workspace = open_workspace()
        require_no_namesake(workspace.root)
        if wanted.command == "deploy":
            folder = wanted.workspace or workspace.root
            for name in deploy(workspace.params, wanted.pool, wanted.image, folder):
                print(f"{name} now runs in the work pool {wanted.pool}")
            return
    except (PerpetuneError, DeploymentApplyError) as fault:
        sys.exit(str(fault))
    found = deployments(workspace.params)
    os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    await_server()
    # Pausing takes a server, and `perpetune up` ends it at the same moment as this process.
    serve(*found, print_starting_message=False, pause_on_shutdown=False)


def require_no_namesake(folder: Path) -> None:
    """Prefect imports a flow with the folder that it runs in first on the path. Other names than ours hide nothing.

    Raises PerpetuneError.
    """
    for file in (folder / "perpetune.py", folder / "perpetune" / "__init__.py"):
        if file.is_file() and not file.samefile(perpetune.__file__):
            raise PerpetuneError(
                "this module hides perpetune from the flow runs of this workspace", where=str(file), do="rename it"
            )


def await_server() -> None:
    """Return when Prefect's server answers: `perpetune up` starts it at the same moment as this process."""
    with get_client(sync_client=True) as client:
        told = False
        while (fault := client.api_healthcheck()) is not None:
            if not told:
                print(f"waiting for Prefect at {client.api_url}: {fault}")
            told = True
            time.sleep(SECONDS_BETWEEN_TRIES)
