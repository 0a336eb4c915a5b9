"""Versions without an adapter: all that serving needs of them, in a folder that the registry takes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sklearn.pipeline import Pipeline

from perpetune.classifiers.linear import save_linear_model
from perpetune.model.release import CARD, ModelCard
from perpetune.records import to_json


def save_untrained_version(folder: Path, card: ModelCard) -> str:
    """Write a prompted or remote version, whose card says it all, into the folder; returns its sha256."""
    return _write_card(folder, card)


def save_linear_version(folder: Path, card: ModelCard, model: Pipeline) -> str:
    """Write a linear version into the folder; returns the sha256 of its card and of what the model has learned."""
    of_card = _write_card(folder, card.model_copy(update={"system": "linear"}))
    return hashlib.sha256(f"{of_card} {save_linear_model(folder, model)}".encode()).hexdigest()


def _write_card(folder: Path, card: ModelCard) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    written = to_json(card.model_dump(mode="json"))
    (folder / CARD).write_text(written, encoding="utf-8")
    return hashlib.sha256(written.encode()).hexdigest()
