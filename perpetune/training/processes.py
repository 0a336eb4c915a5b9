"""How many processes train, and the command that starts them."""

from __future__ import annotations

import sys

from perpetune.params import TrainParams


def process_count(params: TrainParams) -> int:
    """The number of processes; "auto" is one for each GPU, one without a GPU."""
    if params.processes != "auto":
        return params.processes
    import torch

    return max(1, torch.cuda.device_count())


def torchrun(count: int) -> list[str]:
    """The torchrun command for so many processes on this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
