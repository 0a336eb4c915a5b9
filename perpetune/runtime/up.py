"""All services on one machine: shown in one table, stopped together."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from perpetune.errors import PerpetuneError
from perpetune.runtime.addresses import CLAIM, forget, is_up, remember, remembered
from perpetune.runtime.file_locks import claim, claimed_by, end_leftovers
from perpetune.runtime.ports import NamedPorts, claimed_ports
from perpetune.runtime.processes import Child, Service, Supervisor, answers, free_ports
from perpetune.runtime.stack import Ports, environment, gateway, servers
from perpetune.runtime.stack import worker as worker_service
from perpetune.runtime.vllm_service import starts_vllm, vllm_service
from perpetune.settings import Settings
from perpetune.workspace import Workspace

# A check costs each service a millisecond or two; one that has died is seen at once.
SECONDS_BETWEEN_CHECKS = 15.0
SECONDS_AFTER_A_CHANGE = 2.0
SECONDS_FOR_LEFTOVERS = 10.0
SECONDS_FOR_A_VERSION = 30.0


def run_until_interrupted(workspace: Workspace, named: NamedPorts, console: Console) -> None:
    """Start everything, say when it is ready and where, show its health, stop on Ctrl-C, SIGTERM or SIGHUP.

    Raises PerpetuneError if one runs here already, a named port is taken or a service does not start; what was
    started is stopped.
    """
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
        signal.signal(signal.SIGHUP, _interrupt)  # the terminal was closed

    def say(line: str) -> None:
        console.print(line, style="yellow", markup=False, soft_wrap=True)

    with _only_one(workspace, say) as claimed, claimed_ports(named) as ports:
        ports = replace(ports, vllm=free_ports(1)[0]) if starts_vllm(workspace) else ports
        variables = environment(workspace, ports)
        # First, because it tells at once what is missing.
        vllm = [vllm_service(workspace, ports.vllm)] if ports.vllm is not None else []
        logs = workspace.home / "logs"
        with Supervisor(workspace.root, logs, variables, say, kept=[claimed]) as supervisor:
            try:
                first = [*servers(workspace, ports), worker_service(ports.worker), *vllm]
                last = gateway(ports.gateway)
                _tell_ports([*first, last], named, console)
                start_all(supervisor, first, last, console)
                remember(workspace.home, variables)
                show(supervisor, console)
            except KeyboardInterrupt:
                console.print("stopping")
        forget(workspace.home)
    console.print("all services have stopped")


def _tell_ports(services: Sequence[Service], named: NamedPorts, console: Console) -> None:
    usual = {name: getattr(Ports, name) for name, port in asdict(named).items() if port is None}
    for service in services:
        if service.port != usual.get(service.name, service.port):
            line = f"port {usual[service.name]} is taken: {service.name} listens on {service.port}"
            _print(console, line)


def start_all(supervisor: Supervisor, services: list[Service], last: Service, console: Console) -> None:
    """All at once, and a line for each that has become healthy."""
    began = time.monotonic()
    # A gateway that finds no vLLM would wait longer and longer before it asks again.
    needs_vllm = any(service.name == "vllm" for service in services)
    waves = [services, [last]] if needs_vllm else [[*services, last]]
    for child in chain.from_iterable(supervisor.starting(wave) for wave in waves):
        _print(console, f"{child.service.name}: started ({time.monotonic() - began:.0f} s)")
    answered = _first_answer(last)
    pages = [f"{child.service.name} {child.service.page}" for child in supervisor.children if child.service.page]
    ready = "ready" if answered else "ready, but the gateway has no version yet (/readyz says why)"
    _print(console, f"{ready}: {' '.join(sorted(pages))} ({time.monotonic() - began:.0f} s)")


def _first_answer(gateway: Service) -> bool:
    """Wait until a version answers, for a while: one that does not load should not hold up the rest."""
    until = time.monotonic() + SECONDS_FOR_A_VERSION
    while time.monotonic() < until:
        if answers(_readiness(gateway)):
            return True
        time.sleep(0.5)
    return False


def show(supervisor: Supervisor, console: Console) -> None:
    """A table on a terminal; elsewhere a line for each change."""
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
    """The health of each service, for ever: asked for seldom while nothing changes."""
    before: dict[str, str] = {}
    while True:
        lives = _lives(supervisor)
        states = {child.service.name: health(child) for child in supervisor.children}
        yield states
        until = time.monotonic() + (SECONDS_BETWEEN_CHECKS if states == before else SECONDS_AFTER_A_CHANGE)
        while time.monotonic() < until and lives == _lives(supervisor):
            time.sleep(1)
        before = states


def _lives(supervisor: Supervisor) -> list[tuple[bool, int]]:
    return [(child.alive(), child.restarts) for child in supervisor.children]


def table(children: list[Child], states: Mapping[str, str]) -> Table:
    """Name, address, health, restarts and log of each service."""
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
    """Where it says whether a version answers."""
    return f"{str(gateway.health).removesuffix('healthz')}readyz"


def _short(path: Path) -> str:
    return os.path.relpath(path)


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _only_one(workspace: Workspace, say: Callable[[str], None]) -> Iterator[int]:
    """The open file by which one `perpetune up`, and what it starts, holds this workspace.

    Services that one left which was killed are ended. Raises PerpetuneError if one runs.
    """
    file = workspace.home / CLAIM
    held = claim(file)
    if held is None and end_leftovers(file, SECONDS_FOR_LEFTOVERS):
        say("ended the services that a `perpetune up` which was killed had left here")
        held = claim(file)
    if held is None:
        addresses = " ".join(remembered(workspace.home).values()) or "it is still starting"
        raise PerpetuneError(
            f"`perpetune up` runs here already, as process {claimed_by(file)}: {addresses}",
            where=str(workspace.root),
            do=f"use it, or stop it with Ctrl-C in its terminal or `kill {claimed_by(file)}`",
        )
    with held:
        forget(workspace.home)
        yield held.fileno()


@contextmanager
def with_services(
    workspace: Workspace, *, worker: bool, report: Callable[[str], None], prefect: bool = True
) -> Iterator[Workspace]:
    """The workspace with the addresses of MLflow and, unless it can do without, of Prefect.

    Addresses in the environment count; else those of a `perpetune up` that runs here; else servers are
    started on free ports for as long as the block lasts.
    """
    known = _addressed(workspace, prefect, report)
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


def _addressed(workspace: Workspace, prefect: bool, report: Callable[[str], None]) -> Workspace | None:
    settings = workspace.settings
    if settings.mlflow_tracking_uri and (settings.prefect_api_url or not prefect):
        return workspace
    found = _awaited(workspace.home, report)
    if not found:
        return None
    os.environ.update(found)
    return Workspace(workspace.root, workspace.params, Settings())


def _awaited(home: Path, report: Callable[[str], None]) -> dict[str, str]:
    """The addresses of the `perpetune up` that runs here, once it is ready; {} if none runs."""
    found = remembered(home)
    if not found and is_up(home):
        report("waiting for the `perpetune up` of this workspace, which is starting")
    while not found and is_up(home):
        time.sleep(0.5)
        found = remembered(home)
    return found
