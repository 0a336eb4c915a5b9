"""Names of people, by a language model of spaCy."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from perpetune.redacting.found import Found
from perpetune.redacting.personal_data import Find

NAME = "PERSON"

_LABELS = {"PERSON", "PER"}
_SCORE = 0.85  # Presidio's score of what spaCy finds: below a checksum, above a bare pattern


def is_installed(model: str) -> bool:
    """Whether spaCy and its model, a package or a folder, are installed."""
    if importlib.util.find_spec("spacy") is None:
        return False
    return Path(model).is_dir() or importlib.util.find_spec(model) is not None


def names_finder(model: str) -> Find:
    """A function that finds names of people in a text. The model must be installed."""
    import spacy

    language = spacy.load(model)

    def find(text: str) -> Iterator[Found]:
        for entity in language(text).ents:
            if entity.label_ in _LABELS and any(map(str.isalpha, entity.text)):
                yield Found(entity.start_char, entity.end_char, _SCORE, NAME)

    return find
