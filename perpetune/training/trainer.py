"""The training loop: token trees, loss on the answers only, weights of the best validation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor, nn

from perpetune.errors import PerpetuneError
from perpetune.model.adapters import save_trained, trainable, trained_digest
from perpetune.model.base import Base, torch_dtype
from perpetune.model.label_head import LabelHead, fit_probe, head_shape, save_head
from perpetune.model.parts import context_length, hidden_width
from perpetune.params import TrainParams
from perpetune.records import Example
from perpetune.training.batches import Encoded, batches, encode_all, sample_rows
from perpetune.training.checkpoint import (
    Checkpoint,
    CheckpointStore,
    Stored,
    random_state,
    restore_random_state,
    run_digest,
)
from perpetune.training.decoder.fused import losses_by_temperature, prompt_features, summed_loss, training_network
from perpetune.training.decoder.network import Network
from perpetune.training.distributed import (
    SINGLE_PROCESS,
    World,
    all_reduce_sum,
    copy_into,
    distribute_like,
    full_tensor,
    leader_decision,
    shard,
)
from perpetune.training.duration import expected_seconds
from perpetune.training.memory_estimate import estimate_memory, shape_of
from perpetune.training.recipe import batch_size, learning_rate, time_limit
from perpetune.training.schedule import Schedule, fewest_steps, schedule_of

TIME_BEFORE_COOLDOWN = 0.8  # of train.minutes


@dataclass(frozen=True)
class Progress:
    """Progress after a step of at most `steps`. `tokens_per_second` counts tokens without packing.

    `notes` are sentences for the user: what went wrong without stopping the training, or why it stopped.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    tokens_per_second: float
    seconds_left: float
    validation_loss: float | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Forecast:
    """The maximum duration and the memory of a run, estimated before the first step; memory excludes the base.

    `notes` are sentences for the user: what the training leaves out.
    """

    steps: int
    seconds: float
    bytes_needed: int
    bytes_free: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trained:
    """The result of a training: folder and digest of the trained weights, digest of the base, and statistics.

    `seconds` is the wall-clock time on all `devices`; `too_long` counts rows that were left out.
    """

    adapter: Path
    digest: str
    base_digest: str
    steps: int
    best_step: int
    validation_loss: float | None
    tokens: int
    seconds: float
    too_long: int
    devices: int = 1


Report = Callable[[Progress], None]
OnForecast = Callable[[Forecast], None]


def train(
    base: Base,
    train_rows: Sequence[Example],
    validation_rows: Sequence[Example],
    instruction: str,
    params: TrainParams,
    adapter: Path,
    report: Report,
    checkpoints: Path | None = None,
    world: World = SINGLE_PROCESS,
    on_forecast: OnForecast | None = None,
    labels: Sequence[str] | None = None,
) -> Trained:
    """Fine-tune the base by `params.method` and write the trained weights to the folder `adapter`.

    With a folder for `checkpoints`, an interrupted run resumes from its last one, with the same result as without the
    interruption (bitwise on a CPU). All processes of the `world` call this with the same arguments; only the leader
    reports and writes. `on_forecast` is called once before the first step. Full fine-tuning changes the base in place.

    With `labels` a label head is trained with the adapter; without, the model learns to generate its answers. Examples
    longer than `max_example_tokens`, and those with other labels, are left out and counted. The weights with the lowest
    validation loss are kept, or the last ones without validation rows. If a gradient or a validation loss is not finite,
    the training stops and keeps the best weights so far. Raises PerpetuneError if there are none, if no example is short
    enough or one is longer than the base's context, and if the base or an adapter for it cannot be trained.
    """
    rows = encode_all(base.tokenizer, train_rows, instruction, params, labels)
    if not rows:
        raise PerpetuneError(
            f"all {len(train_rows)} training examples are longer than {params.max_example_tokens} tokens",
            where="params.yaml: train.max_example_tokens",
            do="raise it, or shorten the inputs",
        )
    validation = encode_all(
        base.tokenizer, sample_rows(validation_rows, params.validation_rows, params.seed), instruction, params, labels
    )
    _refuse_beyond_context(base, [*rows, *validation])
    _refuse_unknown_tokens(base, [*rows, *validation])
    head = None
    if labels is not None:
        head = LabelHead(head_shape(base.tokenizer, instruction, labels), hidden_width(base.model)).to(
            base.model.device
        )
    model = trainable(base, params.method, params.lora, params.seed)
    resume = None
    if checkpoints is not None:
        work = run_digest(params, base.digest, [row.tokens for row in rows])
        resume = CheckpointStore(checkpoints, work, params.checkpoint_seconds)
    outcome = _run(_Job(model, head, rows, validation, params, report, resume, world, on_forecast))
    digest = _save(model, head, base, adapter, params, world)
    if resume and world.is_leader:
        resume.remove()
    if isinstance(model, PeftModel) and world.size == 1:
        model.unload()
    too_long = len(train_rows) - len(rows)
    return replace(outcome, adapter=adapter, digest=digest, base_digest=base.digest, too_long=too_long)


