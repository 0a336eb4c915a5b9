"""Whether a refresh would only repeat the last one.

Why refreshes wait for labels, and for how many: docs/decisions/0014-holdouts-that-labels-can-fill.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from perpetune.params import PromoteParams, RefreshParams
from perpetune.policy.retraining import labels_wanted
from perpetune.statistics.power import power_of

Trigger = Literal["manual", "schedule", "decay"]
DISCORDANCE = 0.1  # of two models of one task, before it is measured: the ratio of rows that they answer differently
EVEN = 0.5


@dataclass(frozen=True)
class LastRefresh:
    """The newest refresh with a verdict.

    `rows` is the total of its splits, `labels` the number of production labels then. `same_settings`: settings and
    package versions are unchanged. `still_valid`: the champion is the version that it promoted or compared with.
    """

    ended: datetime
    outcome: str
    data_version: str
    rows: int
    labels: int
    same_settings: bool
    still_valid: bool


@dataclass(frozen=True)
class NewData:
    """The data of a new refresh: its DVC version, the rows of all splits, and the production labels.

    `deciding`: the rows of the recent holdout, and the requests of which disagreements could be labelled instead; None if
    that is not known.
    """

    version: str
    rows: int
    labels: int
    deciding: int | None = None


def nothing_new(
    last: LastRefresh | None,
    now: NewData,
    trigger: Trigger,
    unsuccessful: int,
    rules: RefreshParams,
    gate: PromoteParams,
) -> str | None:
    """Why a refresh is not worth running, for one line; None if it is worth it.

    The same data, settings and champion give the same verdict. A scheduled refresh also waits for `growth`, and for so
    many rows that its gate could show `promote.gain` with at least even chances; one for decay waits for `labels_wanted`.
    `unsuccessful` counts the refreshes for decay that did not replace the champion.
    """
    if last is None or not (last.same_settings and last.still_valid):
        return None
    labels, rows = now.labels - last.labels, now.rows - last.rows
    if now.version == last.data_version:
        return f"same data, settings and programs as {_named(last)}, {labels} new labels"
    if trigger == "schedule" and rows < (wanted := math.ceil(rules.growth * last.rows)):
        return f"{rows} of {wanted} new rows since {_named(last)}"
    if trigger == "schedule" and now.deciding is not None and _chance(now.deciding, gate) < EVEN:
        return (
            f"{now.deciding} rows would more likely miss a gain of {100 * gate.gain:g} points than show it; the last one was "
            f"{_named(last)}"
        )
    if trigger == "decay" and labels < (wanted := labels_wanted(unsuccessful, rules)):
        return f"{labels} of {wanted} new labels since {_named(last)}"
    return None


def _chance(rows: int, gate: PromoteParams) -> float:
    """The power of the gate's test of a gain, before it is known on how many rows the answers differ."""
    return power_of(rows, gate.gain, max(DISCORDANCE, gate.gain), alpha=gate.alpha) if rows else 0.0


def _named(last: LastRefresh) -> str:
    return f"the refresh of {last.ended:%Y-%m-%d %H:%M} ({last.outcome})"
