"""Models trained on all spoiled rows, on a random tenth of them, and on a tenth that curation chose.

Two kinds of model: logistic regression on embeddings, and the small language model by the product's own training. Each
is given equally many steps on each of the sets.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from shared import spoiled
from shared.quality_data import Data

from perpetune.curation.quarantine import in_order
from perpetune.curation.steps.clean import clean
from perpetune.files import write_atomic
from perpetune.params import CleanParams, LabelErrorsParams, SelectParams, TaskParams
from perpetune.quality.features import Features
from perpetune.quality.judge import judgeable, opinions_of
from perpetune.quality.quotas import balanced_quotas
from perpetune.quality.steps.label_errors import label_errors
from perpetune.quality.steps.select import select
from perpetune.records import Example, conversation

TASK = TaskParams(name="bench", kind="classification", instruction="")
LANGUAGE_MODEL = "language model"
CURATED, RANDOM, ALL = "a curated tenth", "a random tenth", "all spoiled rows"
EPOCHS = 30  # that the equal steps of the linear models are of a tenth
STEPS, BATCH = 40, 8  # of the language model
SEEDS = 5  # of the linear models
Embed = Callable[[Sequence[str]], Features]


@dataclass(frozen=True)
class Spoiled:
    """Spoiled rows, the right labels of the flipped ones by id, and the rows that curation keeps of them."""

    raw: Sequence[Example]
    wrong: dict[str, str]
    kept: Sequence[Example]

    @property
    def budget(self) -> int:
        return len(self.raw) // 10


@dataclass(frozen=True)
class Learned:
    """A model's training rows and its scores, from 0 to 1 for each test row."""

    data: str
    rate: float
    model: str
    system: str
    seed: int
    rows: int
    wrong: float
    scores: tuple[float, ...]
    seconds: float = 0.0

    @property
    def accuracy(self) -> float:
        return float(np.mean(self.scores))

    def as_document(self) -> dict[str, object]:
        return {
            "data": self.data,
            "flipped": self.rate,
            "model": self.model,
            "trained on": self.system,
            "seed": self.seed,
            "rows": self.rows,
            "wrong labels": round(self.wrong, 4),
            "accuracy": round(self.accuracy, 4),
            "test rows": len(self.scores),
            "seconds": round(self.seconds, 1),
            # Each is 0, 1 or the mean of five of these (SEEDS).
            "scores in fifths": "".join(str(round(5 * score)) for score in self.scores),
        }


def learned_of(document: Mapping[str, Any]) -> Learned:
    """What `as_document` was made of."""
    return Learned(
        data=document["data"],
        rate=document["flipped"],
        model=document["model"],
        system=document["trained on"],
        seed=document["seed"],
        rows=document["rows"],
        wrong=document["wrong labels"],
        scores=tuple(int(digit) / 5 for digit in document["scores in fifths"]),
        seconds=document["seconds"],
    )


