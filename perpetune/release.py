"""A model version on this machine: the adapter's folder and the card that tells how to use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from perpetune.params import BaseParams

CARD = "perpetune.json"


class ModelCard(BaseModel):
    """What an adapter needs beside its weights to answer; travels in the adapter's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    kind: Literal["classification", "generation"]
    instruction: str
    labels: tuple[str, ...] | None
    base: BaseParams
    base_digest: str
    precision: Literal["auto", "fp32", "bf16"]
    max_new_tokens: int


@dataclass(frozen=True)
class Release:
    """One model version on this machine, ready to be served."""

    task: str
    version: str
    adapter: Path
    instruction: str
    labels: tuple[str, ...] | None
    base: BaseParams


def read_card(adapter: Path) -> ModelCard:
    return ModelCard.model_validate_json((adapter / CARD).read_text(encoding="utf-8"))
