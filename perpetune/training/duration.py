"""How long a run will take, from two of its own passes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice

import torch

from perpetune.params import TrainParams
from perpetune.training.batches import Encoded, batches, packed, pass_size
from perpetune.training.decoder.fused import FusedModel, PlainModel, summed_loss
from perpetune.training.distributed import World, in_step, share
from perpetune.training.recipe import batch_size
from perpetune.training.schedule import Schedule

STEPS_LOOKED_AT = 50
FORWARD = 1 / 3  # of a pass with its gradients


def expected_seconds(
    network: FusedModel | PlainModel,
    rows: Sequence[Encoded],
    validation: Sequence[Encoded],
    params: TrainParams,
    schedule: Schedule,
    world: World,
) -> float:
    """Time a pass of the median size, once to warm up and once to measure, and count the tokens of all steps.

    Every process of the world calls this: their passes are computed together.
    """
    size = batch_size(params, len(rows))
    looked_at = list(islice(batches(rows, size, params.seed), min(STEPS_LOOKED_AT, schedule.steps)))
    by_step = [in_step(packed(share(batch, world), params.max_packed_tokens), world) for batch in looked_at]
    sizes = [pass_size(run) for runs in by_step for run in runs]
    typical = sorted((run for runs in by_step for run in runs), key=pass_size)[len(sizes) // 2]
    network.train()
    _time(network, typical)
    per_token = _time(network, typical) / pass_size(typical)
    training = sum(sizes) / len(looked_at) * schedule.steps
    checked = (
        sum(pass_size(run) for run in packed(share(validation, world), params.max_packed_tokens)) if validation else 0
    )
    return per_token * (training + FORWARD * checked * len(schedule.validate_at))


def _time(network: FusedModel | PlainModel, rows: Sequence[Encoded]) -> float:
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
