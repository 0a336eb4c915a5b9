"""The default training recipe: scores against rivals on several tasks and training sizes.

    python benchmarks/recipe.py --data DATA                            # every task, hours on two cores
    python benchmarks/recipe.py --data DATA --task intents20 --rows 300 1000
    python benchmarks/recipe.py --quick                                # reviews only, no output files

Ours are the tuned model and the linear models on TF-IDF and on embeddings. "perpetune" is the one of them that would be
served: the simplest within `promote.simpler_margin` of the best on further rows, a fifth as many as were trained on. The score
is taken on held-out rows that none of this has seen.

DATA has banking77/{train,test}.csv (columns text, category), contracts/ and restaurants/{train,test}.jsonl; reviews come
with the product. Rivals are trained on the same rows and answer the same held-out ones: TF-IDF with logistic regression;
sentence embeddings by all-MiniLM-L6-v2 with logistic regression (as in SetFit, Tunstall et al. 2022, arXiv:2209.11055,
without its contrastive step); and TRL's SFTTrainer with its defaults on the same base, stopped after the wall time of
perpetune's fine-tuning (`--trl`). Each cell is one training, so intervals cover the variation of held-out rows, not that
between seeds. Earlier results are kept, and cells are added.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.record import RESULTS, Claim, write

if TYPE_CHECKING:
    from perpetune.output_schema import Schema
    from perpetune.params import Params
    from perpetune.records import Example

SIZES = (100, 300, 1000, 3000)
GOAL = -0.02  # largest loss against the best rival, with a thousand rows or more
SEED = 7
PROMPTED_AT, PROMPTED_ROWS = 300, 60  # training rows, and held-out rows that the base is prompted with
CHOOSING = 40  # least rows for the choice of the served system
OURS, TUNED, LINEAR, BASE, TRL = (
    "perpetune",
    "fine-tuned",
    "TF-IDF and embeddings",
    "base with examples",
    "TRL, equal time",
)
RIVALS = ("TF-IDF", "embeddings", TRL)
SLOTS = ("name", "eatType", "food", "priceRange", "customer rating", "area", "familyFriendly", "near")
DRAWN = {  # system and colour
    TUNED: "challenger",
    LINEAR: "champion",
    "embeddings": "embeddings",
    "TF-IDF": "linear",
    TRL: "wrong",
    BASE: "base",
}


@dataclass(frozen=True)
class Task:
    """Training and held-out rows (input, output); the outputs are labels, or satisfy the schema."""

    name: str
    instruction: str
    train: Sequence[tuple[str, str]]
    test: Sequence[tuple[str, str]]
    schema: Schema | None = None

    @property
    def labels(self) -> bool:
        return self.schema is None


@dataclass(frozen=True)
class Cell:
    """A system on a task and training size: a score for each held-out row, and the seconds of its training.

    `chosen`: the system that would be served, for the system "perpetune"; `chosen_by`: its mean score on the choosing rows.
    """

    task: str
    rows: int
    system: str
    scores: tuple[float, ...]
    seconds: float
    steps: int = 0
    chosen: str = ""
    chosen_by: float | None = None


def main() -> int:
    asked = _arguments()
    began = time.monotonic()
    import torch

    from perpetune.params import load_params

    torch.set_num_threads(asked.threads)
    params = load_params(Path("params.yaml"))
    cells = [] if asked.quick else _measured()
    for name in asked.task:
        task = TASKS[name](asked)
        for size in sorted({min(size, len(task.train)) for size in asked.rows}):
            for cell in measure(task, size, params, asked):
                cells = [
                    old for old in cells if (old.task, old.rows, old.system) != (cell.task, cell.rows, cell.system)
                ]
                cells.append(cell)
                show(cell)
            if not asked.quick:
                write("recipe", claims_of(cells), [asdict(cell) for cell in cells], time.monotonic() - began)
    claims = claims_of(cells)
    for claim in claims:
        low, high = claim.interval
        print(f"{'PASS ' if claim.holds else 'FAIL '} {claim.claim}: {claim.value:+.3f} ({low:+.3f} to {high:+.3f})")
    if not asked.quick:
        draw(cells)
    return 0 if asked.quick or all(claim.holds for claim in claims) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with banking77, contracts and restaurants")
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--task", nargs="+", choices=tuple(TASKS))
    parser.add_argument("--rows", nargs="+", type=int, default=SIZES)
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument("--trl", action="store_true", help="also train with TRL's defaults, for the same time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="100 reviews, 60 held out, no output files")
    asked = parser.parse_args()
    if asked.quick:
        asked.task, asked.rows, asked.held_out, asked.trl = ["reviews"], [100], 60, False
    asked.task = asked.task or [name for name in TASKS if asked.data or name == "reviews"]
    return asked


def measure(task: Task, size: int, params: Params, asked: argparse.Namespace) -> Iterator[Cell]:
    """The recipe and its rivals on the first `size` rows, with a tenth more rows for validation."""
    from perpetune.model.weights import resolve

    end = size + max(20, size // 10)
    train, validation = task.train[:size], task.train[size:end]
    choosing = task.train[end : end + max(CHOOSING, size // 5)]
    # A system answers the choosing and the held-out rows in one call.
    both = replace(task, test=[*choosing, *task.test])
    tuned = fine_tuned(both, train, validation, params, asked)
    linear = [fitted(both, train, name, params, asked) for name in ("TF-IDF", LINEAR)] if task.labels else []
    yield chosen([*linear, tuned], len(choosing), params)
    yield from (_judged(cell, len(choosing)) for cell in (tuned, *linear))
    if task.labels and params.evaluate.encoder:
        yield embeddings(task, train, resolve(params.evaluate.encoder, asked.assets, setting="evaluate.encoder"))
    if size == PROMPTED_AT:
        yield prompted(task, train, params, asked)
    if asked.trl:
        yield trl(task, train, tuned.seconds, params, asked)


def chosen(ours: Sequence[Cell], choosing: int, params: Params) -> Cell:
    """The first of ours, simplest first, that is at most `promote.simpler_margin` behind the best on the rows that choose."""
    seen = {cell.system: sum(cell.scores[:choosing]) / max(1, choosing) for cell in ours}
    best = max(seen.values())
    taken = next(cell for cell in ours if seen[cell.system] >= best - params.promote.simpler_margin)
    seconds = sum(cell.seconds for cell in ours)
    return replace(_judged(taken, choosing), system=OURS, seconds=seconds, chosen=taken.system)


def _judged(cell: Cell, choosing: int) -> Cell:
    seen = cell.scores[:choosing]
    return replace(cell, scores=cell.scores[choosing:], chosen_by=sum(seen) / len(seen) if seen else None)


def fitted(task: Task, train: Sequence[tuple[str, str]], name: str, params: Params, asked: Any) -> Cell:
    """A linear model of perpetune: on TF-IDF, or on TF-IDF and embeddings."""
    from perpetune.classifiers.encoder import load_encoder
    from perpetune.evaluation.baselines import answers_of, fitted_linear, majority_answers

    encoder = (
        load_encoder(params.evaluate.encoder, asked.assets) if name == LINEAR and params.evaluate.encoder else None
    )
    began = time.monotonic()
    model, test = fitted_linear(_examples(train), SEED, encoder), _examples(task.test)
    seconds = time.monotonic() - began
    answers = answers_of(model, test) if model else majority_answers(_examples(train), test, "classification")
    right = tuple(float(answer.text == output) for answer, (_, output) in zip(answers, task.test, strict=True))
    return Cell(task.name, len(train), name, right, seconds)


def fine_tuned(
    task: Task, train: Sequence[tuple[str, str]], validation: Sequence[tuple[str, str]], params: Params, asked: Any
) -> Cell:
    from perpetune.inference.predictor import load_predictor
    from perpetune.loop.training.ensemble_training import launch_ensemble
    from perpetune.training.job_files import Job

    labels = sorted({output for _, output in train}) if task.labels else None
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            base=params.base,
            assets=asked.assets,
            instruction=task.instruction,
            params=params.train,
            adapter=Path(folder),
            checkpoints=None,
            labels=tuple(labels) if labels else None,
        )
        began = time.monotonic()
        done = launch_ensemble(job, params.evaluate.encoder, _examples(train), _examples(validation), lambda _: None)
        seconds = time.monotonic() - began
        predictor = load_predictor(params.base, asked.assets, params.train.precision, params.evaluate.batch_tokens)
        predictor.load_adapter("ours", Path(folder))
        return Cell(task.name, len(train), TUNED, _answered(predictor, "ours", task, labels), seconds, done.steps)


def prompted(task: Task, train: Sequence[tuple[str, str]], params: Params, asked: Any) -> Cell:
    """The untrained base with examples, on the first held-out rows."""
    from perpetune.inference.predictor import load_predictor
    from perpetune.loop.assess.few_shot import few_shot

    some = replace(task, test=task.test[:PROMPTED_ROWS])
    labels = sorted({output for _, output in train}) if task.labels else None
    shots = few_shot(_examples(train), params.evaluate.few_shot_examples, SEED)
    predictor = load_predictor(params.base, asked.assets, params.train.precision, params.evaluate.batch_tokens)
    return Cell(task.name, len(train), BASE, _answered(predictor, None, some, labels, shots), 0.0)


def trl(task: Task, train: Sequence[tuple[str, str]], seconds: float, params: Params, asked: Any) -> Cell:
    """SFTTrainer with its defaults and peft's default LoRA on all linear layers."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from perpetune.inference.predictor import Predictor
    from perpetune.model.base import load_base

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop |= time.monotonic() - began >= seconds

    base = load_base(params.base, asked.assets, params.train.precision)
    rows = [
        {
            "prompt": [{"role": "system", "content": task.instruction}, {"role": "user", "content": text}],
            "completion": [{"role": "assistant", "content": output}],
        }
        for text, output in train
    ]
    labels = sorted({output for _, output in train}) if task.labels else None
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder, bf16=base.model.dtype == torch.bfloat16, use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=False, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
            seed=SEED,
        )  # fmt: skip
        trainer = SFTTrainer(
            model=base.model, processing_class=base.tokenizer, train_dataset=Dataset.from_list(rows), args=config,
            peft_config=LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"), callbacks=[Clock()],
        )  # fmt: skip
        began = time.monotonic()
        trainer.train()
        spent = time.monotonic() - began
        trainer.save_model(folder)
        predictor = Predictor(
            load_base(params.base, asked.assets, params.train.precision), params.evaluate.batch_tokens
        )
        predictor.load_adapter("trl", Path(folder))
        scores = _answered(predictor, "trl", task, labels)
        return Cell(task.name, len(train), TRL, scores, spent, trainer.state.global_step)


