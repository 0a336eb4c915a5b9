"""The data of `curation_quality.py`: what its settings were chosen on, and other data on which they are shown."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared import spoiled

from perpetune.curation.readers.reviews import find_wheel, labelled, rated_sentences
from perpetune.curation.readers.row import example_of
from perpetune.records import Example

CHOOSING_SEED, SEED = 7, 11
"""Of the data that settings were chosen on, and of the data that shows them."""
ROWS = 4_000
INTENTS = 20
SENTIMENT = "Is this sentence of a review positive or negative? Answer with one word."
INTENT = "Which intent does this customer message have?"


@dataclass(frozen=True)
class Data:
    """Rows to spoil, and test rows, whose labels stay right. No group is in both."""

    name: str
    instruction: str
    pool: Sequence[Example]
    test: Sequence[Example]


def limited(data: Data, rows: int) -> Data:
    """At most so many rows to spoil, and half as many to test on."""
    return Data(data.name, data.instruction, _sample(data.pool, rows, SEED), _sample(data.test, rows // 2, SEED))


def every_row(data: Data) -> Data:
    """The data without a limit, under a name of its own."""
    return Data(f"{data.name}, all rows", data.instruction, data.pool, data.test)


def chosen_on(assets: Path, folder: Path | None, count: int = ROWS) -> list[Data]:
    """Product reviews and 4,000 rows of banking77: weights, filters and defaults were chosen by results on these."""
    reviews = _divided("reviews", SENTIMENT, _sample(spoiled.reviews(assets), count, CHOOSING_SEED), CHOOSING_SEED)
    if folder is None:
        return [reviews]
    seen, _ = _parted_banking(folder)
    return [reviews, Data("banking77", INTENT, seen[:count], spoiled.banking(folder / "banking77", "test"))]


def shown_on(assets: Path, folder: Path | None, count: int = ROWS) -> list[Data]:
    """Film reviews, clauses of contracts, and the rows of banking77 that nothing was chosen on."""
    films = [row for rated in rated_sentences(find_wheel(assets), "films") if (row := labelled(rated))]
    films = [row for row in films if row.output != "mixed"]
    found = [_divided("films", SENTIMENT, _sample(films, count + count // 4, SEED), SEED)]
    if folder is not None:
        found += [_contracts(folder / "contracts"), _unseen_banking(folder, count)]
    return found


def every_text(folder: Path) -> list[str]:
    """All inputs of banking77's training rows, each once."""
    return sorted({row.input for row in spoiled.banking(folder / "banking77", "train")})


def few_intents(data: Data) -> Data:
    """Twenty of the labels: a language model learns them in minutes on a CPU."""
    labels = sorted({row.output for row in data.pool})
    if len(labels) <= INTENTS:
        return data
    kept = set(random.Random(SEED).sample(labels, INTENTS))
    pool, test = ([row for row in rows if row.output in kept] for rows in (data.pool, data.test))
    return Data(f"{data.name}, {INTENTS} intents", data.instruction, pool, test)


def _parted_banking(folder: Path) -> tuple[list[Example], list[Example]]:
    """The rows that settings were chosen on, and the others."""
    rows = spoiled.banking(folder / "banking77", "train")
    seen = _sample(rows, ROWS, CHOOSING_SEED)
    ids = {row.id for row in seen}
    return seen, [row for row in rows if row.id not in ids]


def _unseen_banking(folder: Path, count: int) -> Data:
    _, unseen = _parted_banking(folder)
    shuffled = _sample(unseen, len(unseen), SEED)
    return Data("banking77", INTENT, shuffled[2_000 : 2_000 + count], shuffled[:2_000])


def _contracts(folder: Path) -> Data:
    pool, test = (
        [
            example_of({key: row[key] for key in ("input", "output", "id", "group")}, "contracts")
            for row in map(json.loads, (folder / f"{part}.jsonl").read_text(encoding="utf-8").splitlines())
            if row["input"].strip()
        ]
        for part in ("train", "test")
    )
    return Data("contracts", "Which provision does this clause state?", pool, test)


def _divided(name: str, instruction: str, rows: Sequence[Example], seed: int) -> Data:
    """A quarter of the groups is tested on."""
    groups = sorted({row.group for row in rows})
    held = set(random.Random(seed).sample(groups, len(groups) // 4))
    pool, test = ([row for row in rows if (row.group in held) is tested] for tested in (False, True))
    return Data(name, instruction, pool, test)


def _sample(rows: Sequence[Example], count: int, seed: int) -> list[Example]:
    return random.Random(seed).sample(list(rows), min(count, len(rows)))
