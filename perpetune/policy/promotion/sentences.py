"""Parts of the gate's sentences."""

from __future__ import annotations

from collections.abc import Mapping

from perpetune.policy.promotion.evidence import Limit, PairedEvidence
from perpetune.policy.wording import interval
from perpetune.statistics.power import labels_to_collect


def as_independent(paired: PairedEvidence) -> str:
    return "" if paired.effective is None else f" (as {paired.effective} independent ones)"


def collect(name: str, rows: int, ratios: Mapping[str, float]) -> str:
    ratio = ratios.get(name, 1.0)
    labels = labels_to_collect(rows, ratio)
    if labels is None:
        return f"bring {rows} more rows, because no production labels are added to it"
    joins = f", of which {ratio:.0%} join it" if ratio < 1 else ""
    return f"collect {labels} more labels{joins}"


def slice_count(count: int) -> str:
    return "1 slice" if count == 1 else f"{count} slices"


def set_by(limit: Limit) -> str:
    return f" ({limit.setting})" if limit.setting else ""


def measured(name: str, limit: Limit) -> str:
    found = limit.interval
    within = f"{100 * found.level:g}% interval {found.low:.3g} to {found.high:.3g}, " if found else ""
    return f"{name[:1].upper()}{name[1:]} is {limit.value:.3g} {limit.unit} ({within}{limit.rows} rows)"


def too_few(name: str, rows: int, least: int, ratios: Mapping[str, float]) -> str:
    return f"The {name} holdout has {rows} of the {least} rows that a verdict needs: {collect(name, least - rows, ratios)}."


def difference(paired: PairedEvidence) -> str:
    rows = f"{paired.rows} rows{as_independent(paired)}"
    return f"{100 * paired.difference:+.1f} points ({interval(paired.interval)}, {rows})"
