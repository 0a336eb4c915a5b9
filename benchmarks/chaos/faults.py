"""The faults: which there are, a random draw, and what each does to the world and takes back."""

from __future__ import annotations

import math
import random
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from chaos.process import send
from chaos.world import BEHIND_PROXIES, ENGINES, GATEWAYS, World, wait_for

Kind = Literal["kill", "stop", "drop", "stall", "full", "clock"]
FLOWS = "flow runs"  # the processes of the worker's runs, without the worker
_PROCESSES = ("postgres", "s3", "mlflow", "prefect", "worker", FLOWS, *GATEWAYS, *ENGINES)
_JUMPS = (-90_000, -3600, 3600, 90_000)
_HEALTHY_SECONDS, _FLOW_SECONDS = 300.0, 20.0


@dataclass(frozen=True)
class Fault:
    """`after` seconds from the beginning of the round, for `seconds`. `jump` is of the clock, in seconds."""

    kind: Kind
    target: str
    after: float
    seconds: float
    jump: int = 0

    def __str__(self) -> str:
        jump = f" {self.jump:+d} s" if self.jump else ""
        return f"{self.kind}{jump} {self.target}"


def possible(world: World) -> dict[Kind, tuple[str, ...]]:
    """The targets of each kind, on this machine."""
    return {
        "kill": _PROCESSES,
        "stop": _PROCESSES,
        "drop": BEHIND_PROXIES,
        "stall": BEHIND_PROXIES,
        "full": tuple(name for name, disk in world.disks.items() if disk.can_fill),
        "clock": tuple(world.processes) if world.has_clocks else (),
    }


def draw_faults(draw: random.Random, targets: Mapping[Kind, tuple[str, ...]], within: float) -> list[Fault]:
    """One fault, or a pair of different targets, that begin within these seconds."""
    kinds: list[Kind] = [kind for kind, names in targets.items() if names]
    found: list[Fault] = []
    count = draw.choice((1, 1, 2))
    while len(found) < count:
        kind = draw.choice(kinds)
        target = draw.choice(targets[kind])
        if any(each.target == target for each in found):
            continue
        jump = draw.choice(_JUMPS) if kind == "clock" else 0
        found.append(Fault(kind, target, draw.uniform(0, within), draw.uniform(3, 10), jump))
    return found


def run(world: World, fault: Fault) -> None:
    """Wait, break, wait, and take it back; returns when the service is healthy again. Raises TimeoutError."""
    time.sleep(fault.after)
    since = time.monotonic()
    if fault.kind not in ("full", "clock"):
        world.down[fault.target, since] = math.inf
    with _broken(world, fault):
        time.sleep(fault.seconds)
    process = world.processes.get(fault.target)
    if process is not None:
        wait_for(lambda: process.alive and process.healthy(), _HEALTHY_SECONDS, f"{fault.target} after {fault}")
    if (fault.target, since) in world.down:
        world.down[fault.target, since] = time.monotonic()


@contextmanager
def _broken(world: World, fault: Fault) -> Iterator[None]:
    match fault.kind:
        case "kill" | "stop":
            yield from _signalled(world, fault)
        case "drop" | "stall":
            world.proxies[fault.target].switch(fault.kind)
            yield
            world.proxies[fault.target].switch("pass")
        case "full":
            world.disks[fault.target].fill()
            yield
            world.disks[fault.target].free()
        case "clock":
            world.processes[fault.target].set_clock(fault.jump)
            yield
            world.processes[fault.target].set_clock(0)


def _signalled(world: World, fault: Fault) -> Iterator[None]:
    flows = fault.target == FLOWS
    process = world.processes["worker" if flows else fault.target]
    if flows:
        with suppress(TimeoutError):  # an operation without a flow run has none to break
            wait_for(lambda: bool(process.children()), _FLOW_SECONDS, "a flow run")
    victims = process.children() if flows else process.processes()
    if fault.kind == "stop":
        send(victims, signal.SIGSTOP)
        yield
        send(victims, signal.SIGCONT)
        return
    process.held = not flows
    send(victims, signal.SIGKILL)
    yield
    process.held = False
