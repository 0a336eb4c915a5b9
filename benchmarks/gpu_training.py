"""Fine-tuning Llama 3 8B's architecture, with random weights, on one GPU: perpetune and transformers Trainer + peft.

    python benchmarks/gpu_training.py                               # on a GPU of 80 GB
    python benchmarks/gpu_training.py --methods lora --rounds 1
    python benchmarks/gpu_training.py --smoke                       # the same code on a CPU, with a tiny model

It needs a checkout, torch, transformers, peft, accelerate and pydantic, bitsandbytes for QLoRA, matplotlib for the plot;
it downloads nothing. Rows are random token ids. Short answers: 350 tokens of a common instruction, 30 to 50 of input and 3
of answer. Long: 2,048 tokens without a common prefix, the last 256 are the answer.

Both systems get the same random weights, initial adapter, rows in the same order, AdamW, and setting of gradient
checkpointing. Each measurement is a separate process; if it runs out of memory it is repeated with half the tokens per
micro-batch, so that each system runs with the largest micro-batch that fits. Warm-up steps are not timed.

Useful tokens are those of each row without padding, whatever was computed. Model FLOPs utilisation (Chowdhery et al. 2022,
PaLM, appendix B, arXiv:2204.02311) counts what was computed, with padding, without recomputation:

    4 * matrices * tokens + 4 * hidden * words * logits + 12 * layers * heads * head size * pairs

over seconds times the device's peak. `matrices` are the weights of the linear layers. A frozen weight costs 2 FLOPs per
token forward and 2 for the gradient of its input; its own gradient is not computed. `logits` are the positions whose
logits are computed, `pairs` those of a query and a visible key: the causal half. The adapter's FLOPs, about one in a
hundred, are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from shared.record import RESULTS, Claim, write

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # perpetune need not be installed on the GPU machine

OURS, PEER = "perpetune", "transformers Trainer"
SYSTEMS = (OURS, PEER)
METHODS = ("lora", "qlora")
LABELS = {"lora": "LoRA", "qlora": "QLoRA"}

LLAMA_3_8B: dict[str, Any] = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
TINY: dict[str, Any] = {
    **LLAMA_3_8B,
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}

# FLOPs per second of dense bf16 products, from NVIDIA's data sheets; the first entry whose words are all in the name.
PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L4": 121e12,
}


@dataclass(frozen=True)
class Workload:
    """Rows with a common prefix of `shared` tokens, `least` to `most` tokens of input, and `answer` tokens of answer."""

    name: str
    batch_size: int
    shared: int
    least: int
    most: int
    answer: int

    @property
    def longest(self) -> int:
        return self.shared + self.most + self.answer


SHORT, LONG = "short answers", "2,048 tokens"
FULL_SIZE = {SHORT: Workload(SHORT, 16, 350, 30, 50, 3), LONG: Workload(LONG, 8, 0, 1792, 1792, 256)}
SMOKE_SIZE = {SHORT: Workload(SHORT, 4, 40, 3, 9, 3), LONG: Workload(LONG, 4, 0, 48, 48, 16)}


@dataclass(frozen=True)
class Case:
    method: str
    workload: str
    system: str


@dataclass(frozen=True)
class Turn:
    """The measurement of a system in its timed steps. `mean_loss` is over all steps, with the warm-up."""

    method: str
    workload: str
    system: str
    seconds: float
    useful_tokens_per_second: float
    computed_tokens_per_second: float
    utilisation: float
    peak_gb: float
    tokens_per_pass: int
    mean_loss: float


def main() -> int:
    asked = _arguments()
    if asked.turn:
        print(json.dumps(take_turn(Case(**json.loads(asked.turn)), asked)))
        return 0
    import torch

    if not asked.smoke and not torch.cuda.is_available():
        sys.exit("This benchmark needs an NVIDIA GPU; --smoke runs the same code on the CPU with a tiny model.")
    return compare(asked)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a tiny model on the CPU, without goals")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--workloads", nargs="+", choices=FULL_SIZE, default=tuple(FULL_SIZE))
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a measurement")
    parser.add_argument("--warmup", type=int, default=4, help="steps before them, in which kernels are compiled")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--tokens-per-pass", type=int, default=8192, help="largest micro-batch; halved if memory is insufficient"
    )
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing, for both systems")
    parser.add_argument("--out", type=Path, help="folder of the results; benchmarks/results, or for --smoke a new one")
    parser.add_argument("--turn", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.smoke:
        asked.steps, asked.warmup, asked.rounds, asked.tokens_per_pass = 3, 1, 1, 128
    return asked


def compare(asked: argparse.Namespace) -> int:
    began = time.monotonic()
    folder = asked.out or (Path(tempfile.mkdtemp()) if asked.smoke else RESULTS)
    methods = [method for method in asked.methods if _can_run(method)]
    turns = list(_turns(asked, methods))
    claims = claims_of(turns)
    print()
    for claim in claims:
        verdict = "" if asked.smoke else "PASS " if claim.holds else "FAIL "
        print(f"{verdict}{claim.claim}: {claim.value:.2f} {claim.interval}, goal {claim.goal}")
    name = "gpu-training" if set(methods) == set(METHODS) else "gpu-training-" + "-".join(methods)
    details = {
        "smoke": asked.smoke,
        "model": TINY if asked.smoke else LLAMA_3_8B,
        "workloads": [asdict(work) for work in _workloads(asked).values()],
        "gradient_checkpointing": asked.checkpointing,
        "peak_flops": dict(zip(("value", "from"), peak_flops(), strict=True)),
        "turns": [asdict(turn) for turn in turns],
    }
    print(write(name, [] if asked.smoke else claims, details, time.monotonic() - began, folder))
    draw(turns, folder / f"{name}.png")
    return 0 if asked.smoke or all(claim.holds for claim in claims) else 1


def _can_run(method: str) -> bool:
    if method == "qlora" and find_spec("bitsandbytes") is None:
        print("QLoRA is skipped because bitsandbytes is not installed")
        return False
    return True


def _workloads(asked: argparse.Namespace) -> dict[str, Workload]:
    sizes = SMOKE_SIZE if asked.smoke else FULL_SIZE
    return {name: sizes[name] for name in asked.workloads}


def _turns(asked: argparse.Namespace, methods: Sequence[str]) -> Iterator[Turn]:
    """Measure the systems alternately; the size of the micro-batch that fits is kept for later rounds."""
    fits: dict[Case, int] = {}
    print(
        f"\n{'method':7} {'workload':14} {'system':21} {'useful tokens/s':>15} {'computed/s':>11} {'MFU':>6} "
        f"{'peak GB':>8} {'tokens/pass':>12}"
    )
    for _ in range(asked.rounds):
        for case in (Case(*names) for names in product(methods, _workloads(asked), SYSTEMS)):
            turn = _largest(case, asked, fits.get(case, asked.tokens_per_pass))
            fits[case] = turn.tokens_per_pass
            print(
                f"{LABELS[turn.method]:7} {turn.workload:14} {turn.system:21} {turn.useful_tokens_per_second:15,.0f} "
                f"{turn.computed_tokens_per_second:11,.0f} {turn.utilisation:6.1%} {turn.peak_gb:8.2f} "
                f"{turn.tokens_per_pass:12,}",
                flush=True,
            )
            yield turn


def _largest(case: Case, asked: argparse.Namespace, tokens_per_pass: int) -> Turn:
    """The measurement with the largest micro-batch that fits into memory."""
    while True:
        command = [sys.executable, __file__, *sys.argv[1:], "--turn", json.dumps(asdict(case))]
        command += ["--tokens-per-pass", str(tokens_per_pass)]
        # Against fragmentation, because micro-batches differ in size.
        environment = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if result.returncode:
            sys.exit(f"{case} failed:\n{result.stderr[-3000:]}")
        found = json.loads(result.stdout.splitlines()[-1])
        if found is not None:
            return Turn(**found)
        if tokens_per_pass <= _workloads(asked)[case.workload].longest:
            sys.exit(f"{case} failed: not even a single row fits into this device's memory")
        tokens_per_pass //= 2


def claims_of(turns: Sequence[Turn]) -> list[Claim]:
    """Claims on utilisation and speed; the goals are for LoRA, for other methods to be no slower and no larger."""
    claims = []
    for method, workload in dict.fromkeys((turn.method, turn.workload) for turn in turns):
        ours, theirs = (
            [turn for turn in turns if (turn.method, turn.workload, turn.system) == (method, workload, system)]
            for system in SYSTEMS
        )
        where = f"{LABELS[method]}, {workload}"
        speed = [a.useful_tokens_per_second / b.useful_tokens_per_second for a, b in zip(ours, theirs, strict=True)]
        goal = 3.0 if (method, workload) == ("lora", SHORT) else 1.0
        claims.append(_at_least(f"times as fast as {PEER}, {where}", speed, goal))
        if (method, workload) == ("lora", LONG):
            claims.append(_at_least(f"model FLOPs utilisation, {where}", [turn.utilisation for turn in ours], 0.5))
        memory = [a.peak_gb / b.peak_gb for a, b in zip(ours, theirs, strict=True)]
        claims.append(
            Claim(
                f"peak memory over that of {PEER}, {where}",
                statistics.mean(memory),
                (min(memory), max(memory)),
                1.0,
                max(memory) <= 1.0,
            )
        )
    return claims


def _at_least(claim: str, values: Sequence[float], goal: float) -> Claim:
    mean = statistics.mean(values)
    return Claim(claim, mean, (min(values), max(values)), goal, mean >= goal)


def draw(turns: Sequence[Turn], path: Path) -> None:
    if find_spec("matplotlib") is None:
        print("no plot: matplotlib is not installed")
        return
    from matplotlib.figure import Figure

    from perpetune.evaluation.report.style import colour, house_style, write_png

    workloads = list(dict.fromkeys(turn.workload for turn in turns))
    rows = list(dict.fromkeys((turn.method, turn.system) for turn in turns))
    with house_style():
        figure = Figure(figsize=(9, 1 + 0.45 * len(rows)))
        panels = figure.subplots(1, len(workloads), squeeze=False, sharey=True)[0]
        for axes, workload in zip(panels, workloads, strict=True):
            means = [
                statistics.mean(
                    turn.useful_tokens_per_second
                    for turn in turns
                    if (turn.workload, turn.method, turn.system) == (workload, *row)
                )
                for row in rows
            ]
            names = [f"{LABELS[method]}, {system}" for method, system in rows]
            colours = [colour("challenger" if system == OURS else "base") for _, system in rows]
            bars = axes.barh(names, means, color=colours)
            axes.bar_label(bars, [f"{value:,.0f}" for value in means], padding=4)
            axes.margins(x=0.2)
            axes.locator_params(axis="x", nbins=4)
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.set_title(workload, loc="left", fontsize=10)
            axes.set_xlabel("useful tokens per second")
        panels[0].invert_yaxis()
        write_png(figure, path)


# The following runs in the process of a measurement.


class Meter:
    """Measures time and computed tokens of the steps after the warm-up."""

    def __init__(self, warmup: int, device: Any) -> None:
        self.warmup, self.device = warmup, device
        self.steps = self.tokens = self.logits = self.pairs = 0
        self.began = self.seconds = 0.0

    def read(self, tokens: int, logits: int, pairs: int) -> None:
        if self.steps >= self.warmup:
            self.tokens += tokens
            self.logits += logits
            self.pairs += pairs

    def end_step(self) -> None:
        self.steps += 1
        if self.steps == self.warmup:
            self.began = self._now()

    def stop(self) -> None:
        self.seconds = self._now() - self.began

    def _now(self) -> float:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()


def take_turn(case: Case, asked: argparse.Namespace) -> dict[str, Any] | None:
    """The measurement as a dictionary; None if it ran out of memory."""
    import torch

    if asked.smoke:
        torch.set_num_threads(1)
    work = _workloads(asked)[case.workload]
    batches = _batches(work, asked)
    try:
        device = torch.device("cpu" if asked.smoke else "cuda")
        model, meter = adapted(case.method, asked), Meter(asked.warmup, device)
        if not asked.smoke:
            torch.cuda.reset_peak_memory_stats()  # without the initialisation of the weights
        loss = (_ours if case.system == OURS else _peer)(model, batches, meter, asked)
    except torch.OutOfMemoryError:
        return None
    useful = sum(len(row.tokens) for batch in batches[asked.warmup :] for row in batch)
    flops = model_flops(TINY if asked.smoke else LLAMA_3_8B, meter.tokens, meter.logits, meter.pairs)
    return asdict(
        Turn(
            **asdict(case),
            seconds=meter.seconds,
            useful_tokens_per_second=useful / meter.seconds,
            computed_tokens_per_second=meter.tokens / meter.seconds,
            utilisation=flops / meter.seconds / peak_flops()[0],
            peak_gb=_peak_gb(device),
            tokens_per_pass=asked.tokens_per_pass,
            mean_loss=loss,
        )
    )


def _batches(work: Workload, asked: argparse.Namespace) -> list[list[Any]]:
    """Batches of rows, the same for every system."""
    from perpetune.training.batches import Encoded

    drawn = random.Random(7)
    words = (TINY if asked.smoke else LLAMA_3_8B)["vocab_size"]
    shared = _tokens(drawn, work.shared, words)

    def row() -> Encoded:
        prompt = shared + _tokens(drawn, drawn.randint(work.least, work.most), words)
        return Encoded(prompt + _tokens(drawn, work.answer, words), len(prompt))

    return [[row() for _ in range(work.batch_size)] for _ in range(asked.warmup + asked.steps)]


def _tokens(drawn: random.Random, count: int, words: int) -> tuple[int, ...]:
    return tuple(drawn.choices(range(words), k=count))


def adapted(method: str, asked: argparse.Namespace) -> Any:
    """The model with random weights on the device, and a new adapter on all linear layers."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from perpetune.model.adapters import trainable
    from perpetune.model.base import Base
    from perpetune.params import LoraParams

    torch.manual_seed(7)
    config = LlamaConfig(**(TINY if asked.smoke else LLAMA_3_8B), use_cache=False)
    dtype = torch.float32 if asked.smoke else torch.bfloat16
    with torch.device("cpu" if asked.smoke else "cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    if method == "qlora":
        in_four_bits(model, dtype)
    lora = LoraParams(rank=16, alpha=32, dropout=0.0, target_modules="all-linear")
    return trainable(Base(model, None, ""), method, lora, seed=7)  # type: ignore[arg-type]  # no text, no tokenizer


def in_four_bits(model: Any, compute: Any) -> None:
    """Quantize the linear layers, without the output layer, as load_base does: NF4 with double quantization."""
    from bitsandbytes.nn import Linear4bit, Params4bit
    from torch import nn

    kind: dict[str, Any] = {"quant_type": "nf4", "compress_statistics": True}
    for layer in model.get_decoder().layers:
        for name, linear in [found for found in layer.named_modules() if isinstance(found[1], nn.Linear)]:
            small = Linear4bit(
                linear.in_features, linear.out_features, bias=False, compute_dtype=compute, device="meta", **kind
            )
            weight = linear.weight
            small.weight = Params4bit(weight.data, requires_grad=False, module=small, **kind)
            layer.set_submodule(name, small.to(weight.device))  # .to() quantizes it
    model.is_loaded_in_4bit = True  # peft asks


def _ours(model: Any, batches: Sequence[Sequence[Any]], meter: Meter, asked: argparse.Namespace) -> float:
    import torch

    from perpetune.training.decoder.fused import training_network
    from perpetune.training.distributed import SINGLE_PROCESS
    from perpetune.training.trainer import take_step

    params = _train_params(asked)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    compute = torch.float32 if asked.smoke else torch.bfloat16
    network = training_network(model, compute, checkpointing=asked.checkpointing)
    optimizer = torch.optim.AdamW(weights, lr=params.learning_rate, weight_decay=params.weight_decay, fused=True)

    def read(_: Any, inputs: tuple[Any, ...]) -> None:
        tree, targets, *_ = inputs
        meter.read(len(tree), len(targets.positions), int((tree.depths + 1).sum()))

    network.register_forward_pre_hook(read)
    losses = []
    for batch in batches:
        losses.append(take_step(network, optimizer, weights, batch, params.learning_rate, params, SINGLE_PROCESS))
        meter.end_step()
    meter.stop()
    return statistics.mean(losses)


def _train_params(asked: argparse.Namespace) -> Any:
    from perpetune.params import LoraParams, TrainParams

    return TrainParams(
        method="lora",
        objective="likelihood",
        lora=LoraParams(rank=16, alpha=32, dropout=0.0, target_modules="all-linear"),
        precision="fp32" if asked.smoke else "bf16",
        epochs=1,
        minutes=None,
        batch_size=1,
        learning_rate=2e-4,
        warmup_ratio=0.0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        max_example_tokens=asked.tokens_per_pass,
        max_packed_tokens=asked.tokens_per_pass,
        gradient_checkpointing=asked.checkpointing,
        class_weights="none",
        validations=1,
        validation_rows=1,
        early_stopping_patience=None,
        processes=1,
        checkpoint_seconds=0,
        seed=7,
    )


def _peer(model: Any, batches: Sequence[Sequence[Any]], meter: Meter, asked: argparse.Namespace) -> float:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    params, rows = _train_params(asked), [row for batch in batches for row in batch]
    batch_size = len(batches[0])
    at_once = _rows_at_once(batch_size, max(len(row.tokens) for row in rows), asked.tokens_per_pass)

    class Clock(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            meter.end_step()

        def on_train_end(self, *_: object, **__: object) -> None:
            meter.stop()

    def read(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        height, width = inputs["input_ids"].shape
        meter.read(height * width, height * width, height * width * (width + 1) // 2)

    model.get_base_model().register_forward_pre_hook(read, with_kwargs=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            train_dataset=rows,
            data_collator=padded,
            callbacks=[Clock()],
            args=TrainingArguments(
                output_dir=folder,
                max_steps=len(batches),
                per_device_train_batch_size=at_once,
                gradient_accumulation_steps=batch_size // at_once,
                train_sampling_strategy="sequential",
                learning_rate=params.learning_rate,
                lr_scheduler_type="constant",
                weight_decay=params.weight_decay,
                max_grad_norm=params.max_grad_norm,
                optim="adamw_torch_fused",
                bf16=not asked.smoke,
                gradient_checkpointing=asked.checkpointing,
                gradient_checkpointing_kwargs={"use_reentrant": False},
                remove_unused_columns=False,
                use_cpu=asked.smoke,
                seed=params.seed,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            ),
        )
        return float(trainer.train().training_loss)


def _rows_at_once(batch_size: int, longest: int, tokens: int) -> int:
    """The largest equal part of a batch within the token limit, at least one row."""
    return max(
        rows for rows in range(1, batch_size + 1) if batch_size % rows == 0 and (rows == 1 or rows * longest <= tokens)
    )


def padded(rows: Sequence[Any]) -> dict[str, Any]:
    """Rows padded to the longest, with labels of -100 (ignored) outside the answers."""
    import torch

    width = max(len(row.tokens) for row in rows)

    def table(of: Any, filler: int) -> Any:
        return torch.tensor([[*of(row), *[filler] * (width - len(row.tokens))] for row in rows])

    return {
        "input_ids": table(lambda row: row.tokens, 0),
        "attention_mask": table(lambda row: [1] * len(row.tokens), 0),
        "labels": table(lambda row: [-100] * row.answer_from + list(row.tokens[row.answer_from :]), -100),
    }


def model_flops(model: dict[str, Any], tokens: int, logits: int, pairs: int) -> float:
    """The formula of the module docstring."""
    hidden, layers, heads = model["hidden_size"], model["num_hidden_layers"], model["num_attention_heads"]
    size = hidden // heads
    attention = 2 * hidden * size * (heads + model["num_key_value_heads"])
    matrices = layers * (attention + 3 * hidden * model["intermediate_size"])
    return float(4 * matrices * tokens + 4 * hidden * model["vocab_size"] * logits + 12 * layers * heads * size * pairs)


def peak_flops() -> tuple[float, str]:
    """The device's peak FLOPs per second, and the source of the number."""
    import torch

    if torch.cuda.is_available():
        words = set(re.split(r"[\s-]+", torch.cuda.get_device_name()))
        for name, peak in PEAKS.items():
            if words.issuperset(name.split()):
                return peak, f"NVIDIA's data sheet: {name}, bf16, dense"
        return _measured(torch.device("cuda"), 8192), "measured: a bf16 product of 8192 x 8192 matrices"
    return _measured(torch.device("cpu"), 1024), "measured: an fp32 product of 1024 x 1024 matrices"


def _measured(device: Any, size: int) -> float:
    import torch

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    clock, best = Meter(0, device), float("inf")
    for _ in range(5):
        clock.began = clock._now()
        a @ b
        clock.stop()
        best = min(best, clock.seconds)
    return 2 * size**3 / best


def _peak_gb(device: Any) -> float:
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    sys.exit(main())
