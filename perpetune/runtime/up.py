"""`perpetune up`: all services on one machine, with a health table."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from perpetune.errors import PerpetuneError
from perpetune.runtime.addresses import (
    ADDRESSES,
    LOCK_FILE,
    WORKSPACE_ID,
    Addresses,
    delete_addresses,
    is_up,
    save_addresses,
    saved_addresses,
)
from perpetune.runtime.ownership import mark_mlflow, require_not_foreign, require_own
from perpetune.runtime.processes.file_locks import acquire, end_leftovers, lock_owner
from perpetune.runtime.processes.ports import VLLM_PORT, NamedPorts, reserved_ports
from perpetune.runtime.processes.supervisor import Child, Service, Supervisor, answers, free_ports
from perpetune.runtime.served.members import address_files, member_workers, save_member_addresses
from perpetune.runtime.served.registered import served_workspaces
from perpetune.runtime.stack import Ports, environment, gateway, servers
from perpetune.runtime.stack import worker as worker_service
from perpetune.runtime.vllm_service import starts_vllm, vllm_service
from perpetune.settings import Settings
from perpetune.workspace import Workspace

# A check takes a millisecond or two per service; an ended process is noticed within a second.
CHECK_SECONDS = 15.0
CHECK_SECONDS_AFTER_CHANGE = 2.0
STOP_SECONDS = 10.0
FIRST_VERSION_SECONDS = 30.0


def run_until_interrupted(workspace: Workspace, named: NamedPorts, console: Console) -> None:
    """Start all services, print their addresses, show their health, and stop on Ctrl-C, SIGTERM or SIGHUP.

    Raises PerpetuneError if `perpetune up` already runs here, a given port is in use or a service does not start; all
    services are then stopped.
    """
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup sets SIG_IGN
        signal.signal(signal.SIGHUP, _hang_up)  # the terminal was closed
    signal.signal(signal.SIGQUIT, _interrupt)

    def say(line: str) -> None:
        console.print(line, style="yellow", markup=False, soft_wrap=True)

    members = served_workspaces(workspace)
    with (
        _only_one_of_all([workspace, *members], say) as locks,
        reserved_ports(named, vllm=starts_vllm(workspace)) as ports,
    ):
        variables = environment(workspace, ports)
        # First, because it fails at once if vLLM or the base is missing.
        vllm = [vllm_service(workspace, ports.vllm, members)] if ports.vllm is not None else []
        logs = workspace.home / "logs"
        mine = [workspace.home / ADDRESSES, *address_files(members)]
        with Supervisor(workspace.root, logs, variables, say, kept=locks, files=mine) as supervisor:
            try:
                workers = [worker_service(ports.worker), *member_workers(members)]
                first = [*servers(workspace, ports), *workers, *vllm]
                last = gateway(ports.gateway)
                print_ports([*first, last], named, console)
                _print(console, f"starting: {_pages([*first, last])}; logs in {_short(logs)}")
                start_all(supervisor, first, last, console)
                started = _marked(variables, [*first, last])
                save_addresses(workspace.home, variables, started)
                save_member_addresses(members, variables, started)
                show(supervisor, console)
            except KeyboardInterrupt:
                console.print("stopping")
    console.print("all services have stopped")


def print_ports(services: Sequence[Service], named: NamedPorts, console: Console) -> None:
    usual = {**asdict(Ports()), "vllm": VLLM_PORT}
    defaults = {name: usual[name] for name, port in asdict(named).items() if port is None}
    for name, port in asdict(named).items():
        if port is not None and name not in {service.name for service in services}:
            _print(console, f"--{name}-port {port} is not used: the environment names a {name} that runs elsewhere")
    for service in services:
        if service.port != defaults.get(service.name, service.port):
            line = f"port {defaults[service.name]} is in use: {service.name} listens on {service.port}"
            _print(console, line)


def start_all(supervisor: Supervisor, services: list[Service], last: Service, console: Console) -> None:
    """Start the services in parallel, and print a line for each healthy one."""
    began = time.monotonic()
    # The gateway would retry vLLM with increasing pauses, so it starts after it.
    needs_vllm = any(service.name == "vllm" for service in services)
    waves = [services, [last]] if needs_vllm else [[*services, last]]
    for child in chain.from_iterable(supervisor.starting(wave) for wave in waves):
        _print(console, f"{child.service.name}: started ({time.monotonic() - began:.0f} s)")
    answered = _first_answer(last)
    pages = _pages([child.service for child in supervisor.children])
    ready = "ready" if answered else "ready, but the gateway has no version yet (/readyz says why)"
    _print(console, f"{ready}: {pages} ({time.monotonic() - began:.0f} s)")


def _pages(services: Sequence[Service]) -> str:
    return " ".join(sorted(f"{service.name} {service.page}" for service in services if service.page))


def _first_answer(gateway: Service) -> bool:
    """Wait for a limited time until the gateway is ready with a version."""
    until = time.monotonic() + FIRST_VERSION_SECONDS
    while time.monotonic() < until:
        if answers(_readiness(gateway)):
            return True
        time.sleep(0.5)
    return False


def show(supervisor: Supervisor, console: Console) -> None:
    """Show a table on a terminal, otherwise a line for each change."""
    if not console.is_terminal:
        known: dict[str, str] = {}
        for states in _states(supervisor):
            for name, state in states.items():
                if known.get(name, state) != state:
                    _print(console, f"{name}: {Text.from_markup(state).plain}")
            known = states
    with Live(console=console, auto_refresh=False) as live:
        for states in _states(supervisor):
            live.update(table(supervisor.children, states), refresh=True)


def _states(supervisor: Supervisor) -> Iterator[dict[str, str]]:
    """Yield the health of each service forever; checks are rarer while nothing changes."""
    before: dict[str, str] = {}
    while True:
        alive = _alive(supervisor)
        states = {child.service.name: health(child) for child in supervisor.children}
        yield states
        until = time.monotonic() + (CHECK_SECONDS if states == before else CHECK_SECONDS_AFTER_CHANGE)
        while time.monotonic() < until and alive == _alive(supervisor):
            time.sleep(1)
        before = states


def _alive(supervisor: Supervisor) -> list[tuple[bool, int]]:
    return [(child.alive(), child.restarts) for child in supervisor.children]


def table(children: list[Child], states: Mapping[str, str]) -> Table:
    """A table with address, health, restarts and log of each service."""
    shown = Table("service", "address", "health", "restarts", "log", title="perpetune: Ctrl-C stops everything")
    for child in children:
        name, page = child.service.name, child.service.page or ""
        shown.add_row(name, page, states[name], str(child.restarts), _short(child.log))
    return shown


def health(child: Child) -> str:
    if not child.alive():
        return "[red]down[/]"
    if not child.healthy():
        return "[yellow]not answering[/]"
    if child.service.name == "gateway" and not answers(_readiness(child.service)):
        return "[yellow]loading its first version[/]"
    return "[green]healthy[/]"


def _readiness(gateway: Service) -> str:
    """The URL of the gateway's readiness probe."""
    return f"{str(gateway.health).removesuffix('healthz')}readyz"


