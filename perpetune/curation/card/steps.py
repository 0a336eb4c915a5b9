"""The table of steps: what each did to the rows, and how long it took."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice

from perpetune.curation.card.dropped import SHOWN_ROWS, QuarantineReason, reasons_of
from perpetune.curation.quarantine import Changed, Quarantined
from perpetune.curation.steps.step_files import StepFacts
from perpetune.curation.text import around_change, shortened


@dataclass(frozen=True)
class ShownChange:
    """What a step made of a text, around the first place at which it changed it."""

    location: str
    before: str
    after: str


@dataclass(frozen=True)
class Step:
    """The rows that a curation step received, kept, and of these changed and reported; and how long it took.

    `changes` and `reports` show some of them.
    """

    name: str
    rows: int
    kept: int
    changed: int = 0
    reported: int = 0
    seconds: float | None = None
    changes: tuple[ShownChange, ...] = ()
    reports: tuple[QuarantineReason, ...] = ()

    @property
    def quarantined(self) -> int:
        return self.rows - self.kept


def steps_done(
    fetched: int, rejected: int, quarantined: Mapping[str, Collection[Quarantined]], facts: Mapping[str, StepFacts]
) -> tuple[Step, ...]:
    steps = [_step("fetch", fetched + rejected, fetched, facts)]
    for name, rows in quarantined.items():
        steps.append(_step(name, steps[-1].kept, steps[-1].kept - len(rows), facts))
    return tuple(steps)


def _step(name: str, rows: int, kept: int, facts: Mapping[str, StepFacts]) -> Step:
    known = facts.get(name, StepFacts())
    return Step(
        name,
        rows,
        kept,
        changed=len({(each.source, each.id) for each in known.changed}),
        reported=len({(row.example.source, row.example.id) for row in known.reported}),
        seconds=known.seconds,
        changes=tuple(map(_shown_change, islice(known.changed, SHOWN_ROWS))),
        reports=tuple(reasons_of(name, known.reported)),
    )


def _shown_change(changed: Changed) -> ShownChange:
    before, after = around_change(changed.before, changed.after)
    return ShownChange(f"{changed.source} · {shortened(changed.id, 40)} · {changed.field}", before, after)
