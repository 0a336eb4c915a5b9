"""The splits of a data set, and the reasons why a row is in none."""

from __future__ import annotations

from dataclasses import dataclass

from perpetune.curation.quarantine import Quarantined
from perpetune.records import Example

SUPERSEDED = "relabelled in production"
DOUBTED = "labelled because the model was unsure, so not used for evaluation"
RULED = "labelled by rules, and its group is in a holdout"
LEAKED = {
    "frozen": "same input as a row of the frozen holdout",
    "recent": "same input as a row of the recent holdout",
    "validation": "same input as a row of the validation split",
}
"""By split, in order of precedence: why a row with the same input is in no later split."""
NEAR = {
    "frozen": "near duplicate of a row of the frozen holdout",
    "recent": "near duplicate of a row of the recent holdout",
    "validation": "near duplicate of a row of the validation split",
}
HELD = "same input as a row that was in the frozen holdout"
MOVED = "trained on before, and now in one group with a row of a holdout"


@dataclass(frozen=True)
class Splits:
    """The four splits, and the quarantined rows.

    `frozen` is never trained on and never re-split; `recent` is sampled from the newest labelled traffic.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    frozen: tuple[Example, ...]
    recent: tuple[Example, ...]
    quarantined: tuple[Quarantined, ...]

    def parts(self) -> dict[str, tuple[Example, ...]]:
        """The rows by split name."""
        return {"train": self.train, "validation": self.validation, "frozen": self.frozen, "recent": self.recent}

    def counts(self) -> str:
        """The number of rows by split, as a sentence."""
        held = ", ".join(f"{name} {len(rows):,}" for name, rows in self.parts().items())
        return f"{held}; quarantined {len(self.quarantined):,}"
