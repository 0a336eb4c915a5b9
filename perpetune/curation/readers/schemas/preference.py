"""Answers that people preferred or judged.

Pairs (DPO: Rafailov et al. 2023, arXiv:2305.18290) and judged answers (KTO: Ethayarajh et al. 2024, arXiv:2402.01306). The
chosen or right answer is learned, as both papers do before they train on preferences; the other one never is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from perpetune.curation.readers.row import InvalidRow
from perpetune.curation.readers.schemas.messages import Turn, answer_turn, as_text, conversation_of, exchange, tools_of
from perpetune.curation.readers.schemas.schema import (
    Converted,
    Preference,
    Schema,
    Values,
    converted,
    first_of,
    has,
    paragraphs,
)

_PROMPTS = ("prompt", "question", "conversations", "messages")
_TRANSCRIPT = re.compile(r"\n\n(Human|Assistant): ?")


def judged(values: Values, found: Converted, *, flat: bool = False) -> Converted:
    """The record, with its judgement in KTO's `label` or LLaMA-Factory's `kto_tag`, true or false.

    In `flat` files, where the column can hold nothing else, the texts `true` and `false` count too.
    """
    column = next((name for name in ("label", "kto_tag") if _judgement(values.get(name), flat) is not None), None)
    if column is None:
        return found
    right = _judgement(values[column], flat)
    turns = _as_turns(found.values)
    line = {"prompt": turns[:-1], "completion": turns[-1:], "label": right}
    wrong = None if right else (column, "false: the answer is marked as wrong, so it is not learned")
    return replace(found, used=found.used | {column}, preference=Preference(line), wrong=wrong)


def _judgement(value: object, flat: bool) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "1": True, "false": False, "0": False}.get(str(value).strip().lower()) if flat else None


def _as_turns(values: Values) -> list[Turn]:
    messages = values.get("messages")
    if isinstance(messages, list):
        return [dict(turn) for turn in messages if isinstance(turn, Mapping)]
    return [{"role": "user", "content": values.get("input")}, {"role": "assistant", "content": values.get("output")}]


def _pair(values: Values) -> Converted:
    prompt = _prompt(values)
    chosen, rejected = (_whole(prompt, values.get(name), name) for name in ("chosen", "rejected"))
    line = {"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}
    used = (*_PROMPTS, "system", "instruction", "input", "chosen", "rejected")
    return replace(converted(values, {"messages": chosen}, *used), preference=Preference(line))


def _prompt(values: Values) -> list[Turn] | None:
    """The conversation before the answers; None if they hold it themselves."""
    asked = first_of(values, *_PROMPTS)
    if "instruction" in values:
        asked = paragraphs(values["instruction"], values.get("input"))
    if asked is None:
        return None
    turns = conversation_of(asked) or [{"role": "user", "content": asked}]
    return [{"role": "system", "content": values["system"]}, *turns] if values.get("system") else turns


def _whole(prompt: list[Turn] | None, answer: object, name: str) -> list[Turn]:
    """The conversation that ends with this answer."""
    turns = conversation_of([answer] if isinstance(answer, Mapping) else answer)
    if turns is None and prompt is None and isinstance(answer, str):
        turns = _transcript(answer)
    if turns and len(turns) > 1:
        return turns
    if prompt is None:
        raise InvalidRow("prompt", "missing")
    return [*prompt, *(turns or [{"role": "assistant", "content": as_text(answer)}])]


def _transcript(text: str) -> list[Turn]:
    """Anthropic's format: paragraphs that begin with `Human:` or `Assistant:`."""
    parts = _TRANSCRIPT.split(text)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[who], "content": said.strip()} for who, said in zip(parts[::2], parts[1::2], strict=True)]


def _openai_pair(values: Values) -> Converted:
    good, bad = _names(values)
    if isinstance(values[good], list) and answer_turn(values[good]) is None:
        raise InvalidRow(good, "must be a list that ends with an assistant's message")
    chosen = exchange(values["input"], values[good])
    if isinstance(values["input"], Mapping):
        chosen["tools"] = tools_of(values["input"])
    turns = _as_turns(chosen)
    line = {"prompt": turns[:-1], "chosen": turns[-1:], "rejected": conversation_of(values[bad]) or []}
    return replace(converted(values, chosen, "input", good, bad), preference=Preference(line))


def _names(values: Values) -> tuple[str, str]:
    kind = "output" if "preferred_output" in values else "completion"
    return f"preferred_{kind}", f"non_preferred_{kind}"


PAIR = Schema(
    "preference pairs (DPO): the chosen answers are learned",
    frozenset({*_PROMPTS, "system", "instruction", "input", "chosen", "rejected"}),
    lambda values: "chosen" in values and "rejected" in values,
    _pair,
)
OPENAI_PAIR = Schema(
    "OpenAI preference pairs: the preferred answers are learned",
    frozenset(
        {"input", "preferred_output", "non_preferred_output", "preferred_completion", "non_preferred_completion"}
    ),
    lambda values: has(values, "input") and all(name in values for name in _names(values)),
    _openai_pair,
)
