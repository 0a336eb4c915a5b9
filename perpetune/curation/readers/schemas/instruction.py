"""Instructions with an optional input or context: Alpaca and Dolly."""

from __future__ import annotations

from perpetune.curation.readers.schemas.preference import judged
from perpetune.curation.readers.schemas.schema import Converted, Schema, Values, converted, has, paragraphs


def _alpaca(values: Values) -> Converted:
    asked = paragraphs(values["instruction"], values.get("input"))
    before = _history(values.get("history"))
    if has(values, "system") and values["system"] != "":
        before = [{"role": "system", "content": values["system"]}, *before]
    new: dict[str, object] = {"input": asked, "output": values["output"]}
    if before:
        new["messages"] = [*before, {"role": "user", "content": asked}]
    used = ("instruction", "input", "output", "system", "history")
    return judged(values, converted(values, new, *used))


def _history(value: object) -> list[dict[str, object]]:
    """Earlier rounds, as pairs of question and answer."""
    pairs = [pair for pair in value if isinstance(pair, list) and len(pair) == 2] if isinstance(value, list) else []
    return [
        turn
        for asked, answered in pairs
        for turn in ({"role": "user", "content": asked}, {"role": "assistant", "content": answered})
    ]


def _dolly(values: Values) -> Converted:
    asked = paragraphs(values["instruction"], values.get("context"), values.get("input"))
    new = {"input": asked, "output": values["response"]}
    return converted(values, new, "instruction", "context", "input", "response")


ALPACA = Schema(
    "Alpaca",
    frozenset({"instruction", "input", "output", "system", "history", "kto_tag"}),
    lambda values: "instruction" in values and "output" in values,
    _alpaca,
    {"input": "instruction"},
)
DOLLY = Schema(
    "Dolly",
    frozenset({"instruction", "context", "input", "response"}),
    lambda values: "instruction" in values and "response" in values,
    _dolly,
    {"input": "instruction", "output": "response"},
)
