"""ShareGPT: `conversations` of turns with `from` and `value`; the last turn is the answer."""

from __future__ import annotations

from perpetune.curation.readers.row import InvalidRow
from perpetune.curation.readers.schemas.messages import conversation_of, parsed
from perpetune.curation.readers.schemas.preference import judged
from perpetune.curation.readers.schemas.schema import Converted, Schema, Values, converted, has

_COLUMNS = ("conversations", "conversation")


def _convert(values: Values) -> Converted:
    column = _column(values)
    turns = conversation_of(parsed(values[column]))
    if turns is None:
        raise InvalidRow("messages", "must be a list of turns with `from` and `value`")
    if has(values, "system") and values["system"] != "" and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": values["system"]}, *turns]
    return judged(values, converted(values, {"messages": turns}, column, "system"))


def _column(values: Values) -> str:
    return next((name for name in _COLUMNS if has(values, name)), "")


SHAREGPT = Schema(
    "ShareGPT",
    frozenset({*_COLUMNS, "system", "label", "kto_tag"}),
    lambda values: _column(values) != "",
    _convert,
    {"messages": "conversations"},
)
