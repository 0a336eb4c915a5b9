"""Keys by which examples with the same conversation are found."""

from __future__ import annotations

from perpetune.curation.text import fingerprint, normalised
from perpetune.records import Example

DedupKey = tuple[tuple[str, str], ...]


def dedup_key(example: Example) -> DedupKey:
    """The conversation before the output, with normalised texts."""
    if not example.messages:
        return (("user", normalised(example.input)),)
    return tuple((message.role, normalised(message.content)) for message in example.messages)


def input_key(example: Example) -> DedupKey:
    """The dedup key without system messages.

    A logged request has the task's instruction, an equal curated example does not. They must count as the same input,
    or the holdout leaks.
    """
    return tuple(turn for turn in dedup_key(example) if turn[0] != "system")


def row_hash(example: Example) -> str:
    """The name under which caches know a row without holding its text, so that an erasure finds what they have of it."""
    return fingerprint("row", input_key(example))
