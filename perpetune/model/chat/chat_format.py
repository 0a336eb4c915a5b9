"""Conversations to tokens, with the tokenizer's chat template; the same in training, evaluation and every engine."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any
from weakref import WeakKeyDictionary

import jinja2
from transformers import PreTrainedTokenizerBase

from perpetune.errors import PerpetuneError
from perpetune.generation.answer import PromptRejected
from perpetune.generation.prompt_format import PromptFormat
from perpetune.model.chat.control_tokens import (
    encode,
    has_spelling,
    is_marked,
    mark,
    pattern_of,
    special_tokens,
    tokens_written,
)
from perpetune.model.chat.segments import SegmentEncoder, segment_encoder
from perpetune.records import Example, Message, conversation
from perpetune.tool_calls import as_tool_calls, hermes

# For base models without a chat template.
PLAIN_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n\n{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}"

# Templates of models that only reason, such as DeepSeek-R1's, open a thinking block in the generation prompt.
_OPEN_THINKING = re.compile(r"(?P<open>[<\[])(?P<name>(?i:think|thinking|thought|reasoning))(?P<close>[>\]])\s*$")
_THINKS = "{%- set enable_thinking = True %}\n"
_OF_BEFORE = "{# a version of before #}\n"  # in a template: see PromptFormat
# What `strftime` knows, without the time of day, which no prompt should depend on.
_DIRECTIVES = tuple(f"%{flag}{letter}" for flag in ("", "-") for letter in "aAwdbBmyYjUWxFDeHIMSpXcZz")
_PROBE = "Zq7probe"  # a content that no template contains


def prompt_tokens(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: str | None = None
) -> list[int]:
    """The tokens of a prompt, with the generation prompt. `tools` is OpenAI's list of tools as JSON.

    Spellings of control tokens in messages and tools are text. A thinking block that the generation prompt opens is
    closed, because answers are direct, unless the variable `enable_thinking` was set to true. Raises PromptRejected if
    the template rejects the conversation.
    """
    controls = _controls(tokenizer)
    turns = [_marked(controls, _turn(message)) for message in messages]
    listed = mark(json.loads(tools), controls.prompt) if tools else None
    text = _with_closed_thinking(tokenizer, _render(tokenizer, turns, listed))
    if controls.segments is None or is_marked(text):
        return [*controls.bos, *encode(tokenizer, text)]
    return [*controls.bos, *controls.segments.encode(text)]


def answer_tokens(tokenizer: PreTrainedTokenizerBase, output: str) -> list[int]:
    """The tokens of an answer with the end-of-turn token.

    They are tokenised separately from the prompt, as the model generates them.
    """
    controls = _controls(tokenizer)
    text = output if _has_template(tokenizer) else " " + output
    return [*encode(tokenizer, mark(text, controls.answer)), _required(controls.end_of_turn)]


def target_tokens(tokenizer: PreTrainedTokenizerBase, row: Example, instruction: str) -> list[int]:
    """What the model learns to write for a row: its text, or its tool calls as the template writes them."""
    if row.answers_with == "text":
        return answer_tokens(tokenizer, row.output)
    return call_tokens(tokenizer, conversation(instruction, row), row.output, row.tools, row.said)


def call_tokens(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    output: str,
    tools: str | None = None,
    said: str = "",
) -> list[int]:
    """The tokens of an answer of tool calls (`output` is their canonical JSON), with the end-of-turn token.

    They are what the chat template writes where an empty answer would end, or the calls in Hermes' format if it writes
    none, or drops the text that is `said` before them. Spellings of control tokens in names and arguments are text.
    """
    controls = _controls(tokenizer)
    called = {"role": "assistant", "content": said, "tool_calls": list(as_tool_calls(output))}
    turns = [*(_marked(controls, _turn(message)) for message in messages), _marked(controls, called)]
    listed = mark(json.loads(tools), controls.prompt) if tools else None
    end = _required(controls.end_of_turn)
    text = _written_calls(tokenizer, turns, listed, str(tokenizer.decode([end])))
    if text is None or not _has_call(text, str(_marked(controls, called)["content"]), json.loads(output)[0]["name"]):
        return answer_tokens(tokenizer, "\n".join(filter(None, [said, hermes(output)])))
    return [*encode(tokenizer, text), end]


def _has_call(text: str, said: str, name: str) -> bool:
    """Whether the template wrote the call of this name, behind what is said before it if there is that."""
    if not said:
        return name in text
    _, found, behind = text.partition(said)
    return bool(found) and name in behind


def _written_calls(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, Any]], tools: list[Any] | None, end: str
) -> str | None:
    """What the template writes for the calls of the last turn, up to its end; None if that cannot be told apart."""
    for given in (turns, _fold_system(turns)):
        try:
            empty = _apply(
                tokenizer, [*given[:-1], {"role": "assistant", "content": ""}], tools, generation_prompt=False
            )
            whole = _apply(tokenizer, given, tools, generation_prompt=False)
        except Exception:  # a template may raise anything
            continue
        before, found, _ = empty.rpartition(end)
        if found and whole.startswith(before):
            return whole.removeprefix(before).rpartition(end)[0] or None
    return None


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an assistant's turn: the first control token that the template writes after its content.

    It is the tokenizer's end-of-text token if the template writes none. Raises PerpetuneError if there is neither.
    """
    return _required(_controls(tokenizer).end_of_turn)


