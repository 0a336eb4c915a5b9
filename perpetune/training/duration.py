"""Estimate the duration of a training from two of its micro-batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice

import torch

from perpetune.params import TrainParams
from perpetune.training.batches import Encoded, batches
from perpetune.training.decoder.fused import summed_loss
from perpetune.training.decoder.network import Network
from perpetune.training.distributed import World
from perpetune.training.recipe import batch_size
from perpetune.training.schedule import Schedule

SAMPLE_STEPS = 50
FORWARD = 1 / 3  # of a forward and backward pass


def expected_seconds(
    network: Network,
    rows: Sequence[Encoded],
    validation: Sequence[Encoded],
    params: TrainParams,
    schedule: Schedule,
    world: World,
) -> float:
    """Time a micro-batch of the median size, after a warm-up, and extrapolate to the tokens of all steps; in seconds.

    All processes must call this together.
    """
    size = batch_size(params, len(rows))
    sample = list(islice(batches(rows, size, params.seed), min(SAMPLE_STEPS, schedule.steps)))
    by_step = [network.micro_batches(batch, params.max_packed_tokens, world) for batch in sample]
    sizes = [network.size(run) for runs in by_step for run in runs]
    typical = sorted((run for runs in by_step for run in runs), key=network.size)[len(sizes) // 2]
    network.train()
    _time(network, typical)
    per_token = _time(network, typical) / network.size(typical)
    training = sum(sizes) / len(sample) * schedule.steps
    checked = network.micro_batches(validation, params.max_packed_tokens, world) if validation else []
    validation_tokens = sum(map(network.size, checked))
    return per_token * (training + FORWARD * validation_tokens * len(schedule.validate_at))


def _time(network: Network, rows: Sequence[Encoded]) -> float:
    device = next(network.parameters()).device
    _wait(device)
    began = time.perf_counter()
    summed_loss(network, rows, device).backward()
    _wait(device)
    seconds = time.perf_counter() - began
    network.zero_grad(set_to_none=True)
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
