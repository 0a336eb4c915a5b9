"""Labels from rules: labelling functions of a team's `rules.py`, and their votes combined to one label a row."""

from __future__ import annotations

from perpetune.records import Example as Example
from perpetune.rules.prompt import Prompt as Prompt
from perpetune.rules.rule import rule as rule