def spoil(pool: Sequence[Example], rate: float, embed: Embed, seed: int) -> Spoiled:
    """Flip so many labels, add 10% copies and 10% near duplicates, and curate: suspects out, duplicates out."""
    draw = random.Random(seed)
    flipped, wrong = spoiled.with_flipped_labels(pool, rate, draw)
    kinds = ("case", "one_word", "greeting")
    twins = [twin for kind in kinds for twin in spoiled.variants(draw.sample(flipped, len(flipped) // 30), kind, draw)]
    raw = in_order([*flipped, *spoiled.copies(flipped, len(flipped) // 10, draw), *twins])
    curated = label_errors(raw, LabelErrorsParams(action="quarantine", max_rows=None), embed).result.kept
    return Spoiled(raw, wrong, clean(curated, CleanParams(), TASK).kept)


def chosen(found: Spoiled, embed: Embed, **settings: str) -> list[Example]:
    """The product's selection, by default with the default settings."""
    params = SelectParams.model_validate({"budget": found.budget, **settings})
    return list(select(found.kept, params, embed, labelled=True).chosen)


def wrong_ratio(rows: Sequence[Example], wrong: dict[str, str]) -> float:
    return float(np.mean([_is_wrong(row, wrong) for row in rows]))


def _is_wrong(row: Example, wrong: dict[str, str]) -> bool:
    name = row.id.removeprefix("copy ")
    for kind in spoiled.KINDS:
        name = name.removeprefix(f"{kind} ")
    return name in wrong and wrong[name] != row.output


def linear_models(data: Data, rate: float, embed: Embed, seeds: Sequence[int], *, every_choice: bool) -> list[Learned]:
    """Logistic regression on embeddings: to convergence, and with equal steps.

    The data is spoiled and drawn from again with each seed; a test row's score is its mean over the seeds.
    """
    runs = [_linear_run(data, rate, embed, seed, every_choice=every_choice) for seed in seeds]
    learned = []
    for systems in zip(*runs, strict=True):
        scores = tuple(np.mean([each.scores for each in systems], axis=0).tolist())
        wrong = float(np.mean([each.wrong for each in systems]))
        learned.append(replace(systems[0], scores=scores, wrong=wrong, seconds=sum(each.seconds for each in systems)))
        show(learned[-1])
    return learned


def _linear_run(data: Data, rate: float, embed: Embed, seed: int, *, every_choice: bool) -> list[Learned]:
    """With one seed: all systems, each with both ways of training."""
    found = spoil(data.pool, rate, embed, seed)
    systems: dict[str, Sequence[Example]] = {
        ALL: found.raw,
        RANDOM: random.Random(seed).sample(list(found.raw), found.budget),
        CURATED: chosen(found, embed),
        "all curated rows": found.kept,
    }
    if every_choice:
        systems |= _choices(found, embed)
    learned = []
    for system, rows in systems.items():
        began = time.monotonic()
        scores = _linear(rows, data.test, embed, steps=EPOCHS * found.budget, seed=seed)
        wrong, seconds = wrong_ratio(rows, found.wrong), time.monotonic() - began
        learned += [
            Learned(data.name, rate, how, system, seed, len(rows), wrong, tuple(scores[place]), seconds)
            for place, how in enumerate(("linear", "linear, equal steps"))
        ]
    return learned


def _choices(found: Spoiled, embed: Embed) -> dict[str, Sequence[Example]]:
    """Tenths that other settings choose."""
    return {
        "a tenth: facility location, hard rows preferred": chosen(found, embed, prefer="hard"),
        "a tenth: facility location, easy rows preferred": chosen(found, embed, prefer="easy"),
        "a tenth: k-center": chosen(found, embed, method="k_center"),
        "a tenth: k-center, hard rows preferred": chosen(found, embed, method="k_center", prefer="hard"),
        "a tenth: even over labels, random": chosen(found, embed, method="random"),
        "a tenth: smallest margin first": _hardest(found, embed),
    }


def _hardest(found: Spoiled, embed: Embed) -> list[Example]:
    """Of each label the rows with the smallest out-of-fold margin, whatever that says of their labels."""
    rows = found.kept
    places, _ = judgeable(rows, [row.group for row in rows], 5, None)
    judged = [rows[place] for place in places]
    vectors = embed([row.input for row in judged]).vectors
    margins = opinions_of(judged, vectors, [row.group for row in judged], 5).margins
    by_label: dict[str, list[int]] = {}
    for place in np.argsort(margins, kind="stable").tolist():
        by_label.setdefault(judged[place].output, []).append(place)
    quotas = balanced_quotas({label: len(members) for label, members in by_label.items()}, found.budget)
    return [judged[place] for label, members in by_label.items() for place in members[: quotas[label]]]


def _linear(
    rows: Sequence[Example], test: Sequence[Example], embed: Embed, steps: int, seed: int
) -> tuple[list[float], list[float]]:
    """Which test rows are right, by a model to convergence and by one after so many steps of one row each."""
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from threadpoolctl import threadpool_limits

    inputs, labels = embed([row.input for row in rows]).vectors, np.array([row.output for row in rows])
    asked, right = embed([row.input for row in test]).vectors, np.array([row.output for row in test])
    order = np.concatenate([np.random.default_rng(n).permutation(len(rows)) for n in range(-(-steps // len(rows)))])
    visits = order[:steps]
    with threadpool_limits(1):
        full = LogisticRegression(C=10, max_iter=300).fit(2 * inputs, labels)
        brief = SGDClassifier(loss="log_loss", alpha=1e-5, random_state=seed, shuffle=False)
        brief.partial_fit(2 * inputs[visits], labels[visits], classes=np.unique(labels))
        first, second = ([float(hit) for hit in model.predict(2 * asked) == right] for model in (full, brief))
    return first, second


def tuned_models(data: Data, rate: float, embed: Embed, seed: int, asked: argparse.Namespace) -> list[Learned]:
    """The small language model, fine-tuned with equal steps on each set.

    Each model takes minutes, so that what it scored is kept in a file; delete it to train again.
    """
    draw = random.Random(seed)
    pool = draw.sample(list(data.pool), min(len(data.pool), asked.tuned_rows))
    test = draw.sample(list(data.test), min(len(data.test), asked.tuned_test))
    found = spoil(pool, rate, embed, seed)
    systems = {
        CURATED: chosen(found, embed),
        RANDOM: draw.sample(list(found.raw), found.budget),
        ALL: list(found.raw),
    }
    return [
        _kept(
            asked.home / "tuned" / f"{_digest(data, rows, test, seed)}.json",
            lambda: _learned(data, rate, system, seed, rows, test, found, asked),  # noqa: B023  # called at once
        )
        for system, rows in systems.items()
    ]


def _digest(data: Data, rows: Sequence[Example], test: Sequence[Example], seed: int) -> str:
    """Of all that a training and its scores depend on, but for the code."""
    told = repr((data.instruction, STEPS, BATCH, seed, [(row.input, row.output) for row in (*rows, *test)]))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _kept(path: Path, train: Callable[[], Learned]) -> Learned:
    if path.is_file():
        return learned_of(json.loads(path.read_text(encoding="utf-8")))
    learned = train()
    write_atomic(path, json.dumps(learned.as_document()))
    return learned


def _learned(
    data: Data,
    rate: float,
    system: str,
    seed: int,
    rows: Sequence[Example],
    test: Sequence[Example],
    found: Spoiled,
    asked: argparse.Namespace,
) -> Learned:
    began = time.monotonic()
    scores = _tuned(data, rows, test, seed, asked)
    wrong, seconds = wrong_ratio(rows, found.wrong), time.monotonic() - began
    learned = Learned(data.name, rate, LANGUAGE_MODEL, system, seed, len(rows), wrong, scores, seconds)
    show(learned)
    return learned


def _tuned(
    data: Data, rows: Sequence[Example], test: Sequence[Example], seed: int, asked: argparse.Namespace
) -> tuple[float, ...]:
    """Train with the settings of params.yaml, but for a fixed number of steps, and answer the test rows."""
    import torch

    from perpetune.inference.predictor import load_predictor
    from perpetune.params import load_params
    from perpetune.training.job import train_here
    from perpetune.training.job_files import Job

    torch.set_num_threads(asked.threads)
    params = load_params(Path("params.yaml"))
    fixed = {"epochs": STEPS * BATCH / len(rows), "batch_size": BATCH, "minutes": None, "seed": seed}
    labels = tuple(sorted({row.output for row in data.pool}))
    shuffled = random.Random(seed).sample(list(rows), len(rows))
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            base=params.base,
            assets=asked.assets.absolute(),
            instruction=data.instruction,
            params=params.train.model_copy(update=fixed),
            adapter=Path(folder) / "adapter",
            checkpoints=None,
            labels=labels,
        )
        trained = train_here(job, shuffled, [], report=lambda _: None)
        if trained.steps != STEPS:
            raise SystemExit(f"{trained.steps} steps instead of {STEPS}: the sets would not be compared fairly")
        predictor = load_predictor(params.base, job.assets, params.train.precision, params.evaluate.batch_tokens)
        predictor.load_adapter("tuned", job.adapter)
        answers = predictor.answer("tuned", [conversation(data.instruction, row) for row in test], labels, 1)
    return tuple(float(answer.text == row.output) for answer, row in zip(answers, test, strict=True))


def show(learned: Learned) -> None:
    print(
        f"{learned.data:22} {learned.rate:4.0%} {learned.model:19} {learned.system:48} {learned.rows:5} rows, "
        f"{learned.wrong:5.1%} wrong: {learned.accuracy:.1%} of {len(learned.scores)} ({learned.seconds:.0f} s)",
        flush=True,
    )
