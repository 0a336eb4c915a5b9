"""All checks, in the order in which a fault explains the later ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from perpetune.doctor import data, host, records, services
from perpetune.doctor.finding import Finding, fault_of
from perpetune.doctor.served import served_tasks
from perpetune.errors import PerpetuneError
from perpetune.runtime.addresses import saved_addresses
from perpetune.settings import Settings
from perpetune.workspace import Workspace, open_workspace


def examine(folder: Path) -> Iterator[Finding]:
    """Check the workspace in `folder`, its machine and its services; each finding as soon as it is known.

    Nothing is started or changed, except that an outdated prediction log is upgraded, as by any command that opens it.
    """
    yield host.python_version()
    yield host.packages()
    try:
        workspace = _with_running_services(open_workspace(folder))
    except PerpetuneError as error:
        yield fault_of("settings", error)
        return
    yield Finding("settings", "ok", f"params.yaml of task {workspace.params.task.name}")
    yield host.disk(workspace)
    yield host.base_model(workspace)
    yield from served_tasks(workspace)
    yield data.repository(workspace)
    yield data.pipeline(workspace)
    yield from data.remotes(workspace)
    yield data.backup(workspace, datetime.now(UTC))
    yield records.prediction_log(workspace)
    if workspace.settings.prefect_api_url is None:
        yield services.ports(workspace)
    yield from services.prefect(workspace)
    yield from services.mlflow(workspace)
    yield from services.gateway(workspace)
    yield from services.vllm(workspace)
    yield records.champion(workspace)


def _with_running_services(workspace: Workspace) -> Workspace:
    """The workspace with the addresses of the running `perpetune up`, which do not replace those of the environment."""
    running = saved_addresses(workspace.home)
    if running is None:
        return workspace
    for name, value in running.variables.items():
        os.environ.setdefault(name, value)
    return Workspace(workspace.root, workspace.params, Settings())
