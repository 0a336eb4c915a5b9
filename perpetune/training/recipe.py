"""The values of "auto" in the train section, by size of data and model, from benchmarks/recipe.py.

The best learning rate of LoRA is about ten times that of full fine-tuning and a power of the model's width (Schulman et al.
2025, LoRA without regret, whose rate is for alpha / rank = 4 and independent of the rank). Small batches are best for LoRA,
but on a CPU a step of 32 short rows takes hardly longer than one of 16, and few rows need many steps.
"""

from __future__ import annotations

from perpetune.params import TrainParams
from perpetune.training.schedule import UNVALIDATED_EPOCHS

WIDTH_POWER = 0.78
RATE = 2.0e-4  # at a width of 2,000 and alpha / rank = 2
FULL = 0.1  # of LoRA's rate
BATCHES = ((200, 8), (600, 16))  # (up to so many rows, batch size)
LARGEST_BATCH = 32
CPU_MINUTES = 3.0  # so that a refresh of a thousand rows takes six


def learning_rate(params: TrainParams, width: int) -> float:
    """The learning rate for a model whose hidden states have this width."""
    if params.learning_rate != "auto":
        return params.learning_rate
    rate = RATE * float((2000 / width) ** WIDTH_POWER)
    return rate * FULL if params.method == "full" else rate


def explicit(params: TrainParams, width: int) -> TrainParams:
    """The section with numbers for learning rate and epochs, as the start of a search."""
    epochs = UNVALIDATED_EPOCHS if params.epochs == "auto" else params.epochs
    return params.model_copy(update={"learning_rate": learning_rate(params, width), "epochs": epochs})


def time_limit(params: TrainParams, device: str) -> float | None:
    """The limit in minutes of a run with `epochs: auto`; None for no limit."""
    if params.minutes != "auto":
        return params.minutes
    return CPU_MINUTES if device == "cpu" else None


def batch_size(params: TrainParams, rows: int) -> int:
    """The rows of a step, for a run on so many training rows."""
    if params.batch_size != "auto":
        return params.batch_size
    return next((size for most, size in BATCHES if rows <= most), LARGEST_BATCH)
