"""Our own fields, and prompts with completions."""

from __future__ import annotations

from perpetune.curation.readers.schemas.messages import exchange, parsed, tools_of
from perpetune.curation.readers.schemas.preference import judged
from perpetune.curation.readers.schemas.schema import Converted, Schema, Values, converted, has


def _plain(values: Values) -> Converted:
    given = {name: values[name] for name in ("input", "output", "messages") if name in values}
    if isinstance(values.get("input"), (list, dict)) and "messages" not in values:
        given = exchange(values["input"], values.get("output"))
    return converted(values, given, "input", "output", "messages")


def _chat(values: Values) -> Converted:
    given = {"messages": parsed(values["messages"]), "tools": tools_of(values)}
    return judged(values, converted(values, given, "messages", "tools", "functions"))


def _completion(values: Values) -> Converted:
    return judged(
        values, converted(values, exchange(values["prompt"], values["completion"]), "prompt", "completion"), flat=True
    )


PLAIN = Schema(
    "input/output",
    frozenset({"input", "output", "messages"}),
    lambda values: "input" in values and "output" in values,
    _plain,
)
CHAT = Schema(
    "OpenAI chat",
    frozenset({"messages", "tools", "functions", "label", "kto_tag"}),
    lambda values: has(values, "messages") and not has(values, "output"),
    _chat,
)
COMPLETION = Schema(
    "prompt/completion",
    frozenset({"prompt", "completion", "label", "kto_tag"}),
    lambda values: "prompt" in values and "completion" in values,
    _completion,
    {"input": "prompt", "output": "completion"},
)
