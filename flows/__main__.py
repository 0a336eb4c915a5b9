"""`python -m flows`: register the deployments and run what is due, until a signal ends it.

`python -m flows deploy --pool gpu --image IMAGE --workspace /workspace`: leave them to the workers of a work pool (docs/clusters.md).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from prefect import serve
from prefect.deployments.runner import DeploymentApplyError

from flows.deployments import deploy, deployments
from perpetune.errors import PerpetuneError
from perpetune.workspace import open_workspace


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows", description="Serve the deployments, until a signal.")
    commands = parser.add_subparsers(dest="command", metavar="deploy")
    to_pool = commands.add_parser("deploy", help="leave them to the workers of a work pool")
    to_pool.add_argument("--pool", required=True, help="its name, as in `prefect work-pool ls`")
    to_pool.add_argument("--image", help="in which the runs start, where the pool starts containers")
    to_pool.add_argument("--workspace", type=Path, help="this folder, as the workers see it, where that differs")
    wanted = parser.parse_args()
    try:
        workspace = open_workspace()
        if wanted.command == "deploy":
            folder = wanted.workspace or workspace.root
            for name in deploy(workspace.params, wanted.pool, wanted.image, folder):
                print(f"{name} now runs in the work pool {wanted.pool}")
            return
    except (PerpetuneError, DeploymentApplyError) as fault:
        sys.exit(str(fault))
    serve(*deployments(workspace.params), print_starting_message=False)


main()
