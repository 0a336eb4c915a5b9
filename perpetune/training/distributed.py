"""Data-parallel training of one model in several processes, with sharded weights.

Started by torchrun or `accelerate launch`, sharded by FSDP2 (Zhao et al. 2023, arXiv:2304.11277): NCCL between GPUs, gloo
between CPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from perpetune.training.batches import Encoded


@dataclass(frozen=True)
class World:
    """The rank of this process, and the number of processes."""

    rank: int = 0
    size: int = 1

    @property
    def is_leader(self) -> bool:
        return self.rank == 0


SINGLE_PROCESS = World()


def init_distributed() -> World:
    """Initialise the process group of the launcher; a world of size 1 without a launcher."""
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return World(state.process_index, state.num_processes)


def shutdown_distributed(world: World) -> None:
    """Wait for the other processes, which may still read from this one, and end the process group."""
    if world.size > 1:
        dist.barrier()
        dist.destroy_process_group()


def shard(model: nn.Module, layers: Sequence[nn.Module], world: World) -> None:
    """Shard the weights over the processes, layer by layer (FSDP2)."""
    if world.size == 1:
        return
    from torch.distributed.fsdp import fully_shard

    for layer in layers:
        fully_shard(layer)
    fully_shard(model)


def local_rows(batch: Sequence[Encoded], world: World) -> list[Encoded]:
    """This process's rows of a batch; a row of weight 0 if it would have none."""
    rows = list(batch[world.rank :: world.size])
    return rows or [replace(batch[0], weight=0.0)]


def padded_passes(runs: list[list[Encoded]], world: World) -> list[list[Encoded]]:
    """Pad the micro-batches to the largest number of any process, with rows of weight 0: FSDP needs equal numbers."""
    if world.size == 1:
        return runs
    most = torch.tensor(len(runs), device=_device())
    dist.all_reduce(most, dist.ReduceOp.MAX)
    idle = [replace(runs[0][0], weight=0.0)]
    return runs + [idle] * (int(most) - len(runs))


def all_reduce_sum(value: float, world: World) -> float:
    """The sum of the values of all processes."""
    if world.size == 1:
        return value
    total = torch.tensor(value, device=_device(), dtype=torch.float64 if _device().type == "cpu" else torch.float32)
    dist.all_reduce(total)
    return float(total)


def leader_decision(decision: bool, world: World) -> bool:
    """The leader's decision, for decisions that depend on the clock."""
    if world.size == 1:
        return decision
    value = torch.tensor(int(decision), device=_device())
    dist.broadcast(value, 0)
    return bool(value)


def full_tensor(tensor: Tensor) -> Tensor:
    """A copy of the tensor in CPU memory, gathered if it is sharded."""
    gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return gathered.detach().to("cpu", copy=True)


@torch.no_grad()
def copy_into(value: Tensor, tensor: Tensor) -> None:
    """Copy a full value into a tensor that may be sharded."""
    tensor.copy_(distribute_like(value, tensor))


def distribute_like(value: Tensor, like: Tensor) -> Tensor:
    """A full value on the device, and with the sharding, of another tensor of its shape."""
    if not isinstance(like, DTensor):
        return value.to(like.device)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
