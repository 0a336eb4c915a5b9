"""Fine-tuning with perpetune and with TRL's SFTTrainer: the same work, alternately, in one run.

    python benchmarks/training.py --peer trl
    python benchmarks/training.py --peer trl --data intents.csv     # columns input, output (or text, category)

Every system starts from the same base model and trains a LoRA of the same shape on the same rows, with the same schedule,
steps and batch size, and answers the same held-out rows. Each measurement is a separate process, for its peak memory.
Tokens per second are useful ones: those of each example without padding, whatever the system computed.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.record import Claim, write

if TYPE_CHECKING:
    from perpetune.model.base import Base
    from perpetune.params import Params

SYSTEMS = ("perpetune", "trl", "trl packed")
# About 40 of a row's 63 tokens are the same in every row, as in many narrow tasks.
REVIEWS = (
    "You read sentences of customers' reviews of products. Does this sentence speak well or ill of the product? "
    "Answer with one word: positive or negative."
)
GOALS = {"reviews": 6.0, "listed": 10.0}

RATE = 5.0e-4  # of both systems


@dataclass(frozen=True)
class Work:
    """Training rows, held-out rows and the training settings."""

    instruction: str
    labels: list[str]
    train: list[dict[str, str]]
    held_out: list[dict[str, str]]
    steps: int
    batch_size: int
    micro_batch: int
    threads: int


@dataclass(frozen=True)
class Turn:
    """A measurement of a system: seconds of its steps without the first (warm-up), and its accuracy."""

    system: str
    seconds: float
    tokens_per_second: float
    examples_per_second: float
    peak_mb: float
    right: list[int]


def main() -> int:
    asked = _arguments()
    if asked.turn:
        work = Work(**json.loads(Path(asked.work).read_text(encoding="utf-8")))
        print(json.dumps(asdict(take_turn(asked.turn, work))))
        return 0
    return compare(asked)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", choices=["trl"], default="trl")
    parser.add_argument("--data", type=Path, help="CSV or JSONL; its labels are listed in the instruction")
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--micro-batch", type=int, default=8, help="micro-batch of TRL, which is slower with a larger one"
    )
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one round of 3 steps, no output files")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turn", choices=SYSTEMS, help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.quick:
        asked.steps, asked.rounds, asked.held_out = 3, 1, 40
    return asked


def compare(asked: argparse.Namespace) -> int:
    began = time.monotonic()
    work = _listed(asked) if asked.data else _reviews(asked)
    name = f"training-{asked.data.parent.name or asked.data.stem}" if asked.data else "training-reviews"
    turns: list[Turn] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "work.json"
        path.write_text(json.dumps(asdict(work)), encoding="utf-8")
        for turn in range(asked.rounds):
            for system in SYSTEMS:
                command = [sys.executable, __file__, "--turn", system, "--work", str(path)]
                result = subprocess.run(command, capture_output=True, text=True, check=False)
                if result.returncode:
                    sys.exit(f"{system} failed:\n{result.stderr[-3000:]}")
                turns.append(Turn(**json.loads(result.stdout.splitlines()[-1])))
                show(turn + 1, turns[-1])
    claims = claims_of(turns, GOALS["listed" if asked.data else "reviews"])
    for claim in claims:
        print(
            f"{'PASS ' if claim.holds else 'FAIL '} {claim.claim}: {claim.value:.2f} {claim.interval}, goal {claim.goal}"
        )
    details = [{**asdict(turn), "right": sum(turn.right), "of": len(turn.right)} for turn in turns]
    if not asked.quick:
        print(write(name, claims, details, time.monotonic() - began))
        draw(turns, name)
    return 0 if all(claim.holds for claim in claims) else 1


def show(turn: int, found: Turn) -> None:
    accuracy = sum(found.right) / len(found.right)
    print(
        f"round {turn}  {found.system:11} {found.tokens_per_second:8.0f} useful tokens/s  "
        f"{found.examples_per_second:6.2f} examples/s  {found.seconds:6.1f} s  {found.peak_mb:6.0f} MB  {accuracy:.1%} right",
        flush=True,
    )


def claims_of(turns: Sequence[Turn], goal: float) -> list[Claim]:
    """Claims against TRL's best setting: speed in each round, accuracy on the same held-out rows, peak memory."""
    from perpetune.statistics.paired import compare as paired

    by_system = {system: [turn for turn in turns if turn.system == system] for system in SYSTEMS}
    speeds = {system: [turn.tokens_per_second for turn in found] for system, found in by_system.items()}
    peer = max(SYSTEMS[1:], key=lambda system: statistics.mean(speeds[system]))
    ratios = [ours / theirs for ours, theirs in zip(speeds["perpetune"], speeds[peer], strict=True)]
    ours, theirs = by_system["perpetune"][0], by_system[peer][0]
    gain = paired(list(map(float, theirs.right)), list(map(float, ours.right)), confidence=0.95, samples=2000, seed=7)
    memory = [mine.peak_mb / other.peak_mb for mine, other in zip(by_system["perpetune"], by_system[peer], strict=True)]
    speed = statistics.mean(ratios)
    return [
        Claim(f"times as fast as {peer}", speed, (min(ratios), max(ratios)), goal, speed >= goal),
        Claim(
            f"accuracy less that of {peer}",
            gain.difference,
            (gain.low, gain.high),
            0.0,
            gain.low <= 0 <= gain.high or gain.difference > 0,
        ),
        Claim(
            f"peak memory over that of {peer}",
            statistics.mean(memory),
            (min(memory), max(memory)),
            1.0,
            max(memory) <= 1.0,
        ),
    ]


