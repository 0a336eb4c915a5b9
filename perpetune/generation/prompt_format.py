"""What a chat template is rendered with besides the messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any


@dataclass(frozen=True)
class PromptFormat:
    """The variables of a version's chat template, as JSON, and the day that it takes for today (None: the real one).

    Both are fixed when a version is made: a prompt must have the same tokens in training and whenever it is served.
    """

    variables: str = "{}"
    day: date | None = None


TEMPLATE_AS_IT_IS = PromptFormat()


def prompt_format(variables: Mapping[str, Any], day: date | None) -> PromptFormat:
    return PromptFormat(json.dumps(dict(variables), sort_keys=True), day)
