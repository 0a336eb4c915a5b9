"""The memory that is free for training. It is no part of the estimate, because the doctor needs this alone."""

from __future__ import annotations

import psutil
import torch


def free_bytes() -> int:
    """Of the GPU, if there is one, else of the machine."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)