def _save(model: nn.Module, head: LabelHead | None, base: Base, folder: Path, params: TrainParams, world: World) -> str:
    """Write the trained weights; all processes gather them, and the leader returns their digest."""
    weights = {name: full_tensor(weight) for name, weight in model.named_parameters() if weight.requires_grad}
    scores = {name: full_tensor(weight) for name, weight in head.named_parameters()} if head else {}
    if not world.is_leader:
        return ""
    save_trained(cast(PeftModel, model), weights, base.tokenizer, folder, torch_dtype(params.precision))
    if head is not None:
        save_head(folder, head, scores)
    return trained_digest(folder)


def _refuse_beyond_context(base: Base, rows: Sequence[Encoded]) -> None:
    """Raises PerpetuneError if a row is longer than the base can read."""
    context = context_length(base.model.config)
    longest = max(len(row.tokens) for row in rows)
    if context and longest > context:
        raise PerpetuneError(
            f"the base reads at most {context} tokens, and the longest example has {longest}",
            where="params.yaml: train.max_example_tokens",
            do=f"set it to {context} or less: longer examples are left out and counted",
        )


def _refuse_unknown_tokens(base: Base, rows: Sequence[Encoded]) -> None:
    """Raises PerpetuneError if a token has no embedding, as when a tokenizer was extended without its model."""
    known = len(cast(Any, base.model).get_input_embeddings().weight)
    largest = max(max(row.tokens) for row in rows)
    if largest >= known:
        raise PerpetuneError(
            f"the tokenizer writes {base.tokenizer.convert_ids_to_tokens(largest)!r} as token {largest}, and the base has "
            f"embeddings for {known} tokens",
            where="params.yaml: base.model",
            do="use the tokenizer that belongs to the model",
        )


@dataclass(frozen=True)
class _Job:
    model: nn.Module
    head: LabelHead | None
    rows: Sequence[Encoded]
    validation: Sequence[Encoded]
    params: TrainParams
    report: Report
    resume: CheckpointStore | None
    world: World
    on_forecast: OnForecast | None


