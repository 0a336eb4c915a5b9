"""The ports of a stack: those given as options, else the default ones, else the next free ones."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from perpetune.errors import PerpetuneError
from perpetune.runtime.processes.file_locks import acquire
from perpetune.runtime.processes.supervisor import is_free, port_taken, require_free
from perpetune.runtime.stack import Ports

HIGHEST_PORT = 65535
VLLM_PORT = 8100  # its own default is the gateway's


@dataclass(frozen=True)
class NamedPorts:
    """Ports given as options; None for the default port or the next free one."""

    prefect: int | None = None
    mlflow: int | None = None
    gateway: int | None = None
    worker: int | None = None
    vllm: int | None = None


@contextmanager
def reserved_ports(named: NamedPorts, *, vllm: bool = False) -> Iterator[Ports]:
    """Ports for a stack, with or without vLLM, reserved against other stacks of this user while the block runs.

    A service binds its port seconds after its start; the lock file reserves it until then. Raises PerpetuneError if a
    given port is in use, is given twice, or is for a vLLM that is not started.
    """
    with ExitStack() as locks:
        kept = {name: port for name, port in asdict(named).items() if port is not None}
        _require_different(kept)
        if "vllm" in kept and not vllm:
            raise PerpetuneError(
                "no vLLM is started here, so it needs no port",
                where="--vllm-port",
                do="set serve.engine to vllm in params.yaml and unset PERPETUNE_VLLM_URL, or leave the option out",
            )
        for name, port in kept.items():
            if not _take(locks, port):
                require_free(port, name)
                raise port_taken(port, name, "another `perpetune up`")
        defaults = {"prefect": Ports.prefect, "mlflow": Ports.mlflow, "gateway": Ports.gateway, "worker": Ports.worker}
        if vllm:
            defaults["vllm"] = VLLM_PORT
        free = {name: _next_free(locks, port) for name, port in defaults.items() if name not in kept}
        yield Ports(**kept, **free)


def _require_different(kept: Mapping[str, int]) -> None:
    for name, port in kept.items():
        twice = [f"--{other}-port" for other in kept if kept[other] == port]
        if len(twice) > 1:
            raise PerpetuneError(
                f"{' and '.join(twice)} are both {port}", do=f"choose another port for the {name} or for the other"
            )


def _next_free(locks: ExitStack, first: int) -> int:
    for port in range(first, HIGHEST_PORT + 1):
        if _take(locks, port):
            return port
    raise PerpetuneError(f"no port from {first} is free", do="name free ports: see `perpetune up --help`")


def _take(locks: ExitStack, port: int) -> bool:
    if not is_free(port):
        return False
    held = acquire(Path(tempfile.gettempdir()) / f"perpetune-{os.getuid()}" / f"port-{port}.lock")
    if held is not None:
        locks.enter_context(held)
    return held is not None
