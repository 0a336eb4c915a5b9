"""Checkpoints of a training run: save and resume with the same result as without the interruption.

A checkpoint has all that the next step depends on: trained weights, optimizer state, random state, and the best weights so
far. The order of rows follows from the seed and the step.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from perpetune.params import TrainParams
from perpetune.training.schedule import Schedule

FILE = "checkpoint.pt"
BEFORE = "checkpoint-before.pt"


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` steps, `seconds` of training and `tokens` processed; `best_*` at the best validation."""

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


@dataclass(frozen=True)
class Stored:
    """The checkpoint to go on from, if there is one, and what was wrong with newer ones."""

    checkpoint: Checkpoint | None
    notes: tuple[str, ...]


def random_state() -> list[torch.Tensor]:
    """The random states of the CPU and of each GPU."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def restore_random_state(state: list[torch.Tensor]) -> None:
    torch.set_rng_state(state[0])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state[1:])


def run_digest(params: TrainParams, base_digest: str, rows: Sequence[Sequence[int]]) -> str:
    """A hash of settings, base model and rows. A checkpoint is resumed only by a run with the same hash."""
    digest = hashlib.sha256(f"{params.model_dump_json()}\n{base_digest}\n".encode())
    for row in rows:
        digest.update(repr(tuple(row)).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoint file of a run with this `identity`, saved every `every_seconds`."""

    folder: Path
    identity: str
    every_seconds: float

    def save(self, checkpoint: Checkpoint) -> str | None:
        """Save atomically, also against kill -9 and power cuts, and keep the one before.

        If it cannot be written, the training can go on: returns the reason.
        """
        unfinished = self.folder / f"{FILE}.unfinished"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                schedule = asdict(checkpoint.schedule)
                torch.save({"identity": self.identity, **vars(checkpoint), "schedule": schedule}, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as fault:  # torch raises RuntimeError for a full disk
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            return f"the checkpoint of step {checkpoint.step} cannot be written to {self.folder}: {_reason(fault)}"
        if (self.folder / FILE).is_file():
            (self.folder / FILE).replace(self.folder / BEFORE)
        unfinished.replace(self.folder / FILE)
        return None

    def load(self) -> Stored:
        """Load the newest checkpoint of this run that can be read."""
        notes = []
        for name in (FILE, BEFORE):
            try:
                found = self._read(self.folder / name)
            except Exception as fault:  # torch, zipfile and pickle each raise their own for a damaged file
                notes.append(f"{self.folder / name} cannot be read ({_reason(fault)})")
                continue
            if found is not None:
                notes = [f"{note}: the training goes on from step {found.step}" for note in notes]
                return Stored(found, tuple(notes))
        return Stored(None, tuple(f"{note}: the training starts again" for note in notes))

    def _read(self, path: Path) -> Checkpoint | None:
        """The checkpoint in a file; None if there is none or it is of another run."""
        if not path.is_file():
            return None
        stored = torch.load(path, map_location="cpu", weights_only=True)
        if stored.pop("identity") != self.identity:
            return None
        return Checkpoint(**{**stored, "schedule": Schedule(**stored["schedule"])})

    def remove(self) -> None:
        for name in (FILE, BEFORE):
            with suppress(OSError):
                (self.folder / name).unlink()


def _reason(fault: Exception) -> str:
    lines = str(fault).strip().splitlines()
    return lines[0] if lines else type(fault).__name__