def draw(turns: Sequence[Turn], name: str) -> None:
    from matplotlib.figure import Figure

    from perpetune.evaluation.report.style import colour, house_style, write_png

    with house_style():
        figure = Figure(figsize=(7, 2.4))
        axes = figure.subplots()
        means = [
            statistics.mean(turn.tokens_per_second for turn in turns if turn.system == system) for system in SYSTEMS
        ]
        bars = axes.barh(SYSTEMS, means, color=[colour("challenger"), colour("base"), colour("base")])
        axes.bar_label(bars, [f"{value:,.0f}" for value in means], padding=4)
        axes.invert_yaxis()
        axes.set_xlabel("useful tokens per second")
        write_png(figure, Path(__file__).parent / "results" / f"{name}.png")


def _reviews(asked: argparse.Namespace) -> Work:
    from perpetune.curation.readers.reviews import find_wheel, product_examples

    rows = [
        {"input": row.input, "output": row.output}
        for row in product_examples(find_wheel(asked.assets), ("positive", "negative"))
    ]
    return _work(asked, rows, REVIEWS)


def _listed(asked: argparse.Namespace) -> Work:
    rows = [
        {"input": row.get("input") or row["text"], "output": row.get("output") or row["category"]}
        for row in _read(asked.data)
    ]
    labels = sorted({row["output"] for row in rows})
    return _work(asked, rows, "Which of these is it? Answer with one of: " + ", ".join(labels) + ".")


