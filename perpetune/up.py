"""All services on one machine: shown in one table, stopped together."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from perpetune.addresses import ADDRESSES, remembered
from perpetune.services import Child, Supervisor, answers, free_ports
from perpetune.settings import Settings
from perpetune.stack import Ports, environment, gateway, servers
from perpetune.stack import worker as worker_service
from perpetune.vllm_service import starts_vllm, vllm_service
from perpetune.workspace import Workspace

SECONDS_BETWEEN_TABLES = 2.0


def run_until_interrupted(workspace: Workspace, ports: Ports, console: Console) -> None:
    """Start everything, keep the table of addresses and health up to date, stop on Ctrl-C or SIGTERM.

    Raises PerpetuneError where a port is taken or a service does not start; what was started is stopped.
    """
    ports = replace(ports, vllm=free_ports(1)[0]) if starts_vllm(workspace) else ports
    variables = environment(workspace, ports)
    # First, because it tells at once what is missing.
    vllm = [vllm_service(workspace, ports.vllm)] if ports.vllm is not None else []
    with Supervisor(
        workspace.root,
        workspace.home / "logs",
        variables,
        lambda line: console.print(line, style="yellow", markup=False),
    ) as supervisor:
        console.print("starting; the first time this takes about half a minute")
        supervisor.start(servers(workspace, ports))
        remember_addresses(workspace, variables)
        # A gateway that finds no vLLM would wait longer and longer before it asks again.
        supervisor.start([worker_service(ports.worker), *vllm])
        supervisor.start([gateway(ports.gateway)])
        _show(supervisor, console)
    console.print("all services have stopped")


def _show(supervisor: Supervisor, console: Console) -> None:
    try:
        with Live(table(supervisor.children), console=console, auto_refresh=False) as live:
            while True:
                live.update(table(supervisor.children), refresh=True)
                time.sleep(SECONDS_BETWEEN_TABLES)
    except KeyboardInterrupt:
        console.print("stopping")


def table(children: list[Child]) -> Table:
    """Name, address, health, restarts and log of each service."""
    shown = Table("service", "address", "health", "restarts", "log", title="perpetune: Ctrl-C stops everything")
    for child in children:
        shown.add_row(
            child.service.name, child.service.page or "", health(child), str(child.restarts), _short(child.log)
        )
    return shown


def health(child: Child) -> str:
    if not child.alive():
        return "[red]down[/]"
    if not child.healthy():
        return "[yellow]not answering[/]"
    if child.service.name == "gateway" and not answers(f"{str(child.service.health).removesuffix('healthz')}readyz"):
        return "[yellow]loading its first version[/]"
    return "[green]healthy[/]"


def _short(path: Path) -> str:
    return os.path.relpath(path)


def remember_addresses(workspace: Workspace, variables: dict[str, str]) -> None:
    """Write the addresses where other commands of this workspace look for them."""
    workspace.home.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{name}={variables[name]}\n" for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PERPETUNE_GATEWAY_URL")
    ]
    (workspace.home / ADDRESSES).write_text("".join(lines), encoding="utf-8")


@contextmanager
def with_services(
    workspace: Workspace, *, worker: bool, report: Callable[[str], None], prefect: bool = True
) -> Iterator[Workspace]:
    """The workspace with the addresses of MLflow and, unless it can do without, of Prefect.

    Addresses in the environment count; else those of a `perpetune up` that runs here; else servers are
    started on free ports for as long as the block lasts.
    """
    known = _addressed(workspace, prefect)
    if known is not None:
        yield known
        return
    report(f"no services run here: starting {'Prefect and ' if prefect else ''}MLflow for this command")
    ports = Ports(**dict(zip(("prefect", "mlflow", "worker"), free_ports(3), strict=True)))
    variables = environment(workspace, ports)
    variables.pop("PERPETUNE_GATEWAY_URL")
    with Supervisor(workspace.root, workspace.home / "logs", variables, report) as supervisor:
        supervisor.start([server for server in servers(workspace, ports) if prefect or server.name != "prefect"])
        if worker:
            supervisor.start([worker_service(ports.worker)])
        os.environ.update(variables)
        yield Workspace(workspace.root, workspace.params, Settings())


def _addressed(workspace: Workspace, prefect: bool) -> Workspace | None:
    settings = workspace.settings
    if settings.mlflow_tracking_uri and (settings.prefect_api_url or not prefect):
        return workspace
    found = remembered(workspace.home)
    if not found or not answers(f"{found['PREFECT_API_URL']}/health"):
        return None
    os.environ.update(found)
    return Workspace(workspace.root, workspace.params, Settings())
