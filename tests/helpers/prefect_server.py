"""A real Prefect server for the tests of this process that leave it as it is: its start takes longer than they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from flows_here import send_what_is_left
from prefect.settings import PREFECT_API_URL, temporary_settings
from workspaces import write_params

from perpetune.runtime.processes.supervisor import Supervisor, free_ports
from perpetune.runtime.stack import Ports, environment, servers
from perpetune.workspace import open_workspace


@pytest.fixture(scope="session")
def standing_prefect(tmp_path_factory: pytest.TempPathFactory, seed_servers: Callable[..., None]) -> Iterator[str]:
    """Its address."""
    folder = tmp_path_factory.mktemp("prefect")
    write_params(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PREFECT_API_URL", "PERPETUNE_HOME"):
            patch.delenv(name, raising=False)
        workspace, ports = open_workspace(folder), Ports(*free_ports(4))
        variables = environment(workspace, ports)
        [server] = [each for each in servers(workspace, ports) if each.name == "prefect"]
    seed_servers(workspace, "prefect")
    with Supervisor(folder, workspace.home / "logs", variables, print) as supervisor:
        supervisor.start([server])
        yield variables["PREFECT_API_URL"]


@pytest.fixture(scope="module")
def prefect(standing_prefect: str) -> Iterator[str]:
    """Its address, while flows that are called in this process and commands that it starts use this server."""
    with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_API_URL: standing_prefect}):
        patch.setenv("PREFECT_API_URL", standing_prefect)
        yield standing_prefect
        send_what_is_left()