def stop_tokens(tokenizer: PreTrainedTokenizerBase, of_generation: int | Collection[int] | None) -> frozenset[int]:
    """The tokens at which an answer ends: of turn, of text, and `eos_token_id` of the model's generation_config.json."""
    named = {of_generation} if isinstance(of_generation, int) else set(of_generation or ())
    found = {_controls(tokenizer).end_of_turn, tokenizer.eos_token_id, *named}
    return frozenset(token for token in found if isinstance(token, int))


def servable_messages(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages as another server should render them: without a system message that the template would drop.

    Raises PromptRejected if one spells a control token, which the other server would read as the token.
    """
    controls = _controls(tokenizer)
    turns = [_turn(message) for message in messages]
    if any(has_spelling(_texts(turn), _pattern(controls, turn)) for turn in turns):
        raise PromptRejected("a message spells a control token of the model", do="remove it from the text")
    if _keeps_system(tokenizer, turns):
        return tuple(messages)
    folded = _fold_system([message.model_dump(exclude_none=True) for message in messages])
    return tuple(map(Message.model_validate, folded))


def reasons_by_default(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template has a variable `enable_thinking`, which nothing has set."""
    return any(
        "enable_thinking" in source and "{%- set enable_thinking" not in source for source in _sources(tokenizer)
    )


def with_format(tokenizer: PreTrainedTokenizerBase, chosen: PromptFormat) -> PreTrainedTokenizerBase:
    """The tokenizer with a template that has the format's variables and day in it; itself if they change nothing."""
    template = tokenizer.chat_template or (PLAIN_TEMPLATE if chosen.of_before else None)
    if not template:
        return tokenizer
    fixed = (
        {name: _fixed(text, chosen) for name, text in template.items()}
        if isinstance(template, dict)
        else _fixed(template, chosen)
    )
    if fixed == template:
        return tokenizer
    changed = copy.copy(tokenizer)
    changed.chat_template = fixed
    return changed


def _fixed(template: str, chosen: PromptFormat) -> str:
    """The template after lines that set its variables. Jinja removes the newline after a block, so none is added."""
    lines = [f"{{%- set {name} = {value!r} %}}\n" for name, value in json.loads(chosen.variables).items()]
    if chosen.day is not None and "strftime_now" in template:
        lines.append(_clock(chosen.day))
    if chosen.of_before:
        lines.append(_OF_BEFORE)
    return "".join(lines) + template


def _clock(day: date) -> str:
    """A Jinja macro in the place of the function `strftime_now` of transformers and vLLM, which tells the real time."""
    moment = datetime.combine(day, time())
    written = [("%%", "\0"), *((each, moment.strftime(each)) for each in _DIRECTIVES), ("\0", "%")]
    replaced = "".join(f".replace({each!r}, {text!r})" for each, text in written)
    return f"{{%- macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}\n"


@dataclass(frozen=True)
class _Controls:
    """What a tokenizer and its template say of control tokens.

    `prompt` and `answer` match spellings that remain text: in a prompt all that the template writes, in an assistant's
    text those that no assistant writes itself, so not `<think>` or `<tool_call>`. `bos` begins a prompt without a
    template. `segments` encodes prompts without marks; None if only the tokenizer itself can.
    """

    template: object
    vocabulary: int
    prompt: re.Pattern[str]
    answer: re.Pattern[str]
    end_of_turn: int | None
    bos: tuple[int, ...]
    segments: SegmentEncoder | None


_known: WeakKeyDictionary[PreTrainedTokenizerBase, _Controls] = WeakKeyDictionary()


def _controls(tokenizer: PreTrainedTokenizerBase) -> _Controls:
    found = _known.get(tokenizer)
    if found is None or found.template != tokenizer.chat_template or found.vocabulary != len(tokenizer):
        found = _known[tokenizer] = _find_controls(tokenizer)
    return found


def _find_controls(tokenizer: PreTrainedTokenizerBase) -> _Controls:
    template = tokenizer.chat_template
    special = special_tokens(tokenizer)
    of_turns = tokens_written(tokenizer, _plain_talk(tokenizer)) if template else frozenset()
    written = frozenset(token for source in _sources(tokenizer) for token in tokens_written(tokenizer, source))
    return _Controls(
        template=copy.copy(template),
        vocabulary=len(tokenizer),
        prompt=pattern_of(special | of_turns | written),
        answer=pattern_of(special | of_turns),
        end_of_turn=tokenizer.eos_token_id if _is_of_before(tokenizer) else _end_of_turn(tokenizer),
        bos=() if template else _bos(tokenizer),
        segments=segment_encoder(tokenizer),
    )


def _plain_talk(tokenizer: PreTrainedTokenizerBase) -> str:
    """A rendered conversation; "" if the template cannot render it."""
    turns = [{"role": role, "content": _PROBE} for role in ("user", "assistant", "user")]
    try:
        return _apply(tokenizer, turns, None, generation_prompt=False)
    except Exception:  # a template may raise anything
        return ""


def _is_of_before(tokenizer: PreTrainedTokenizerBase) -> bool:
    return any(_OF_BEFORE in source for source in _sources(tokenizer))


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}]
    try:
        _, found, rest = _apply(tokenizer, turns, None, generation_prompt=False).rpartition(_PROBE)
    except Exception:  # a template may raise anything
        found, rest = "", ""
    added = tokenizer.added_tokens_decoder
    after = tokenizer(rest, add_special_tokens=False)["input_ids"] if found else []
    ends = (token for token in after if token in added and added[token].content.strip())
    eos: int | None = tokenizer.eos_token_id
    return next(ends, eos)


