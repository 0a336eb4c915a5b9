"""Real answers: the base and two fine-tuned models on held-out product and film reviews."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perpetune.params import Params
    from perpetune.records import Example, Message

LABELS = ("negative", "positive")
INSTRUCTION = "Is this sentence of a review positive or negative? Answer with one word."
TRAINED_ON = {"short": 80, "longer": 320}  # examples


@dataclass(frozen=True)
class Answered:
    """A system's answers to a set of rows: right or wrong, and the probability of the right label."""

    system: str
    rows: str
    labels: list[str]
    right: list[float]
    chance: list[float]


def real_answers(assets: Path, held_out: int) -> list[Answered]:
    """Train and answer, with a cache in the folder for temporary files."""
    kept = Path(tempfile.gettempdir()) / f"perpetune-decisions-{held_out}.json"
    if kept.is_file():
        return [Answered(**one) for one in json.loads(kept.read_text(encoding="utf-8"))]
    found = _make(assets, held_out)
    kept.write_text(json.dumps([asdict(one) for one in found]), encoding="utf-8")
    return found


def _make(assets: Path, held_out: int) -> list[Answered]:
    from perpetune.curation.readers.reviews import find_wheel, labelled, product_examples, rated_sentences
    from perpetune.inference.predictor import load_predictor
    from perpetune.params import load_params

    params, wheel = load_params(Path("params.yaml")), find_wheel(assets)
    products = product_examples(wheel, LABELS)
    films = [row for rated in rated_sentences(wheel, "films") if (row := labelled(rated)) and row.output in LABELS]
    shuffler = random.Random(7)
    shuffler.shuffle(products)
    shuffler.shuffle(films)
    rows = {"products": products[:held_out], "films": films[:held_out]}
    predictor = load_predictor(params.base, assets, params.train.precision, params.evaluate.batch_tokens)
    with tempfile.TemporaryDirectory() as folder:
        for trained, examples in TRAINED_ON.items():
            print(f"training on {examples} product reviews", flush=True)
            adapter = _train(params, assets, products[held_out:][:examples], Path(folder) / trained)
            predictor.load_adapter(trained, adapter)
        found = []
        systems: tuple[str | None, ...] = (None, *TRAINED_ON)
        for system in systems:
            for kind, some in rows.items():
                print(f"{system or 'base'} answers {len(some)} sentences of {kind}", flush=True)
                asked = [_asked(row) for row in some]
                answers = predictor.answer(system, asked, LABELS, 16)
                found.append(
                    Answered(
                        system or "base",
                        kind,
                        [row.output for row in some],
                        [float(answer.text == row.output) for answer, row in zip(answers, some, strict=True)],
                        [(answer.probabilities or {})[row.output] for answer, row in zip(answers, some, strict=True)],
                    )
                )
    return found


def _asked(row: Example) -> tuple[Message, ...]:
    from perpetune.records import conversation

    return conversation(INSTRUCTION, row)


def _train(params: Params, assets: Path, rows: Sequence[Example], adapter: Path) -> Path:
    from perpetune.model.base import load_base
    from perpetune.training.trainer import train

    base = load_base(params.base, assets, params.train.precision)
    settings = params.train.model_copy(update={"epochs": 1.0})
    train(base, list(rows), [], INSTRUCTION, settings, adapter, lambda _: None)
    return adapter
