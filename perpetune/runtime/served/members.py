"""What `perpetune up` does for the workspaces that it serves too: a worker for each, and its addresses for their commands."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from perpetune.runtime.addresses import ADDRESSES, save_addresses
from perpetune.runtime.processes.supervisor import Service, free_ports
from perpetune.runtime.stack import worker
from perpetune.workspace import Workspace


def member_workers(members: Sequence[Workspace]) -> list[Service]:
    """The services that start the flow runs of each workspace, in its folder, with its home and log."""
    ports = free_ports(len(members))
    return [_worker(member, port) for member, port in zip(members, ports, strict=True)]


def _worker(member: Workspace, port: int) -> Service:
    plain = worker(port)
    variables = [f"PERPETUNE_HOME={member.home}", f"PREFECT_RUNNER_SERVER_PORT={port}"]
    if member.settings.database_url is None:
        variables.append(f"PERPETUNE_DATABASE_URL={member.settings.prediction_log}")
    command = ("env", *variables, *plain.command)
    return Service(f"worker-{member.params.task.name}", command, port, plain.health, folder=member.root)


def address_files(members: Sequence[Workspace]) -> list[Path]:
    return [member.home / ADDRESSES for member in members]


def save_member_addresses(members: Sequence[Workspace], variables: Mapping[str, str], started: Collection[str]) -> None:
    """Let the commands of each workspace find the services, which belong to the serving one."""
    for member in members:
        save_addresses(member.home, variables, started)
