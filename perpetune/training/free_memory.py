"""The memory that a training can still have; the doctor asks too, which should not wait for all that an estimate imports."""

from __future__ import annotations

import psutil
import torch


def free_bytes() -> int:
    """Of the GPU, if there is one, else of the machine."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)
