"""Fine-tuning, and the search for its settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from perpetune.params.sections.kinds import Count, CountOrAuto, Counts, Positive, PositiveOrAuto, Ratio, Section, Span

Method = Literal["lora", "rslora", "dora", "qlora", "full"]


class LoraParams(Section):
    rank: Count = 8
    """Rank of the update, as in peft."""
    alpha: Count = 16
    """Scale of the update, as in peft."""
    dropout: Ratio = 0.0
    """Dropout on the adapter's input, as in peft. Unit: ratio."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Modules that get an adapter, as in peft; `all-linear` takes every linear layer of the decoder but the output. Experts
    of a mixture are adapted if they are named, such as `experts.gate_up_proj` (docs/guides/base-models.md).
    """


class TrainParams(Section):
    """Fine-tuning. `auto` is chosen by the size of the data and of the model (perpetune/training/recipe.py)."""

    method: Method = "lora"
    """`lora` (Hu et al. 2021), `rslora` (scaled by the root of the rank, for high ranks; Kalajdzievski 2023), `dora`
    (Liu et al. 2024), `qlora` (LoRA on a base in 4 bits, NF4 by bitsandbytes, on an NVIDIA GPU; Dettmers et al. 2023)
    or `full` (all weights, kept in fp32: 16 bytes for each parameter).
    """
    objective: Literal["auto", "label_head", "likelihood"] = "auto"
    """What is learned. `label_head` scores all labels after reading the prompt once: fast with many labels, served by
    the engine in process. `likelihood` generates the answer as text, for free text and for labels that vLLM serves.
    `auto` is `label_head` for classification unless `serve.engine` is `vllm`. See decision 16.
    """
    lora: LoraParams = LoraParams()
    """The adapter, for every method but `full`."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` is bf16 if the processor multiplies it natively, else fp32."""
    epochs: PositiveOrAuto = "auto"
    """Passes over the training rows on a cosine schedule; 1.5 is possible. `auto` trains until validation no longer
    improves from one epoch to the next (at least 2 epochs and 60 steps, at most 10 epochs or 200 steps) and then lets
    the learning rate fall to 0 in a fifth of the steps done so far. Unit: epochs.
    """
    minutes: PositiveOrAuto | None = "auto"
    """With `epochs: auto` the learning rate begins to fall after four fifths of these minutes at the latest, but not
    before 60 steps. `auto` is 3 on a CPU and no limit on a GPU; `null` is no limit. A run that this limit ends depends
    on the machine's speed and cannot be reproduced bit for bit. Unit: minutes.
    """
    batch_size: CountOrAuto = "auto"
    """`auto`: 8 for up to 200 rows, 16 for up to 600, then 32. A batch is accumulated over as many forward passes as
    `max_packed_tokens` requires, with the gradient of one pass. Unit: rows for each step.
    """
    learning_rate: PositiveOrAuto = "auto"
    """Of AdamW. `auto` falls with the width of the model: 5.3e-4 for SmolLM2-135M, 1.1e-4 for Llama 3 8B; a tenth of
    that for `full`.
    """
    warmup_ratio: Ratio = 0.1
    """Part of the steps over which the learning rate rises from 0 (of 60 steps with `epochs: auto`). Unit: ratio."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay of AdamW."""
    max_grad_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    max_example_tokens: Count = 1024
    """Longer examples are left out and counted; none is cut. Unit: tokens."""
    max_packed_tokens: Count = 1024
    """Tokens of one forward pass. It bounds memory and changes no result. Unit: tokens."""
    gradient_checkpointing: bool = False
    """`true` computes each layer again for its gradient: less memory, about a third more arithmetic."""
    class_weights: Literal["auto", "none", "balanced"] = "auto"
    """`balanced` weighs each row by rows / (labels x rows of its label), so that rare labels count as much as frequent
    ones. `auto` does so if the rarest label has less than half the rows of an even split. `none` weighs nothing.
    """
    validations: Count = 4
    """How often the validation loss is measured. The best checkpoint is kept."""
    validation_rows: Count = 100
    """Rows that the validation loss is measured on, at most. Unit: rows."""
    early_stopping_patience: Count | None = None
    """Stop after so many validations in a row without a better loss. `null`: 2 with `epochs: auto`, else never. Unit:
    validations.
    """
    processes: CountOrAuto = "auto"
    """Processes that train together on this machine and share the model by FSDP2; `auto` is one for each GPU. Several
    machines: docs/guides/gpus.md.
    """
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60
    """How often a checkpoint is saved. A run that was killed goes on from there: see decision 5. Unit: seconds."""
    seed: int = 7
    """Of the adapter's first weights and of the order of rows."""

    @model_validator(mode="after")
    def four_bits_stay_on_one_gpu(self) -> TrainParams:
        if self.method == "qlora" and self.processes not in (1, "auto"):
            raise ValueError("method qlora trains on one GPU: set processes: 1")
        return self


class TuneParams(Section):
    """The search of `perpetune tune`: its budget in device minutes, and what it may try, both ends included."""

    minutes: Positive = 60
    """Budget of device minutes: training and validation, summed over trials and GPUs. The trial in which it runs out is
    stopped and does not count. Unit: minutes.
    """
    trials: Count = 12
    """Most trials."""
    rank: Counts = (4, 32)
    """`[low, high]` of `train.lora.rank`. `alpha` keeps its ratio to the rank."""
    learning_rate: Span = (1e-4, 0.002)
    """`[low, high]` of `train.learning_rate`."""
    epochs: Span = (1, 3)
    """`[low, high]` of `train.epochs`. Unit: epochs."""
    seed: int = 7
    """Of Optuna's proposals."""
