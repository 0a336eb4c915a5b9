"""Rows whose label is probably wrong, as `data/steps/label_errors/` has them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from perpetune.curation.running.layout import STEPS
from perpetune.errors import PerpetuneError
from perpetune.records import read_jsonl

BY_MODEL = "a model trained on the other rows is sure of another label"
BY_NEIGHBOUR = "a near duplicate has another label, which the model finds likelier"
SUSPECTS, SUMMARY = STEPS / "label_errors" / "suspects.jsonl", STEPS / "label_errors" / "summary.jsonl"


class Suspect(BaseModel):
    """A row, its label, and the one that is likelier.

    The probabilities are those of a model that was not trained on the row; `margin` is the label's less the highest of
    the others (-1 to 1): the lower, the surer that it is wrong. `like` is a near duplicate with another label.
    """

    model_config = ConfigDict(frozen=True)

    source: str
    id: str
    input: str
    label: str
    suggested: str
    margin: float
    label_probability: float
    suggested_probability: float
    why: str
    like: str | None = None
    is_frozen: bool = False


class LabelErrorSummary(BaseModel):
    """How many labels were judged and suspected, by what features, and which were not judged for what reason.

    `shown` are the first suspects.
    """

    model_config = ConfigDict(frozen=True)

    action: str
    features: str
    note: str
    judged: int
    unjudged: dict[str, int]
    suspects: int
    shown: tuple[Suspect, ...] = ()

    @property
    def sentence(self) -> str:
        """What was found, in one line."""
        found = (
            f"{self.suspects:,} of {self.judged:,} labels are probably wrong" if self.judged else "no label was judged"
        )
        left = ", ".join(f"{count:,} not judged ({reason})" for reason, count in self.unjudged.items())
        return "; ".join(part for part in (found, left, self.note) if part)


def load_suspects(workspace: Path) -> tuple[list[Suspect], LabelErrorSummary]:
    """The suspects of the last `dvc repro`, the most certain first. Raises PerpetuneError if there was none."""
    if not (workspace / SUMMARY).is_file():
        raise PerpetuneError(
            "no labels have been judged yet",
            where=str(workspace / SUMMARY),
            do="run `dvc repro`; if dvc.yaml has no stage label_errors, copy it from that of a new workspace (`perpetune init`)",
        )
    [summary] = read_jsonl(workspace / SUMMARY, LabelErrorSummary)
    return read_jsonl(workspace / SUSPECTS, Suspect), summary
