"""When two examples ask the same."""

from __future__ import annotations

from perpetune.curation.text import likeness
from perpetune.records import Example

Question = tuple[tuple[str, str], ...]


def question(example: Example) -> Question:
    """The whole conversation before the output, up to case, white space and Unicode form."""
    if not example.messages:
        return (("user", likeness(example.input)),)
    return tuple((message.role, likeness(message.content)) for message in example.messages)


def bare_question(example: Example) -> Question:
    """The question without its system messages.

    A logged request carries the task's instruction and the curated example that asks the same does
    not: across splits they must count as the same, or the holdout leaks.
    """
    return tuple(turn for turn in question(example) if turn[0] != "system")
