"""`python -m flows`: register the deployments and run what is due, until a signal ends it."""

from __future__ import annotations

import sys

from prefect import serve

from flows.deployments import deployments
from perpetune.errors import PerpetuneError
from perpetune.workspace import open_workspace


def main() -> None:
    try:
        workspace = open_workspace()
    except PerpetuneError as fault:
        sys.exit(str(fault))
    serve(*deployments(workspace.params), print_starting_message=False)


main()
