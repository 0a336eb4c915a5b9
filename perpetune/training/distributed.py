"""Several processes train one model: each reads its share of every batch and holds its share of the weights.

Joined by torchrun or `accelerate launch` through accelerate, sharded by FSDP2 (Zhao et al. 2023,
arXiv:2304.11277): NCCL between GPUs, gloo between CPUs.
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
    """This process among `size` that train together."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0


ALONE = World()


def join() -> World:
    """Meet the other processes that the launcher started; alone where it started none."""
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return World(state.process_index, state.num_processes)


def leave(world: World) -> None:
    """Wait for the others: a process that ends breaks the connections that a slower one still reads from."""
    if world.size > 1:
        dist.barrier()
        dist.destroy_process_group()


def shard(model: nn.Module, layers: Sequence[nn.Module], world: World) -> None:
    """Spread the weights over the world, layer by layer: each is whole only while it is computed."""
    if world.size == 1:
        return
    from torch.distributed.fsdp import fully_shard

    for layer in layers:
        fully_shard(layer)
    fully_shard(model)


def share(batch: Sequence[Encoded], world: World) -> list[Encoded]:
    """This process's rows. One that would have none gets a row that counts nothing, to keep step with the others."""
    mine = list(batch[world.rank :: world.size])
    return mine or [replace(batch[0], weight=0.0)]


def in_step(runs: list[list[Encoded]], world: World) -> list[list[Encoded]]:
    """As many passes as the process with the most, since each pass is computed together."""
    if world.size == 1:
        return runs
    most = torch.tensor(len(runs), device=_device())
    dist.all_reduce(most, dist.ReduceOp.MAX)
    idle = [replace(runs[0][0], weight=0.0)]
    return runs + [idle] * (int(most) - len(runs))


def summed(value: float, world: World) -> float:
    """The sum of all processes' values."""
    if world.size == 1:
        return value
    total = torch.tensor(value, device=_device(), dtype=torch.float64 if _device().type == "cpu" else torch.float32)
    dist.all_reduce(total)
    return float(total)


def agreed(wish: bool, world: World) -> bool:
    """What the leader wishes: clocks differ, decisions must not."""
    if world.size == 1:
        return wish
    said = torch.tensor(int(wish), device=_device())
    dist.broadcast(said, 0)
    return bool(said)


def whole(tensor: Tensor) -> Tensor:
    """A copy of the tensor in this process's memory, gathered where it is spread over several."""
    gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return gathered.detach().to("cpu", copy=True)


@torch.no_grad()
def put(value: Tensor, tensor: Tensor) -> None:
    """Write a whole value into a tensor, into this process's share where it is spread."""
    tensor.copy_(placed(value, tensor))


def placed(value: Tensor, like: Tensor) -> Tensor:
    """A whole value spread as another tensor of its shape is."""
    if not isinstance(like, DTensor):
        return value.to(like.device)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
