"""A training run, put down so that it can be taken up again as if it had never stopped.

What is written between two steps is all that the next step depends on: the adapter's weights, the
optimizer's state, the random state, and the best weights so far. The order of rows follows from the
seed and the step.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from perpetune.params import TrainParams
from perpetune.training.schedule import Schedule

FILE = "checkpoint.pt"


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` steps, `seconds` of training and `tokens` read; `best_*` as in the trainer."""

    step: int
    tokens: int
    seconds: float
    weights: list[torch.Tensor]
    optimizer: dict[str, Any]
    random: list[torch.Tensor]
    best_loss: float | None
    best_step: int
    best_weights: list[torch.Tensor]
    schedule: Schedule


def random_state() -> list[torch.Tensor]:
    """Of the CPU and of each GPU."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def restore_random_state(state: list[torch.Tensor]) -> None:
    torch.set_rng_state(state[0])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state[1:])


def identity(params: TrainParams, base_digest: str, rows: Sequence[Sequence[int]]) -> str:
    """What a run is: its settings, base model and rows. Only a run of the same identity may go on from a checkpoint."""
    digest = hashlib.sha256(f"{params.model_dump_json()}\n{base_digest}\n".encode())
    for row in rows:
        digest.update(repr(tuple(row)).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Resume:
    """Where a run of this `identity` is put down, every so many seconds, and taken up again."""

    folder: Path
    identity: str
    every_seconds: float

    def save(self, checkpoint: Checkpoint) -> None:
        """Write it whole or not at all, kill -9 and power cuts included."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f"{FILE}.unfinished"
        with unfinished.open("wb") as file:
            schedule = asdict(checkpoint.schedule)
            torch.save({"identity": self.identity, **vars(checkpoint), "schedule": schedule}, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.folder / FILE)

    def load(self) -> Checkpoint | None:
        """The checkpoint of this very run, or None where there is none or it belongs to another."""
        path = self.folder / FILE
        if not path.is_file():
            return None
        stored = torch.load(path, map_location="cpu", weights_only=True)
        if stored.pop("identity") != self.identity:
            return None
        return Checkpoint(**{**stored, "schedule": Schedule(**stored["schedule"])})

    def remove(self) -> None:
        (self.folder / FILE).unlink(missing_ok=True)
