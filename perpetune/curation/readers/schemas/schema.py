"""What a schema is: it recognises records by their keys, and turns one into our own fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from perpetune.curation.readers.row import is_absent

Values = Mapping[str, object]

OWN_FIELDS = ("id", "group", "time", "source", "references")
"""What every schema takes over if a record has it."""

_INPUT_NAMES = "input text prompt question instruction sentence utterance query message review comment content title"
_OUTPUT_NAMES = "output answer answers response completion target label intent class category sentiment reply summary expected ideal"
INPUT_NAMES = tuple(_INPUT_NAMES.split())
OUTPUT_NAMES = tuple(_OUTPUT_NAMES.split())
"""Common names, the likeliest first."""


@dataclass(frozen=True)
class Preference:
    """What people prefer: lines of a data set for preference training, in TRL's conversational format."""

    line: Mapping[str, object]


@dataclass(frozen=True)
class Converted:
    """A record in our own fields, as `example_of` reads them, and the keys that were used.

    `wrong` is the field and the reason if the record holds an answer that must not be learned.
    """

    values: Values
    used: frozenset[str]
    preference: Preference | None = None
    wrong: tuple[str, str] | None = None


@dataclass(frozen=True)
class Schema:
    """A schema by name. `columns` are all that it may use; `fields` are its names for our fields, for messages.

    `convert` raises InvalidRow.
    """

    name: str
    columns: frozenset[str]
    fits: Callable[[Values], bool]
    convert: Callable[[Values], Converted]
    fields: Mapping[str, str] = field(default_factory=dict)


def has(values: Values, *keys: str) -> bool:
    """Whether all keys have a value."""
    return all(not is_absent(values.get(key)) for key in keys)


def own_fields(values: Values) -> dict[str, object]:
    return {name: values[name] for name in OWN_FIELDS if name in values}


def converted(values: Values, new: Values, *used: str) -> Converted:
    """The new fields and the record's own, from the keys `used` that it has."""
    own = own_fields(values)
    return Converted({**own, **new}, frozenset(own) | {key for key in used if key in values})


def paragraphs(*texts: object) -> object:
    """The texts that are not empty, as paragraphs; one alone is returned as it is, so that it can be refused."""
    filled = [text for text in texts if not is_absent(text) and text != ""]
    if len(filled) > 1 and all(isinstance(text, str) for text in filled):
        return "\n\n".join(str(text) for text in filled)
    return next((text for text in filled if not isinstance(text, str)), filled[0]) if filled else ""


def first_of(values: Values, *keys: str) -> object:
    """The value of the first key that has one."""
    return next((values[key] for key in keys if has(values, key)), None)


def epoch_time(seconds: object) -> datetime | None:
    """The time of a number of seconds since 1970; None if it is none that a calendar has."""
    try:
        return datetime.fromtimestamp(float(str(seconds)), UTC)
    except (ValueError, OverflowError, OSError):
        return None
