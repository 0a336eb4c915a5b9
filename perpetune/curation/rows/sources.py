"""The `source` of rows from production traffic."""

from __future__ import annotations

from perpetune.records import Example

TRAFFIC = "traffic"
IN_DOUBT = "traffic in doubt"
"""Labelled because the model was unsure: used for training only, because a holdout of such rows would be too hard."""

RULES = "label rules"
"""Labelled by rules and not by people: used for training only, because a holdout of such rows would judge a model by the
rules. No name of a file makes this source, which has a space.
"""


def is_traffic(row: Example) -> bool:
    return row.source in (TRAFFIC, IN_DOUBT)


def is_in_doubt(row: Example) -> bool:
    return row.source == IN_DOUBT


def is_by_rules(row: Example) -> bool:
    return row.source == RULES
