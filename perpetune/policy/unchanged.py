"""Whether a refresh would only repeat what the last one showed.

Why labels are waited for, and how many: docs/decisions/0014-holdouts-that-labels-can-fill.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from perpetune.params import RefreshParams
from perpetune.policy.retraining import labels_wanted

Trigger = Literal["manual", "schedule", "decay"]


@dataclass(frozen=True)
class LastRefresh:
    """The newest refresh that reached a verdict.

    `rows` are those of all its splits, `labels` what production had labelled by then.
    `same_settings` says that settings and programs are as they were, and `stands` that its verdict would be about the
    same pair: its version is champion, or the champion that it did not replace still is.
    """

    ended: datetime
    outcome: str
    data_version: str
    rows: int
    labels: int
    same_settings: bool
    stands: bool


@dataclass(frozen=True)
class NewData:
    """What a refresh would have now: the version of its data, the rows of all splits, the labels of production."""

    version: str
    rows: int
    labels: int


def nothing_new(
    last: LastRefresh | None, now: NewData, trigger: Trigger, unsuccessful: int, rules: RefreshParams
) -> str | None:
    """Why a refresh is not worth running, for one line; None if it is worth it.

    The same data, settings and champion give the same verdict, whoever asks. What nobody asked for waits for more: a
    scheduled refresh for `growth`, one for decay for `labels_wanted`. `unsuccessful` counts the refreshes for decay
    that have not replaced the champion.
    """
    if last is None or not (last.same_settings and last.stands):
        return None
    labels, rows = now.labels - last.labels, now.rows - last.rows
    if now.version == last.data_version:
        return f"same data, settings and programs as {_named(last)}, {labels} new labels"
    if trigger == "schedule" and rows < (wanted := math.ceil(rules.growth * last.rows)):
        return f"{rows} of {wanted} new rows since {_named(last)}"
    if trigger == "decay" and labels < (wanted := labels_wanted(unsuccessful, rules)):
        return f"{labels} of {wanted} new labels since {_named(last)}"
    return None


def _named(last: LastRefresh) -> str:
    return f"the refresh of {last.ended:%Y-%m-%d %H:%M} ({last.outcome})"