def _required(end: int | None) -> int:
    if end is None:
        raise PerpetuneError(
            "the tokenizer has no end-of-text token, and its chat template writes none after an answer",
            where="params.yaml: base.model",
            do="choose another base, or set eos_token in its tokenizer_config.json",
        )
    return end


def _bos(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens that the tokenizer puts before a text, and vLLM too."""
    whole = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = (start for start in range(len(whole)) if whole[start : start + len(bare)] == bare)
    return tuple(whole[: next(starts, 0)])


def _with_closed_thinking(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    found = _OPEN_THINKING.search(text)
    if not found or any(_THINKS in source or _OF_BEFORE in source for source in _sources(tokenizer)):
        return text
    return f"{text.rstrip()}\n\n{found['open']}/{found['name']}{found['close']}\n\n"


def _has_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    return any(PLAIN_TEMPLATE not in source for source in _sources(tokenizer))


def _sources(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    template = tokenizer.chat_template
    return list(template.values()) if isinstance(template, dict) else [template] if template else []


def _render(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, Any]], tools: list[Any] | None) -> str:
    try:
        return _render_with_system(tokenizer, turns, tools)
    except jinja2.TemplateError as fault:
        raise PromptRejected(
            f"the chat template of the base rejects the conversation: {fault}", do="change its messages"
        ) from fault


def _render_with_system(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, Any]], tools: list[Any] | None
) -> str:
    """The rendered prompt. A system message that the template rejects or drops goes before the first user message."""
    try:
        text = _apply(tokenizer, turns, tools)
    except jinja2.TemplateError:
        # As Mistral's and Gemma's do.
        if not _system_contents(turns):
            raise
        return _apply(tokenizer, _fold_system(turns), tools)
    if _has_system(text, turns) or _is_of_before(tokenizer):
        return text
    return _apply(tokenizer, _fold_system(turns), tools)


def _keeps_system(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, Any]]) -> bool:
    try:
        return _has_system(_apply(tokenizer, turns, None), turns)
    except jinja2.TemplateError:
        return False


def _has_system(text: str, turns: Sequence[dict[str, Any]]) -> bool:
    return all(content.strip() in text for content in _system_contents(turns))


def _system_contents(turns: Sequence[dict[str, Any]]) -> list[str]:
    return [turn["content"] for turn in turns if turn["role"] == "system"]


def _fold_system(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns with what the system says before the first user message."""
    system, others = "\n\n".join(_system_contents(turns)), [turn for turn in turns if turn["role"] != "system"]
    first = next((place for place, turn in enumerate(others) if turn["role"] == "user"), None)
    if first is None:
        return [{"role": "user", "content": system}, *others]
    folded = {**others[first], "content": f"{system}\n\n{others[first]['content']}"}
    return [*others[:first], folded, *others[first + 1 :]]


def _turn(message: Message) -> dict[str, Any]:
    turn = message.model_dump(exclude_none=True)
    if message.tool_calls:
        turn["tool_calls"] = [_with_parsed_arguments(call) for call in message.tool_calls]
    return turn


def _with_parsed_arguments(call: dict[str, Any]) -> dict[str, Any]:
    """Parse a call's arguments, which OpenAI sends as JSON text, because templates serialise them."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        return {**call, "function": {**function, "arguments": json.loads(function["arguments"])}}
    except ValueError:
        return call


def _marked(controls: _Controls, turn: dict[str, Any]) -> dict[str, Any]:
    return {**turn, **mark(_texts(turn), _pattern(controls, turn))}


def _texts(turn: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in turn.items() if name != "role"}


def _pattern(controls: _Controls, turn: dict[str, Any]) -> re.Pattern[str]:
    return controls.answer if turn["role"] == "assistant" else controls.prompt


def _apply(
    tokenizer: PreTrainedTokenizerBase,
    turns: list[dict[str, Any]],
    tools: list[Any] | None,
    *,
    generation_prompt: bool = True,
) -> str:
    return str(
        tokenizer.apply_chat_template(
            turns,
            tools=tools,
            chat_template=None if tokenizer.chat_template else PLAIN_TEMPLATE,
            tokenize=False,
            add_generation_prompt=generation_prompt,
        )
    )