def _short(path: Path) -> str:
    return os.path.relpath(path)


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


def _marked(variables: Mapping[str, str], services: Sequence[Service]) -> set[str]:
    """The services that can say that they belong to this workspace: see `ownership`."""
    started = {service.name for service in services}
    if WORKSPACE_ID not in variables:
        return set()
    if "mlflow" in started and not mark_mlflow(variables["MLFLOW_TRACKING_URI"], variables[WORKSPACE_ID]):
        started.remove("mlflow")
    return started & {"prefect", "mlflow", "gateway"}


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _hang_up(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # shell and kernel both send it
    raise KeyboardInterrupt


@contextmanager
def _only_one_of_all(workspaces: Sequence[Workspace], say: Callable[[str], None]) -> Iterator[list[int]]:
    """As `_only_one`, for each of the workspaces."""
    with ExitStack() as locks:
        yield [locks.enter_context(_only_one(each, say)) for each in workspaces]


@contextmanager
def _only_one(workspace: Workspace, say: Callable[[str], None]) -> Iterator[int]:
    """Lock the workspace for one `perpetune up`; yields the file descriptor, which the services inherit.

    Services left by a killed `perpetune up` are stopped. Raises PerpetuneError if one runs.
    """
    file = workspace.home / LOCK_FILE
    held = acquire(file)
    if held is None and end_leftovers(file, STOP_SECONDS):
        say("stopped services left by a killed `perpetune up`")
        held = acquire(file)
    if held is None:
        saved = saved_addresses(workspace.home)
        addresses = " ".join(saved.urls) if saved else "it is still starting"
        raise PerpetuneError(
            f"`perpetune up` already runs here as process {lock_owner(file)}: {addresses}",
            where=str(workspace.root),
            do=f"use it, or stop it with Ctrl-C in its terminal or `kill {lock_owner(file)}`",
        )
    with held:
        delete_addresses(workspace.home)
        try:
            yield held.fileno()
        finally:
            delete_addresses(workspace.home)


@contextmanager
def with_services(
    workspace: Workspace, *, worker: bool, report: Callable[[str], None], prefect: bool = True
) -> Iterator[Workspace]:
    """The workspace with the addresses of running MLflow and, if `prefect`, Prefect servers.

    Addresses come from the environment, else from the running `perpetune up`; else servers are started on free ports
    while the block runs.
    """
    known = _addressed(workspace, prefect, report)
    if known is not None:
        yield known
        return
    report(f"`perpetune up` does not run: starting {'Prefect and ' if prefect else ''}MLflow for this command")
    ports = Ports(**dict(zip(("prefect", "mlflow", "worker"), free_ports(3), strict=True)))
    variables = environment(workspace, ports)
    variables.pop("PERPETUNE_GATEWAY_URL")
    with Supervisor(workspace.root, workspace.home / "logs", variables, report) as supervisor:
        supervisor.start([server for server in servers(workspace, ports) if prefect or server.name != "prefect"])
        if worker:
            supervisor.start([worker_service(ports.worker)])
        os.environ.update(variables)
        yield Workspace(workspace.root, workspace.params, Settings())


def is_lasting(workspace: Workspace) -> bool:
    """Whether MLflow outlives a command that uses it: it runs elsewhere, or `perpetune up` runs."""
    return workspace.settings.mlflow_tracking_uri is not None or is_up(workspace.home)


def _addressed(workspace: Workspace, prefect: bool, report: Callable[[str], None]) -> Workspace | None:
    settings = workspace.settings
    if settings.mlflow_tracking_uri and (settings.prefect_api_url or not prefect):
        require_not_foreign(settings, workspace.home)
        return workspace
    found = _awaited(workspace.home, report)
    if found is None:
        return None
    require_own(found)
    os.environ.update(found.variables)
    return Workspace(workspace.root, workspace.params, Settings())


def _awaited(home: Path, report: Callable[[str], None]) -> Addresses | None:
    """The addresses of the running `perpetune up`, after waiting for its start; None if none runs."""
    found = saved_addresses(home)
    if found is None and is_up(home):
        report("waiting for `perpetune up` of this workspace to start")
    while found is None and is_up(home):
        time.sleep(0.5)
        found = saved_addresses(home)
    return found
