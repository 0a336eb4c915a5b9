"""`python launch.py --nodes 2 --gpus-per-node 8 ARGUMENTS`: `torchrun ARGUMENTS` on machines of a Ray cluster.

Each machine runs one torchrun, in one bundle of a placement group that no two bundles of share a machine. What they
write comes out here, stdout on stdout. Where one fails, all are stopped; so they are when this process is asked to
end, and, by Ray, when it dies. Needs Ray here and there (`pip install "ray[client]"`), and perpetune there.

The cluster is that of RAY_ADDRESS (`ray://HEAD:10001` from outside of it), else the one that this machine is part of.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util import get_node_ip_address
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

# Of this process's environment: what training reads, on every machine alike.
HANDED_ON = ("PYTHONPATH", "HF_", "NCCL_", "GLOO_", "TORCH_", "OMP_", "CUBLAS_")
STOP_SECONDS = 20


def main() -> int:
    wanted, arguments = _parser().parse_known_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=False, logging_level="warning")
    with _machines(wanted.nodes, wanted.gpus_per_node, wanted.wait_seconds) as group:
        return _run(group, wanted.nodes, max(1, wanted.gpus_per_node), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(usage="%(prog)s [options] ARGUMENTS-OF-TORCHRUN", allow_abbrev=False)
    parser.add_argument("--nodes", type=int, default=2, help="machines")
    parser.add_argument("--gpus-per-node", type=int, default=1, help="and processes; 0 is one process on the CPU")
    parser.add_argument("--wait-seconds", type=float, default=600, help="for the machines to be free")
    return parser


@contextmanager
def _machines(nodes: int, gpus: int, wait_seconds: float) -> Iterator[Any]:
    group = placement_group([{"CPU": 1, **({"GPU": gpus} if gpus else {})}] * nodes, strategy="STRICT_SPREAD")
    try:
        if not group.wait(wait_seconds):
            sys.exit(f"no {nodes} machines with {gpus} free GPUs each in the Ray cluster within {wait_seconds:.0f} s")
        yield group
    finally:
        remove_placement_group(group)


def _run(group: Any, nodes: int, processes: int, arguments: list[str]) -> int:
    """Run to the end of all machines or to the first failure; returns torchrun's exit status."""
    said = Queue(actor_options={"num_cpus": 0})
    environment = {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)}
    address, port = ray.get(_meeting_point.options(**_on(group, 0)).remote())
    running = []
    for rank in range(nodes):
        joined = ["--nnodes", str(nodes), "--node-rank", str(rank), "--nproc-per-node", str(processes)]
        met = ["--master-addr", address, "--master-port", str(port)]
        command = ["-m", "torch.distributed.run", *joined, *met, *arguments]
        running.append(_torchrun.options(**_on(group, rank)).remote(command, environment, said))
    try:
        while running:
            ended, running = ray.wait(running, timeout=0.2)
            _pass_on(said)
            for status in ray.get(ended):
                if status:
                    return int(status)
        return 0
    finally:
        for task in running:
            ray.cancel(task)
        if running:
            ray.wait(running, num_returns=len(running), timeout=STOP_SECONDS)
        _pass_on(said)


def _on(group: Any, bundle: int) -> dict[str, Any]:
    """The whole of one machine's bundle."""
    resources = group.bundle_specs[bundle]
    position = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
    return {"num_cpus": 1, "num_gpus": resources.get("GPU", 0), "scheduling_strategy": position}


def _pass_on(said: Queue) -> None:
    while True:
        try:
            stream, line = said.get_nowait()
        except Empty:
            return
        print(line, end="", file=getattr(sys, stream), flush=True)


@ray.remote(max_retries=0)
def _meeting_point() -> tuple[str, int]:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return get_node_ip_address(), probe.getsockname()[1]


@ray.remote(max_retries=0)
def _torchrun(command: list[str], environment: dict[str, str], said: Queue) -> int:
    """Returns the exit status. Cancelled, it ends torchrun, which ends what it has started."""
    process = subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pumps = [threading.Thread(target=_pump, args=(name, getattr(process, name), said)) for name in ("stdout", "stderr")]
    for pump in pumps:
        pump.start()
    try:
        while process.poll() is None:
            time.sleep(0.2)  # being cancelled interrupts Python between two steps, not a system call
        return process.returncode
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
        for pump in pumps:
            pump.join()


def _pump(name: str, stream: Any, said: Queue) -> None:
    for line in stream:
        said.put((name, line))


if __name__ == "__main__":
    sys.exit(main())
