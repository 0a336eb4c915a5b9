"""Which ports a stack takes: those that were named, else the usual ones, else the next that are free."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from perpetune.runtime.file_locks import claim
from perpetune.runtime.processes import is_free, port_taken, require_free
from perpetune.runtime.stack import Ports


@dataclass(frozen=True)
class NamedPorts:
    """None: the usual port, or the next free one."""

    prefect: int | None = None
    mlflow: int | None = None
    gateway: int | None = None


@contextmanager
def claimed_ports(named: NamedPorts) -> Iterator[Ports]:
    """Ports for a stack, kept from other stacks of this user for as long as the block lasts.

    A service takes its port seconds after it was started: until then only the claim tells. Raises PerpetuneError if
    a named port is taken.
    """
    with ExitStack() as claims:
        kept = {name: port for name, port in asdict(named).items() if port is not None}
        for name, port in kept.items():
            if not _take(claims, port):
                require_free(port, name)
                raise port_taken(port, name, "another `perpetune up`")
        usual = {"prefect": Ports.prefect, "mlflow": Ports.mlflow, "gateway": Ports.gateway, "worker": Ports.worker}
        free = {name: _next_free(claims, port) for name, port in usual.items() if name not in kept}
        yield Ports(**kept, **free)


def _next_free(claims: ExitStack, first: int) -> int:
    return next(port for port in count(first) if _take(claims, port))


def _take(claims: ExitStack, port: int) -> bool:
    if not is_free(port):
        return False
    held = claim(Path(tempfile.gettempdir()) / f"perpetune-{os.getuid()}" / f"port-{port}.lock")
    if held is not None:
        claims.enter_context(held)
    return held is not None
