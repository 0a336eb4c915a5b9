"""A card without personal data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from perpetune.curation.card.content import Card
from perpetune.curation.card.dropped import QuarantineReason, ShownRow
from perpetune.curation.card.steps import ShownChange, Step


def without_private(card: Card, hide: Callable[[str], str]) -> Card:
    """The card with every quoted text blackened, because steps before `private` quote rows as they came."""

    def shown(row: ShownRow) -> ShownRow:
        return ShownRow(hide(row.location), hide(row.input), hide(row.output), hide(row.detail))

    def reason(part: QuarantineReason) -> QuarantineReason:
        return replace(part, reason=hide(part.reason), examples=tuple(map(shown, part.examples)))

    def step(done: Step) -> Step:
        quoted = tuple(ShownChange(hide(each.location), hide(each.before), hide(each.after)) for each in done.changes)
        return replace(done, changes=quoted, reports=tuple(map(reason, done.reports)))

    return replace(card, steps=tuple(map(step, card.steps)), quarantine=tuple(map(reason, card.quarantine)))
