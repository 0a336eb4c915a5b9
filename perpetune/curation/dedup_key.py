"""When two examples ask the same."""

from __future__ import annotations

from perpetune.curation.text import normalised
from perpetune.records import Example

DedupKey = tuple[tuple[str, str], ...]


def dedup_key(example: Example) -> DedupKey:
    """The whole conversation before the output, up to case, white space and Unicode form."""
    if not example.messages:
        return (("user", normalised(example.input)),)
    return tuple((message.role, normalised(message.content)) for message in example.messages)


def input_key(example: Example) -> DedupKey:
    """The question without its system messages.

    A logged request carries the task's instruction and the curated example that asks the same does
    not: across splits they must count as the same, or the holdout leaks.
    """
    return tuple(turn for turn in dedup_key(example) if turn[0] != "system")
