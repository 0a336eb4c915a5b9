"""Where rows of production come from, as their `source` says."""

from __future__ import annotations

from perpetune.records import Example

TRAFFIC = "traffic"
IN_DOUBT = "traffic in doubt"
"""Labelled because the model was unsure of its answer: it teaches, but a holdout of such rows would be too hard."""


def is_traffic(row: Example) -> bool:
    return row.source in (TRAFFIC, IN_DOUBT)


def is_in_doubt(row: Example) -> bool:
    return row.source == IN_DOUBT