def _run(job: _Job) -> Trained:
    params, world = job.params, job.world
    network = training_network(
        job.model, torch_dtype(params.precision), checkpointing=params.gradient_checkpointing, label_head=job.head
    )
    if job.head is not None:
        _start_from_probe(job, network)
    shard(network, network.blocks(), world)
    size = batch_size(params, len(job.rows))
    schedule = schedule_of(len(job.rows), params, size, validates=bool(job.validation))
    minutes = time_limit(params, next(job.model.parameters()).device.type)
    if job.on_forecast is not None:
        forecast = _forecast(job, network, schedule, minutes if schedule.open_ended else None)
        if world.is_leader:
            job.on_forecast(forecast)
    weights = [weight for part in (job.model, job.head) if part for weight in part.parameters() if weight.requires_grad]
    base_rate = learning_rate(params, cast(Any, job.model).config.get_text_config().hidden_size)
    optimizer = torch.optim.AdamW(weights, lr=base_rate, weight_decay=params.weight_decay, fused=True)
    step, best, tokens, began = 0, _Best(None, 0, []), 0, time.monotonic()
    stored = job.resume.load() if job.resume else Stored(None, ())
    found, notes = stored.checkpoint, stored.notes
    if found is not None:
        _restore_state(found, weights, optimizer)
        step, tokens, began = found.step, found.tokens, began - found.seconds
        best = _Best(found.best_loss, found.best_step, found.best_weights)
        schedule = found.schedule
    saved = time.monotonic()
    for batch in islice(batches(job.rows, size, params.seed), step, None):
        if step == schedule.steps:
            break
        step += 1
        rate = base_rate * schedule.rate(step)
        try:
            loss = take_step(network, optimizer, weights, batch, rate, params, world)
            tokens += sum(len(row.inputs) for row in batch)
            validation_loss = None
            if step in schedule.validate_at:
                validation_loss = _finite(
                    mean_loss(network, job.validation, params.max_packed_tokens, world), "validation loss"
                )
                best = best.or_better(validation_loss, step, weights)
        except NotFiniteError as fault:
            notes += (best.kept_after(f"{fault} of step {step}", params),)
            schedule = replace(schedule, steps=step)
            loss, validation_loss = best.loss or 0.0, best.loss
        seconds = time.monotonic() - began
        time_is_up = minutes is not None and seconds >= 60 * minutes * TIME_BEFORE_COOLDOWN
        schedule = schedule.after(step, best.step, time_is_up=leader_decision(time_is_up, world))
        if world.is_leader:
            left = seconds / step * (schedule.steps - step)
            if schedule.open_ended and minutes is not None:
                least = seconds / step * (fewest_steps(schedule) - step)
                left = min(left, max(60 * minutes - seconds, least))
            job.report(Progress(step, schedule.steps, loss, rate, tokens / seconds, left, validation_loss, notes))
        notes = ()
        if job.resume and leader_decision(time.monotonic() - saved >= job.resume.every_seconds, world):
            notes = _save_state(
                job,
                Checkpoint(
                    step,
                    tokens,
                    seconds,
                    [full_tensor(weight) for weight in weights],
                    _state(optimizer),
                    random_state(),
                    best.loss,
                    best.step,
                    best.weights,
                    schedule,
                ),
            )
            saved = time.monotonic()
    for weight, value in zip(weights, best.weights, strict=False):
        copy_into(value, weight)
    seconds = time.monotonic() - began
    return Trained(Path(), "", "", step, best.step or step, best.loss, tokens, seconds, too_long=0, devices=world.size)


def _start_from_probe(job: _Job, network: Network) -> None:
    """Initialise the label head with a linear probe of the base; all processes compute the same."""
    assert job.head is not None
    network.eval()
    device = job.head.bias.device
    runs = network.micro_batches(job.rows, job.params.max_packed_tokens)
    with torch.no_grad():
        found = [prompt_features(network, run, device) for run in runs]
    rows = [row for run in runs for row in run]
    fit_probe(job.head, torch.cat(found), [row.label or 0 for row in rows], [row.weight for row in rows])


def _forecast(job: _Job, network: Network, schedule: Schedule, minutes: float | None) -> Forecast:
    shape = replace(
        shape_of(cast(Any, job.model).config, job.params.lora.target_modules), longest_in_tree=network.longest_in_tree
    )
    memory = estimate_memory(shape, job.params, job.rows, validates=bool(job.validation), processes=job.world.size)
    random = random_state()
    seconds = expected_seconds(network, job.rows, job.validation, job.params, schedule, job.world)
    restore_random_state(random)  # dropout has used it, and the forecast must not change the training
    if minutes is not None:
        seconds = min(seconds, max(60 * minutes, seconds * fewest_steps(schedule) / schedule.steps))
    notes = shape.notes if job.params.method != "full" else ()
    return Forecast(schedule.steps, seconds, memory.needed - memory.weights, memory.free, notes)