def _read(path: Path) -> list[dict[str, str]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _work(asked: argparse.Namespace, rows: list[dict[str, str]], instruction: str) -> Work:
    random.Random(7).shuffle(rows)
    held_out, train = rows[: asked.held_out], rows[asked.held_out :][: asked.steps * asked.batch_size]
    labels = sorted({row["output"] for row in [*train, *held_out]})
    return Work(instruction, labels, train, held_out, asked.steps, asked.batch_size, asked.micro_batch, asked.threads)


def take_turn(system: str, work: Work) -> Turn:
    import torch

    torch.set_num_threads(work.threads)
    with tempfile.TemporaryDirectory() as folder:
        adapter = Path(folder) / "adapter"
        times = _ours(work, adapter) if system == "perpetune" else _trl(work, adapter, packed=system == "trl packed")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        base = _base()
        right = _ask(work, base, adapter)
    tokens, examples = sum(_lengths(work, base.tokenizer)), len(work.train)
    ratio = (len(times) - 1) / len(times)  # without the warm-up step
    seconds = times[-1] - times[0]
    return Turn(system, seconds, tokens * ratio / seconds, examples * ratio / seconds, peak, right)


def _base() -> Base:
    from perpetune.model.base import load_base

    return load_base(_params().base, Path("assets"), _params().train.precision)


def _params() -> Params:
    from perpetune.params import load_params

    return load_params(Path("params.yaml"))


def _ours(work: Work, adapter: Path) -> list[float]:  # without a label head, as TRL
    from perpetune.records import Example
    from perpetune.training.trainer import Progress, train

    rows = [Example(**row, id=str(n), group=str(n), source="benchmark") for n, row in enumerate(work.train)]
    params = _params().train.model_copy(
        update={
            "epochs": 1.0,
            "batch_size": work.batch_size,
            "learning_rate": RATE,
            "class_weights": "none",
            "max_example_tokens": 4096,
            "max_packed_tokens": 4096,
        }
    )
    times: list[float] = []

    def tick(progress: Progress) -> None:
        times.append(time.monotonic())

    train(_base(), rows, [], work.instruction, params, adapter, tick)
    return times


def _trl(work: Work, adapter: Path, *, packed: bool) -> list[float]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    params, base = _params().train, _base()
    prompt = [{"role": "system", "content": work.instruction}]
    data = Dataset.from_list(
        [
            {
                "prompt": [*prompt, {"role": "user", "content": row["input"]}],
                "completion": [{"role": "assistant", "content": row["output"]}],
            }
            for row in work.train
        ]
    )
    lengths = _lengths(work, base.tokenizer)
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            times.append(time.monotonic())

    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=base.model,
            processing_class=base.tokenizer,
            train_dataset=data,
            callbacks=[Clock()],
            peft_config=LoraConfig(
                task_type="CAUSAL_LM",
                r=params.lora.rank,
                lora_alpha=params.lora.alpha,
                lora_dropout=params.lora.dropout,
                target_modules="all-linear",
            ),
            args=SFTConfig(
                output_dir=folder,
                max_steps=work.steps,
                # A packed sequence has as many examples as a micro-batch.
                per_device_train_batch_size=1 if packed else work.micro_batch,
                gradient_accumulation_steps=work.batch_size // work.micro_batch,
                max_length=int(statistics.mean(lengths) * work.micro_batch) if packed else max(lengths),
                packing=packed,
                completion_only_loss=True,
                learning_rate=RATE,
                lr_scheduler_type="cosine",
                warmup_steps=max(1, round(work.steps * params.warmup_ratio)),
                weight_decay=params.weight_decay,
                max_grad_norm=params.max_grad_norm,
                bf16=base.model.dtype == torch.bfloat16,
                gradient_checkpointing=False,
                use_cpu=not torch.cuda.is_available(),
                seed=params.seed,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            ),
        )
        trainer.train()
        trainer.save_model(str(adapter))
    return times


def _ask(work: Work, base, adapter: Path) -> list[int]:  # type: ignore[no-untyped-def]
    from perpetune.inference.predictor import Predictor
    from perpetune.records import Message, with_instruction

    predictor = Predictor(base, 1024)
    predictor.load_adapter("turn", adapter)
    asked = [with_instruction(work.instruction, (Message(role="user", content=row["input"]),)) for row in work.held_out]
    answers = predictor.answer("turn", asked, work.labels, 16)
    return [int(answer.text == row["output"]) for answer, row in zip(answers, work.held_out, strict=True)]


def _lengths(work: Work, tokenizer) -> list[int]:  # type: ignore[no-untyped-def]
    from perpetune.model.chat.chat_format import answer_tokens, prompt_tokens
    from perpetune.records import Message, with_instruction

    return [
        len(prompt_tokens(tokenizer, with_instruction(work.instruction, (Message(role="user", content=row["input"]),))))
        + len(answer_tokens(tokenizer, row["output"]))
        for row in work.train
    ]


if __name__ == "__main__":
    sys.exit(main())