def embeddings(task: Task, train: Sequence[tuple[str, str]], encoder: Path) -> Cell:
    from sklearn.linear_model import LogisticRegressionCV

    began = time.monotonic()
    inputs, outputs = zip(*train, strict=True)
    folds = max(2, min(3, min(outputs.count(label) for label in set(outputs))))
    model = LogisticRegressionCV(Cs=[1, 10, 100], cv=folds, max_iter=1000).fit(_embedded(inputs, encoder), outputs)
    found = model.predict(_embedded([text for text, _ in task.test], encoder))
    right = tuple(float(label == output) for label, (_, output) in zip(found, task.test, strict=True))
    return Cell(task.name, len(train), "embeddings", right, time.monotonic() - began)


def _embedded(texts: Sequence[str], encoder: Path) -> Any:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder)
    found = []
    with torch.inference_mode():
        for first in range(0, len(texts), 32):
            batch = tokenizer(
                list(texts[first : first + 32]), padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            mask = batch["attention_mask"][..., None]
            mean = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
            found.append(torch.nn.functional.normalize(mean, dim=-1))
    return torch.cat(found).numpy()


def _answered(
    predictor: Any, name: str | None, task: Task, labels: Sequence[str] | None, shots: Sequence[Any] = ()
) -> tuple[float, ...]:
    """A score for each held-out row: 1 or 0 for a label, slot F1 for a JSON object."""
    from perpetune.evaluation.scores.scoring import scoring_of
    from perpetune.output_schema import to_text
    from perpetune.records import Message, with_instruction

    questions = [
        with_instruction(task.instruction, (Message(role="user", content=text),), tuple(shots)) for text, _ in task.test
    ]
    answers = predictor.answer(name, questions, labels, 128, to_text(task.schema) if task.schema else None)
    scoring = scoring_of("classification" if task.labels else "generation", task.schema)
    return tuple(scoring.score(output, answer.text) for answer, (_, output) in zip(answers, task.test, strict=True))


def _examples(rows: Sequence[tuple[str, str]]) -> list[Example]:
    from perpetune.records import Example

    return [
        Example(input=text, output=output, id=str(position), group=str(position), source="benchmark")
        for position, (text, output) in enumerate(rows)
    ]


def claims_of(cells: Sequence[Cell]) -> list[Claim]:
    """Claims: the served system against the best rival (by its score on these rows) and the prompted base, tuned against TRL."""
    claims = []
    for task, rows in sorted({(cell.task, cell.rows) for cell in cells}):
        here = {cell.system: cell.scores for cell in cells if (cell.task, cell.rows) == (task, rows)}
        rivals = [system for system in here if system in RIVALS]
        if rows >= 1000 and rivals:
            best = max(rivals, key=lambda system: sum(here[system]))
            claims.append(_less(f"{task}, {rows} rows: {OURS}", here[OURS], best, here[best], GOAL))
        if TRL in here:
            claims.append(_less(f"{task}, {rows} rows: {TUNED}", here[TUNED], TRL, here[TRL], 0.0))
        if BASE in here:
            some = here[OURS][: len(here[BASE])]
            claims.append(_less(f"{task}, {rows} rows: {OURS}", some, BASE, here[BASE], 0.0))
    return claims


def _less(subject: str, ours: Sequence[float], rival: str, theirs: Sequence[float], goal: float) -> Claim:
    from perpetune.statistics.paired import compare

    found = compare(theirs, ours, confidence=0.95, samples=2000, seed=SEED)
    return Claim(
        f"{subject} less {rival}", found.difference, (found.low, found.high), goal, bool(found.difference >= goal)
    )


def show(cell: Cell) -> None:
    from perpetune.statistics.estimate import estimate_mean

    found = estimate_mean(cell.scores, confidence=0.95, samples=2000, seed=SEED)
    steps = f", serves {cell.chosen}" if cell.chosen else f", {cell.steps} steps" if cell.steps else ""
    seen = f" ({cell.chosen_by:.1%} on the choosing rows)" if cell.chosen_by is not None else ""
    print(
        f"{cell.task:12} {cell.rows:5} rows  {cell.system:21} {found.value:.1%} ({found.low:.1%} to {found.high:.1%}, "
        f"n={len(cell.scores)})  {cell.seconds:.0f} s{steps}{seen}",
        flush=True,
    )


def draw(cells: Sequence[Cell]) -> None:
    """A panel for each task: the score of each system by training rows; a ring marks the served system."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    from perpetune.evaluation.report.style import LIGHT, house_style, write_png

    colours = dict(zip(DRAWN, (LIGHT[name] for name in DRAWN.values()), strict=True))
    tasks = [task for task in TASKS if any(cell.task == task for cell in cells)]
    with house_style():
        figure = Figure(figsize=(2.6 * len(tasks) + 2.4, 3.2))
        panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
        for axes, task in zip(panels, tasks, strict=True):
            for system, colour in colours.items():
                line = sorted((c.rows, _mean(c)) for c in cells if (c.task, c.system) == (task, system))
                if line:
                    axes.plot(*zip(*line, strict=True), marker="o", markersize=5, color=colour, label=system)
            served = [(c.rows, _mean(c)) for c in cells if (c.task, c.system) == (task, OURS)]
            rows, scores = zip(*served, strict=True)
            ring = {"facecolors": "none", "edgecolors": LIGHT["ink"], "s": 90, "zorder": 3}
            axes.scatter(rows, scores, label="served by perpetune", **ring)
            axes.set(title=task, xscale="log", xlabel="training rows", xlim=(70, 4300), ylim=(0, 1))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
            axes.grid(axis="y")
        panels[0].set_ylabel("score on held-out rows")
        named = {label: each for axes in panels for each, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(named.values(), named.keys(), loc="outside right upper", frameon=False)
        write_png(figure, RESULTS / "recipe.png")


def _mean(cell: Cell) -> float:
    return sum(cell.scores) / len(cell.scores)


def _measured() -> list[Cell]:
    path = RESULTS / "recipe.json"
    if not path.is_file():
        return []
    return [Cell(**{**cell, "scores": tuple(cell["scores"])}) for cell in json.loads(path.read_text())["details"]]


def banking(data: Path, part: str) -> list[tuple[str, str]]:
    with (data / "banking77" / f"{part}.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"].strip(), row["category"]) for row in csv.DictReader(file)]


def _intents(count: int) -> Callable[[argparse.Namespace], Task]:
    def task(asked: argparse.Namespace) -> Task:
        train, test = banking(asked.data, "train"), banking(asked.data, "test")
        kept = set(random.Random(SEED).sample(sorted({label for _, label in train}), count))
        train, test = ([row for row in rows if row[1] in kept] for rows in (train, test))
        return _task(f"intents{count}", "Which intent does this customer message have?", train, test, asked)

    return task


def _rare(asked: argparse.Namespace) -> Task:
    """A rare label: one message of eight is about a lost or stolen card or phone."""
    gone = {"lost_or_stolen_card", "compromised_card", "lost_or_stolen_phone", "card_swallowed"}

    def divided(part: str) -> list[tuple[str, str]]:
        rows = _shuffled(banking(asked.data, part))
        yes = [(text, "yes") for text, label in rows if label in gone]
        no = [(text, "no") for text, label in rows if label not in gone]
        return [*yes, *no[: 7 * len(yes)]]

    instruction = "Is a card or phone of this customer lost, stolen or at risk? Answer yes or no."
    return _task("rare", instruction, divided("train"), divided("test"), asked)


def _files(name: str, instruction: str, schema: Schema | None = None) -> Callable[[argparse.Namespace], Task]:
    def task(asked: argparse.Namespace) -> Task:
        train, test = (
            [(row["input"], row["output"]) for row in map(json.loads, (asked.data / name / f"{part}.jsonl").open())]
            for part in ("train", "test")
        )
        return replace(_task(name, instruction, train, test, asked), schema=schema)

    return task


def _reviews(asked: argparse.Namespace) -> Task:
    from perpetune.curation.readers.reviews import find_wheel, product_examples

    wheel = find_wheel(asked.assets)
    rows = product_examples(wheel, ("positive", "negative", "mixed"))
    groups = sorted({row.group for row in rows})
    held_out = set(random.Random(SEED).sample(groups, len(groups) // 4))
    train, test = (
        [(row.input, row.output) for row in rows if (row.group in held_out) is tested] for tested in (False, True)
    )
    instruction = "Is this sentence of a review positive, negative or mixed? Answer with one word."
    return _task("reviews", instruction, train, test, asked)


def _task(
    name: str,
    instruction: str,
    train: list[tuple[str, str]],
    test: list[tuple[str, str]],
    asked: argparse.Namespace,
) -> Task:
    return Task(name, instruction, _shuffled(train), _shuffled(test)[: asked.held_out])


def _shuffled(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return random.Random(SEED).sample(rows, len(rows))


TASKS: dict[str, Callable[[argparse.Namespace], Task]] = {
    "intents20": _intents(20),
    "intents77": _intents(77),
    "rare": _rare,
    "contracts": _files("contracts", "Which provision does this clause state?"),
    "restaurants": _files(
        "restaurants",
        "Write the facts that this sentence states as a JSON object.",
        {
            "type": "object",
            "properties": {slot: {"type": "string"} for slot in SLOTS},
            "required": ["name"],
            "additionalProperties": False,
        },
    ),
    "reviews": _reviews,
}

if __name__ == "__main__":
    sys.exit(main())
