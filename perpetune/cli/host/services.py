"""`perpetune demo` and `up`: the services of one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from perpetune.cli.console import Json, console, errors, for_people, print_json
from perpetune.settings import Settings
from perpetune.workspace import open_workspace

commands = typer.Typer()


def _port(name: str, usual: int) -> Any:
    """An option for a port from 1 to 65535."""
    help_ = f"Where {name} listens; else {usual} or the next free port."
    return typer.Option(min=1, max=65535, help=help_, show_default=False)


PrefectPort = Annotated[int | None, _port("Prefect", 4200)]
MlflowPort = Annotated[int | None, _port("MLflow", 5000)]
GatewayPort = Annotated[int | None, _port("the gateway", 8000)]
WorkerPort = Annotated[int | None, _port("the worker's health check", 4201)]
VllmPort = Annotated[int | None, _port("vLLM (if `serve.engine` is vllm)", 8100)]


@commands.command(epilog="Example: `perpetune demo --folder /tmp/demo`")
def demo(
    folder: Annotated[Path, typer.Option(help="The folder of the demo; an earlier demo in it is replaced.")] = Path(
        "demo"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the services running at the end, until Ctrl-C.")] = False,
    json_: Json = False,
) -> None:
    """Run the whole loop on real data: fine-tune, serve, decay, detect, retrain, swap."""
    from perpetune.demo.script import tell

    with for_people():
        summary = tell(Settings().assets.absolute(), folder.absolute(), keep=keep, console=errors if json_ else console)
        if json_:
            print_json(summary)


@commands.command(epilog="Example: `perpetune up --gateway-port 8080`")
def up(
    prefect_port: PrefectPort = None,
    mlflow_port: MlflowPort = None,
    gateway_port: GatewayPort = None,
    worker_port: WorkerPort = None,
    vllm_port: VllmPort = None,
) -> None:
    """Run all services on this machine until Ctrl-C."""
    from perpetune.model.weights import fetch_wheels
    from perpetune.runtime.processes.ports import NamedPorts
    from perpetune.runtime.up import run_until_interrupted

    with for_people():
        workspace = open_workspace()
        fetch_wheels(workspace.params.models, workspace.assets)
        named = NamedPorts(prefect_port, mlflow_port, gateway_port, worker_port, vllm_port)
        run_until_interrupted(workspace, named, console)
