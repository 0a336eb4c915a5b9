"""Versions without an adapter (prompted, remote, linear): the folders that are registered for them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from perpetune.model.release import CARD, ModelCard
from perpetune.records import to_json

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def save_untrained_version(folder: Path, card: ModelCard) -> str:
    """Write the model card of a prompted or remote version into the folder; returns its sha256."""
    return _write_card(folder, card)


def save_linear_version(folder: Path, card: ModelCard, model: Pipeline) -> str:
    """Write the model card and the linear model into the folder; returns the sha256 of both."""
    from perpetune.classifiers.linear import save_linear_model  # with scikit-learn, which a check does not need

    of_card = _write_card(folder, card.model_copy(update={"system": "linear"}))
    return hashlib.sha256(f"{of_card} {save_linear_model(folder, model)}".encode()).hexdigest()


def _write_card(folder: Path, card: ModelCard) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    written = to_json(card.model_dump(mode="json"))
    (folder / CARD).write_text(written, encoding="utf-8")
    return hashlib.sha256(written.encode()).hexdigest()
