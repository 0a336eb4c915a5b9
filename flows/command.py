"""`python -m perpetune.flows`: serve the deployments until a signal.

`python -m perpetune.flows deploy --pool gpu --image IMAGE --workspace /workspace`: register them with a work pool
instead (docs/guides/gpus.md).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prefect import get_client
from prefect.deployments.runner import DeploymentApplyError, RunnerDeployment
from prefect.exceptions import TerminationSignal
from prefect.runner import Runner
from prefect.settings import PREFECT_RUNNER_SERVER_ENABLE, get_current_settings, temporary_settings

from perpetune.errors import PerpetuneError
from perpetune.flows import OUTSIDE, RUN_FOLDER
from perpetune.flows.alerting.automations import register_alerts
from perpetune.flows.dead_runs import RunsOfDeployments, ending_dead_runs, looks_for
from perpetune.flows.deployments import deploy, deployments
from perpetune.flows.health import health_server
from perpetune.proxies import spare_this_machine
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
    spare_this_machine()
    try:
        workspace = open_workspace()
        if arguments.command == "deploy":
            folder = arguments.workspace or workspace.root
            for name in deploy(workspace.params, arguments.pool, arguments.image, folder):
                print(f"{name} now runs in the work pool {arguments.pool}")
            if channels := register_alerts(
                workspace.params.task.name, workspace.settings.alerts, workspace.params.limits
            ):
                print(f"alerts go to {channels} channels")
            return
    except (PerpetuneError, DeploymentApplyError) as fault:
        sys.exit(str(fault))
    found = deployments(workspace.params)
    os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))
    await_server()
    try:
        register_alerts(workspace.params.task.name, workspace.settings.alerts, workspace.params.limits)
    except PerpetuneError as fault:  # runs are more important than alerts; `perpetune doctor` says it too
        print(f"there are no alerts: {fault}")
    leave(workspace.root)
    run_worker(found)


def run_worker(found: Sequence[RunnerDeployment]) -> None:
    """Start the runs of these deployments when they are due, until a signal.

    The health check listens where PREFECT_RUNNER_SERVER_HOST and PREFECT_RUNNER_SERVER_PORT say, if
    PREFECT_RUNNER_SERVER_ENABLE is true.
    """
    settings = get_current_settings().runner
    # No pause on shutdown: it needs the server, which `perpetune up` stops at the same time.
    runner = Runner(pause_on_shutdown=False)
    for deployment in found:
        runner.add_deployment(deployment)
    with ExitStack() as stack:
        if settings.server.enable:
            silence = timedelta(seconds=settings.server.missed_polls_tolerance * settings.poll_frequency)
            where = str(settings.server.host), settings.server.port
            stack.enter_context(health_server(*where, lambda: polled_within(runner, silence)))
        # Its own web server would stop it at the request of any web page.
        stack.enter_context(temporary_settings({PREFECT_RUNNER_SERVER_ENABLE: False}))
        looks = looks_for(get_current_settings().flows.heartbeat_frequency or 0)
        stack.enter_context(ending_dead_runs(RunsOfDeployments(tuple({str(each.name) for each in found})), looks))
        with suppress(KeyboardInterrupt, TerminationSignal):
            asyncio.run(runner.start())


def polled_within(runner: Runner, silence: timedelta) -> bool:
    """Whether it has asked Prefect for runs in this time."""
    return runner.last_polled is not None and datetime.now(UTC) - runner.last_polled <= silence


def leave(folder: Path) -> None:
    """Go outside the workspace `folder`, so that runs import nothing from it; they work in it (perpetune.flows)."""
    os.environ[RUN_FOLDER] = str(folder)
    if "PYTHONPATH" in os.environ:
        entries = os.environ["PYTHONPATH"].split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in entries if entry)
    os.chdir(OUTSIDE)


def await_server() -> None:
    """Wait until Prefect's server answers: `perpetune up` starts it at the same time as this process."""
    with get_client(sync_client=True) as client:
        printed = False
        while (fault := client.api_healthcheck()) is not None:
            if not printed:
                print(f"waiting for Prefect at {client.api_url}: {fault}")
            printed = True
            time.sleep(RETRY_SECONDS)
