"""The training loop: token trees, loss on the answers only, the best checkpoint kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy

from perpetune.errors import PerpetuneError
from perpetune.params import TrainParams
from perpetune.records import Example, conversation
from perpetune.training.base import Base
from perpetune.training.chat import answer_tokens, prompt_tokens
from perpetune.training.checkpoint import Checkpoint, Resume, identity
from perpetune.training.lora import save_adapter, with_new_adapter
from perpetune.training.packing import groups_within, model_inputs, plant


@dataclass(frozen=True)
class Encoded:
    """One example as tokens; `tokens[answer_from:]` is what is learned."""

    tokens: tuple[int, ...]
    answer_from: int


@dataclass(frozen=True)
class Progress:
    """Where the run stands after a step. `tokens_per_second` counts what a plain run would process."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    tokens_per_second: float
    seconds_left: float
    validation_loss: float | None


@dataclass(frozen=True)
class Trained:
    """A finished run: the adapter's folder and digest, and how it went."""

    adapter: Path
    digest: str
    steps: int
    best_step: int
    validation_loss: float | None
    tokens: int
    seconds: float
    too_long: int


Report = Callable[[Progress], None]


def train(
    base: Base,
    train_rows: Sequence[Example],
    validation_rows: Sequence[Example],
    instruction: str,
    params: TrainParams,
    adapter: Path,
    report: Report,
    checkpoints: Path | None = None,
) -> Trained:
    """Fine-tune a new adapter and write it to the folder `adapter`.

    With a folder for `checkpoints`, a run that was killed goes on from the last of its own and ends with
    the weights of an unbroken one (on a CPU, to the bit).

    Examples longer than `max_example_tokens` are left out and counted. Without validation rows the
    last weights are kept, else those with the lowest validation loss. Raises PerpetuneError where no
    example is short enough.
    """
    rows = _encode(base, train_rows, instruction, params)
    if not rows:
        raise PerpetuneError(
            f"none of the {len(train_rows)} training examples has at most {params.max_example_tokens} tokens",
            where="params.yaml: train.max_example_tokens",
            do="raise it, or shorten the inputs",
        )
    validation = _encode(base, _some(validation_rows, params.validation_rows, params.seed), instruction, params)
    model = with_new_adapter(base, params.lora, params.seed, params.method)
    resume = None
    if checkpoints is not None:
        work = identity(params, base.digest, [row.tokens for row in rows])
        resume = Resume(checkpoints, work, params.checkpoint_seconds)
    outcome = _run(model, rows, validation, params, report, resume)
    digest = save_adapter(model, adapter)
    if resume:
        resume.remove()
    model.unload()
    return replace(outcome, adapter=adapter, digest=digest, too_long=len(train_rows) - len(rows))


