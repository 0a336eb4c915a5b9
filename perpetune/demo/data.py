"""The demo's folder and its data: what the team starts with, and the traffic that comes later."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from perpetune.curation.readers.reviews import find_wheel, labelled, product_examples, rated_sentences
from perpetune.errors import PerpetuneError
from perpetune.records import Example, write_jsonl
from perpetune.scaffold.create import template
from perpetune.settings import Settings
from perpetune.workspace import Workspace, open_workspace

MARK = ".perpetune-demo"
SEED = 7
CLEAR, NEW_ANSWER = ("positive", "negative"), "other"
TAUGHT = 560  # sentences about products that the team starts with
MOST_WORDS = 16  # in a sentence of the demo: longer ones make it longer, and not more telling


@dataclass(frozen=True)
class DemoData:
    """`curated` is ingested at the start; `stable` are unseen product reviews, `turned` what comes after."""

    workspace: Workspace
    curated: Path
    stable: tuple[Example, ...]
    turned: tuple[Example, ...]


def prepare(assets: Path, folder: Path) -> DemoData:
    """Create the folder with the demo's settings, and divide the reviews.

    Raises PerpetuneError if the folder has files that are not from a demo.
    """
    _clear(folder)
    text = files(__package__).joinpath("params.yaml").read_text(encoding="utf-8")
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    (folder / "dvc.yaml").write_text(template("dvc.yaml"), encoding="utf-8")
    wheel = find_wheel(assets)
    team, stable = divide(_short(product_examples(wheel, CLEAR)))
    films = [example for rated in rated_sentences(wheel, "films") if (example := labelled(rated))]
    news = [
        Example(input=rated.text, output=NEW_ANSWER, id=rated.id, group=rated.group, source="news")
        for rated in rated_sentences(wheel, "news")
    ]
    curated = folder / "product-reviews.jsonl"
    write_jsonl(curated, team)
    return DemoData(_open(assets, folder), curated, tuple(stable), tuple(_one_each(_short(films), _short(news))))


def _short(examples: Sequence[Example]) -> list[Example]:
    return [example for example in examples if len(example.input.split()) <= MOST_WORDS]


def _open(assets: Path, folder: Path) -> Workspace:
    """The demo shares nothing with the folder that it was started in but the wheels."""
    (folder / "assets").symlink_to(assets.resolve())
    opened = open_workspace(folder)
    return Workspace(folder, opened.params, Settings.model_construct())


def _clear(folder: Path) -> None:
    if folder.exists() and not (folder / MARK).exists() and any(folder.iterdir()):
        raise PerpetuneError(
            "this folder is not empty, and no demo made it", where=str(folder), do="choose another with --folder"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()


def divide(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """About `TAUGHT` examples in whole reviews, which the team starts with, and the rest; each in a shuffled order."""
    count = TAUGHT
    reviews = sorted({example.group for example in examples})
    random.Random(SEED).shuffle(reviews)
    order = {review: position for position, review in enumerate(reviews)}
    ranked = sorted(examples, key=lambda example: order[example.group])
    while count < len(ranked) and ranked[count].group == ranked[count - 1].group:
        count += 1
    rest = ranked[count:]
    random.Random(SEED).shuffle(rest)
    return ranked[:count], rest


def _one_each(films: Sequence[Example], news: Sequence[Example]) -> list[Example]:
    """Film reviews that say clearly good or bad, and as many sentences of newspapers, in a shuffled order."""
    clear = [example for example in films if example.output in CLEAR]
    picks = random.Random(SEED)
    count = min(len(clear), len(news))
    both = [*picks.sample(clear, count), *picks.sample(list(news), count)]
    picks.shuffle(both)
    return both
