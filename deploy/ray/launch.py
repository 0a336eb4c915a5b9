"""`python launch.py --nodes 2 --gpus-per-node 8 ARGUMENTS`: `torchrun ARGUMENTS` on machines of a Ray cluster.

Each machine runs one torchrun, in a bundle of a placement group with one bundle per machine. Their stdout and stderr are
printed here. If one fails or this process ends, all are stopped. Needs Ray on all machines (`pip install "ray[client]"`),
and perpetune on those of the cluster.

The cluster is that of RAY_ADDRESS (`ray://HEAD:10001` from outside), else the one of this machine.
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

# Environment variables passed to the training on every machine.
PASSED_VARIABLES = ("PYTHONPATH", "HF_", "NCCL_", "GLOO_", "TORCH_", "OMP_", "CUBLAS_")
STOP_SECONDS = 20


def main() -> int:
    options, arguments = _parser().parse_known_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=False, logging_level="warning")
    with _machines(options.nodes, options.gpus_per_node, options.wait_seconds) as group:
        return _run(group, options.nodes, max(1, options.gpus_per_node), arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(usage="%(prog)s [options] ARGUMENTS-OF-TORCHRUN", allow_abbrev=False)
    parser.add_argument("--nodes", type=int, default=2, help="number of machines")
    parser.add_argument(
        "--gpus-per-node", type=int, default=1, help="GPUs and processes per machine; 0 for one process on the CPU"
    )
    parser.add_argument("--wait-seconds", type=float, default=600, help="how long to wait for free machines")
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
    """Run until all machines have finished or one fails; returns torchrun's exit status."""
    output = Queue(actor_options={"num_cpus": 0})
    environment = {name: value for name, value in os.environ.items() if name.startswith(PASSED_VARIABLES)}
    address, port = ray.get(_rendezvous.options(**_on(group, 0)).remote())
    running = []
    for rank in range(nodes):
        world = ["--nnodes", str(nodes), "--node-rank", str(rank), "--nproc-per-node", str(processes)]
        rendezvous = ["--master-addr", address, "--master-port", str(port)]
        command = ["-m", "torch.distributed.run", *world, *rendezvous, *arguments]
        running.append(_torchrun.options(**_on(group, rank)).remote(command, environment, output))
    try:
        while running:
            ended, running = ray.wait(running, timeout=0.2)
            _print_output(output)
            for status in ray.get(ended):
                if status:
                    return int(status)
        return 0
    finally:
        for task in running:
            ray.cancel(task)
        if running:
            ray.wait(running, num_returns=len(running), timeout=STOP_SECONDS)
        _print_output(output)


def _on(group: Any, bundle: int) -> dict[str, Any]:
    """Task options that reserve one machine's bundle."""
    resources = group.bundle_specs[bundle]
    position = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
    return {"num_cpus": 1, "num_gpus": resources.get("GPU", 0), "scheduling_strategy": position}


def _print_output(output: Queue) -> None:
    while True:
        try:
            stream, line = output.get_nowait()
        except Empty:
            return
        print(line, end="", file=getattr(sys, stream), flush=True)


@ray.remote(max_retries=0)
def _rendezvous() -> tuple[str, int]:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return get_node_ip_address(), probe.getsockname()[1]


@ray.remote(max_retries=0)
def _torchrun(command: list[str], environment: dict[str, str], output: Queue) -> int:
    """Run torchrun and return its exit status; cancelling the task terminates it."""
    process = subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pumps = [
        threading.Thread(target=_pump, args=(name, getattr(process, name), output)) for name in ("stdout", "stderr")
    ]
    for pump in pumps:
        pump.start()
    try:
        while process.poll() is None:
            time.sleep(0.2)  # short, because a cancellation does not interrupt a system call
        return process.returncode
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
        for pump in pumps:
            pump.join()


def _pump(name: str, stream: Any, output: Queue) -> None:
    for line in stream:
        output.put((name, line))


if __name__ == "__main__":
    sys.exit(main())