def _some(rows: Sequence[Example], count: int, seed: int) -> list[Example]:
    """At most `count` of the rows, from all over: their order says where they come from."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    return [rows[index] for index in order[:count]]


def _encode(base: Base, rows: Sequence[Example], instruction: str, params: TrainParams) -> list[Encoded]:
    encoded = (encode(base, row, instruction) for row in rows)
    return [row for row in encoded if len(row.tokens) <= params.max_example_tokens]


def encode(base: Base, row: Example, instruction: str) -> Encoded:
    prompt = prompt_tokens(base.tokenizer, conversation(instruction, row))
    return Encoded((*prompt, *answer_tokens(base.tokenizer, row.output)), len(prompt))


def _run(
    model: PeftModel,
    rows: Sequence[Encoded],
    validation: Sequence[Encoded],
    params: TrainParams,
    report: Report,
    resume: Resume | None,
) -> Trained:
    steps = max(1, round(params.epochs * len(rows) / params.batch_size))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=params.learning_rate, weight_decay=params.weight_decay)
    validate_at = _validation_steps(steps, params.validations) if validation else frozenset()
    first, best, tokens, began = 1, _Best(None, 0, []), 0, time.monotonic()
    found = resume.load() if resume else None
    if found is not None:
        _take_up(found, weights, optimizer)
        first, tokens, began = found.step + 1, found.tokens, began - found.seconds
        best = _Best(found.best_loss, found.best_step, found.best_weights)
    saved = time.monotonic()
    batches = islice(_batches(rows, params), first - 1, None)
    for step in range(first, steps + 1):
        rate = params.learning_rate * _schedule(step, steps, params.warmup_share)
        batch = next(batches)
        loss = _step(model, optimizer, weights, batch, rate, params)
        tokens += sum(len(row.tokens) for row in batch)
        checked = None
        if step in validate_at:
            checked = mean_loss(model, validation, params.max_packed_tokens)
            best = best.or_better(checked, step, weights)
        seconds = time.monotonic() - began
        if resume and time.monotonic() - saved >= resume.every_seconds:
            kept = [weight.detach() for weight in weights]
            state, random = optimizer.state_dict(), torch.get_rng_state()
            resume.save(Checkpoint(step, tokens, seconds, kept, state, random, best.loss, best.step, best.weights))
            saved = time.monotonic()
        report(Progress(step, steps, loss, rate, tokens / seconds, seconds / step * (steps - step), checked))
    if best.weights:
        _restore(weights, best.weights)
    seconds = time.monotonic() - began
    return Trained(Path(), "", steps, best.step or steps, best.loss, tokens, seconds, too_long=0)


@dataclass(frozen=True)
class _Best:
    """The best weights seen so far; they are a few MB, so memory is the place to keep them."""

    loss: float | None
    step: int
    weights: list[torch.Tensor]

    def or_better(self, loss: float, step: int, weights: list[torch.nn.Parameter]) -> _Best:
        if self.loss is not None and loss >= self.loss:
            return self
        return _Best(loss, step, [weight.detach().clone() for weight in weights])


def _take_up(found: Checkpoint, weights: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    _restore(weights, found.weights)
    optimizer.load_state_dict(found.optimizer)
    torch.set_rng_state(found.random)


@torch.no_grad()
def _restore(weights: list[torch.nn.Parameter], kept: list[torch.Tensor]) -> None:
    for weight, value in zip(weights, kept, strict=True):
        weight.copy_(value)


def _validation_steps(steps: int, validations: int) -> frozenset[int]:
    return frozenset(math.ceil(steps * (turn + 1) / validations) for turn in range(validations))


def _schedule(step: int, steps: int, warmup_share: float) -> float:
    """Linear warm-up, then a cosine down to zero (Loshchilov and Hutter, SGDR, 2016)."""
    warmup = max(1, round(steps * warmup_share))
    if step <= warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _batches(rows: Sequence[Encoded], params: TrainParams) -> Iterator[list[Encoded]]:
    """Batches without end, each epoch in a new order drawn from the seed."""
    generator = torch.Generator().manual_seed(params.seed)
    waiting: list[Encoded] = []
    while True:
        while len(waiting) < params.batch_size:
            waiting += [rows[index] for index in torch.randperm(len(rows), generator=generator).tolist()]
        yield waiting[: params.batch_size]
        waiting = waiting[params.batch_size :]


def _step(
    model: PeftModel,
    optimizer: torch.optim.Optimizer,
    weights: list[torch.nn.Parameter],
    batch: Sequence[Encoded],
    rate: float,
    params: TrainParams,
) -> float:
    """One optimizer step over the batch; returns its mean loss per answer token."""
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = rate
    answers = sum(len(row.tokens) - row.answer_from for row in batch)
    total = 0.0
    for run in groups_within([row.tokens for row in batch], params.max_packed_tokens):
        loss = summed_loss(model, [batch[index] for index in run]) / answers
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(weights, params.max_gradient_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


def summed_loss(model: torch.nn.Module, rows: Sequence[Encoded]) -> torch.Tensor:
    """Cross-entropy summed over the answer tokens of the rows, in one packed pass.

    Logits are computed only at the tokens that predict an answer token. The last token of a row
    predicts nothing, so it is not fed.
    """
    tree = plant([row.tokens[:-1] for row in rows])
    device = next(model.parameters()).device
    predicts = [place for row, path in zip(rows, tree.paths, strict=True) for place in path[row.answer_from - 1 :]]
    targets = [token for row in rows for token in row.tokens[row.answer_from :]]
    logits = model(
        **model_inputs(tree, device, _compute_dtype(model)),
        logits_to_keep=torch.tensor(predicts, device=device),
    ).logits[0]
    return cross_entropy(logits.float(), torch.tensor(targets, device=device), reduction="sum")


def _compute_dtype(model: torch.nn.Module) -> torch.dtype:
    dtype = getattr(model, "dtype", torch.float32)
    assert isinstance(dtype, torch.dtype)
    return dtype


@torch.no_grad()
def mean_loss(model: PeftModel, rows: Sequence[Encoded], max_packed_tokens: int) -> float:
    """Mean cross-entropy per answer token."""
    model.eval()
    runs = groups_within([row.tokens for row in rows], max_packed_tokens)
    total = sum(float(summed_loss(model, [rows[index] for index in run])) for run in runs)
    return total / sum(len(row.tokens) - row.answer_from for row in rows)
