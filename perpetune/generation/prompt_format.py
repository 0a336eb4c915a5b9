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

    Both are fixed when a version is made: a prompt must have the same tokens in training and whenever it is served. A
    version `of_before` was made by a release that fixed neither, ended each answer with the end-of-text token, let
    templates drop the system message and leave thinking blocks open, and put no BOS before a prompt without a template;
    it is served as it was trained.
    """

    variables: str = "{}"
    day: date | None = None
    of_before: bool = False


TEMPLATE_AS_IT_IS = PromptFormat()


def prompt_format(variables: Mapping[str, Any], day: date | None, *, of_before: bool = False) -> PromptFormat:
    return PromptFormat(json.dumps(dict(variables), sort_keys=True), day, of_before)