@dataclass(frozen=True)
class _Best:
    """The best weights so far, gathered in CPU memory."""

    loss: float | None
    step: int
    weights: list[Tensor]

    def or_better(self, loss: float, step: int, weights: list[nn.Parameter]) -> _Best:
        if self.loss is not None and not loss < self.loss:
            return self
        return _Best(loss, step, [full_tensor(weight) for weight in weights])

    def kept_after(self, fault: str, params: TrainParams) -> str:
        """A sentence that says which weights are kept after a fault. Raises PerpetuneError if there are none."""
        if not self.weights:
            raise PerpetuneError(
                f"the {fault} is not finite, so the training stopped before a validation",
                where="params.yaml: train.learning_rate",
                do="set a lower learning_rate" + ("" if params.precision == "fp32" else ", or precision: fp32"),
            )
        return f"the {fault} is not finite: the training stopped, and the weights of step {self.step} are kept"


def _state(optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """The optimizer's state with gathered tensors."""
    state = optimizer.state_dict()
    kept = {
        index: {name: full_tensor(value) for name, value in entry.items()} for index, entry in state["state"].items()
    }
    return {**state, "state": kept}


def _save_state(job: _Job, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Save the checkpoint; returns what went wrong."""
    if not job.world.is_leader:
        return ()
    assert job.resume is not None
    fault = job.resume.save(checkpoint)
    return () if fault is None else (f"{fault}; the training goes on without it",)


def _restore_state(found: Checkpoint, weights: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    for weight, value in zip(weights, found.weights, strict=True):
        copy_into(value, weight)
    state = {
        index: {
            name: distribute_like(value, weights[index]) if value.shape == weights[index].shape else value
            for name, value in entry.items()
        }
        for index, entry in found.optimizer["state"].items()
    }
    optimizer.load_state_dict({**found.optimizer, "state": state})
    restore_random_state(found.random)


class NotFiniteError(Exception):
    """A gradient or a loss is infinite or not a number."""


def _finite(value: float, name: str) -> float:
    if not math.isfinite(value):
        raise NotFiniteError(name)
    return value


def take_step(
    network: Network,
    optimizer: torch.optim.Optimizer,
    weights: list[nn.Parameter],
    batch: Sequence[Encoded],
    rate: float,
    params: TrainParams,
    world: World,
) -> float:
    """An optimizer step on the batch; returns its mean loss per answer token.

    Gradients are accumulated over micro-batches of at most `max_packed_tokens` tokens. Raises NotFiniteError before a
    weight is changed if a gradient is not finite.
    """
    network.train()
    for group in optimizer.param_groups:
        group["lr"] = rate
    answers = sum(row.answer_weight for row in batch)
    total = 0.0
    for rows in network.micro_batches(batch, params.max_packed_tokens, world):
        loss = summed_loss(network, rows, weights[0].device) / answers
        (loss * world.size).backward()  # FSDP averages over the processes
        total += float(loss.detach())
    norm = torch.nn.utils.clip_grad_norm_(weights, params.max_grad_norm)
    _finite(float(full_tensor(norm)), "gradient")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return all_reduce_sum(total, world)


@torch.no_grad()
def mean_loss(
    network: Network, rows: Sequence[Encoded], max_packed_tokens: int, world: World = SINGLE_PROCESS
) -> float:
    """Mean cross-entropy per answer token, or per label at the best temperature.

    A head becomes overconfident while its accuracy still improves, and is calibrated before it serves; the loss without
    temperature scaling would rise meanwhile.
    """
    network.eval()
    device = next(network.parameters()).device
    micro_batches = network.micro_batches(rows, max_packed_tokens, world)
    if network.label_head is None:
        totals = [sum(float(summed_loss(network, run, device)) for run in micro_batches)]
    else:
        each = [losses_by_temperature(network, run, device).tolist() for run in micro_batches]
        totals = [sum(sums) for sums in zip(*each, strict=True)]
    return min(all_reduce_sum(total, world) for total in totals) / sum(row.answer_weight for row in rows)
