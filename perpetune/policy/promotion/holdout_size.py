"""Warnings before training about holdouts that are too small for a verdict. They never stop a refresh."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from perpetune.params import Params
from perpetune.policy.wording import points
from perpetune.statistics.power import power_of, rows_needed

DISCORDANCE = 0.10  # assumed ratio of rows that two systems answer differently
MOST_NAMED = 5
LARGEST_RATIO = 0.5  # of the examples: a larger holdout would leave too few for training


@dataclass(frozen=True)
class Holdouts:
    """Rows by split, and held-out rows by label ({} for free text)."""

    rows: Mapping[str, int]
    labels: Mapping[str, int]
    has_champion: bool


@dataclass(frozen=True)
class HoldoutWarning:
    """What the rows are too few for: `short` is one line, `detail` the chances and what to do."""

    short: str
    detail: str

    def __str__(self) -> str:
        return f"{self.short} {self.detail}".strip()


def holdout_warnings(held: Holdouts, params: Params) -> tuple[HoldoutWarning, ...]:
    """Warnings with the number of rows that are missing and how to add them; () if the holdouts are large enough.

    The recent holdout must show the gain against a champion, otherwise the frozen one. The actual discordance may
    differ from `DISCORDANCE`, so that more or fewer rows are needed.
    """
    judging = "recent" if held.has_champion and held.rows.get("recent") else "frozen"
    return (
        *_too_small(judging, held, params),
        *(_too_small("frozen", held, params, gain=False) if judging == "recent" else ()),
        *_rare_labels(held, params),
    )


def _too_small(holdout: str, held: Holdouts, params: Params, *, gain: bool = True) -> Iterator[HoldoutWarning]:
    rules, rows = params.promote, held.rows.get(holdout, 0)
    needed = rules.min_rows
    if gain:
        needed = max(needed, rows_needed(rules.gain, DISCORDANCE, alpha=rules.alpha, power=rules.power))
    if rows >= needed:
        return
    few = rows < rules.min_rows
    wanted = "a verdict (promote.min_rows)" if few else f"a gain of {points(rules.gain)} (promote.gain)"
    yield HoldoutWarning(
        f"The {holdout} holdout has {rows} of {rules.min_rows if few else needed} rows needed for {wanted}.",
        f"{_missed(rows, needed, params, gain)}{_more(holdout, needed, held, params)}",
    )


def _missed(rows: int, needed: int, params: Params, gain: bool) -> str:
    rules = params.promote
    if rows < rules.min_rows:
        return f"{needed} rows are needed to find a gain of {points(rules.gain)} (promote.gain). " if gain else ""
    chance = 1 - power_of(rows, rules.gain, DISCORDANCE, alpha=rules.alpha)
    return (
        f"Such a gain would be missed with a chance of {chance:.0%} if {DISCORDANCE:.0%} of the rows are answered "
        f"differently; with {needed} rows the chance is {1 - rules.power:.0%}. "
    )


def _more(holdout: str, needed: int, held: Holdouts, params: Params) -> str:
    missing = needed - held.rows.get(holdout, 0)
    ratio = params.split.frozen if holdout == "frozen" else params.split.recent
    if holdout == "recent":
        return f"Send about {_round(missing / ratio)} more labels to POST /v1/feedback." if ratio else ""
    curated = sum(held.rows.get(name, 0) for name in ("train", "validation", "frozen"))
    wanted = math.ceil(100 * needed / curated) / 100 if curated else 1.0
    raised = f", or raise split.frozen to {wanted:.2f}" if ratio < wanted <= LARGEST_RATIO else ""
    return f"Add about {_round(missing / ratio)} examples{raised}." if ratio else "Raise split.frozen."


def _rare_labels(held: Holdouts, params: Params) -> Iterator[HoldoutWarning]:
    least = params.promote.slice_rows
    rare = {label: rows for label, rows in sorted(held.labels.items(), key=lambda each: each[1]) if rows < least}
    if not rare:
        return
    named = ", ".join(f"{label} ({rows})" for label, rows in list(rare.items())[:MOST_NAMED])
    more = f" and {len(rare) - MOST_NAMED} more" if len(rare) > MOST_NAMED else ""
    label = "1 label has" if len(rare) == 1 else f"{len(rare)} of {len(held.labels)} labels have"
    missing = least - min(rare.values())
    yield HoldoutWarning(
        f"{label} fewer than {least} rows in the holdouts (promote.slice_rows): {named}{more}.",
        f"Harm to them alone is not shown. Add about {_round(missing / max(params.split.frozen, 0.01))} examples of the rarest.",
    )


def _round(number: float) -> str:
    """Rounded up to two digits, because it is an estimate."""
    step = 10 ** max(math.floor(math.log10(max(number, 1))) - 1, 0)
    return f"{math.ceil(number / step) * step:,}"
