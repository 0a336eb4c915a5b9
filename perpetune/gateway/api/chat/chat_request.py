"""Requests of OpenAI's chat completions API: schema and validation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    WithJsonSchema,
)

from perpetune.gateway.api.errors import ApiError, prompt_too_large
from perpetune.gateway.api.request.request_json import parse_json
from perpetune.generation.parameters import GenerationConfig
from perpetune.prediction_log.storable import storable, storable_tree
from perpetune.records import Message

# Unsupported parameters are accepted with these values, which have no effect. Unknown parameters are ignored.
_UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "logit_bias": (None, {}),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "web_search_options": (None,),
}

_SEED = 2**63
_NAME_CHARS, _KEY_CHARS, _PAIRS = 512, 64, 16  # OpenAI's limits of metadata


def _plain_text(content: object) -> object:
    """Join the parts of a multi-part content, which may only be text."""
    if not isinstance(content, list):
        return content
    for part in content:
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise ValueError('only parts like {"type": "text", "text": "..."} are supported')
    return "".join(part["text"] for part in content)


def _short(text: str) -> str:
    return _bounded(text, _NAME_CHARS)


def _small(metadata: object) -> object:
    """OpenAI's limits on text in the places that it has, and a limit on all of it in any other shape."""
    if isinstance(metadata, dict):
        if len(metadata) > _PAIRS:
            raise ValueError(f"{len(metadata)} pairs are too many; the maximum is {_PAIRS}")
        for key, value in metadata.items():
            _bounded(key, _KEY_CHARS)
            _bounded(value if isinstance(value, str) else "", _NAME_CHARS)
    _bounded(json.dumps(metadata, ensure_ascii=False, allow_nan=False), _PAIRS * (_KEY_CHARS + _NAME_CHARS))
    return metadata


def _bounded(text: str, most: int) -> str:
    if len(text) > most:
        raise ValueError(f"{len(text)} characters are too many; the maximum is {most}")
    return text


def _as_list(stop: object) -> object:
    return (stop,) if isinstance(stop, str) else stop


_PARTS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
        "required": ["type", "text"],
    },
}
_STOP = {"type": "string", "minLength": 1, "maxLength": _NAME_CHARS}
Content = Annotated[str, BeforeValidator(_plain_text), WithJsonSchema({"anyOf": [{"type": "string"}, _PARTS]})]
Stop = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=_NAME_CHARS)], ...],
    Field(max_length=4),
    BeforeValidator(_as_list),
    WithJsonSchema({"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": 4}]}),
]
# A constraint of pydantic's own would refuse lone surrogates, which clients do send.
Name = Annotated[str, AfterValidator(_short), WithJsonSchema({"type": "string", "maxLength": _NAME_CHARS})]
Metadata = Annotated[Any, AfterValidator(_small), WithJsonSchema({"type": "object", "maxProperties": _PAIRS})]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Tokens = Annotated[int, Field(ge=1)]


class CalledFunction(BaseModel):
    """`arguments` is the JSON that the model generated, possibly invalid."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class TextMessage(BaseModel):
    role: Literal["system", "developer", "user"]
    content: Content
    name: Name | None = None

    def as_record(self) -> Message:
        return Message(role="user" if self.role == "user" else "system", content=storable(self.content))


class AssistantMessage(BaseModel):
    """The model's turn: text, tool calls or a refusal."""

    role: Literal["assistant"]
    content: Content | None = None
    refusal: str | None = None
    name: Name | None = None
    tool_calls: tuple[ToolCall, ...] | None = None

    def as_record(self) -> Message:
        calls = tuple(storable_tree(call.model_dump()) for call in self.tool_calls or ())
        content = self.content if self.content is not None else self.refusal or ""
        return Message(role="assistant", content=storable(content), tool_calls=calls or None)


class ToolMessage(BaseModel):
    """The result of a tool call."""

    role: Literal["tool"]
    content: Content
    tool_call_id: Name

    def as_record(self) -> Message:
        return Message(role="tool", content=storable(self.content), tool_call_id=storable(self.tool_call_id))


def _message_kind(message: object) -> str | None:
    role = message.get("role") if isinstance(message, dict) else getattr(message, "role", None)
    return "spoken" if role in ("system", "developer", "user") else role if isinstance(role, str) else None


ChatMessage = Annotated[
    Annotated[TextMessage, Tag("spoken")]
    | Annotated[AssistantMessage, Tag("assistant")]
    | Annotated[ToolMessage, Tag("tool")],
    Discriminator(
        _message_kind,
        custom_error_type="unknown_role",
        custom_error_message="a role is system, developer, user, assistant or tool",
    ),
]


class Function(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    type: Literal["function"]
    function: Function


class FunctionName(BaseModel):
    name: str


class NamedTool(BaseModel):
    type: Literal["function"]
    function: FunctionName


class TextFormat(BaseModel):
    type: Literal["text"]


class JsonObjectFormat(BaseModel):
    type: Literal["json_object"]


class NamedSchema(BaseModel):
    name: str
    description: str | None = None
    schema_: Annotated[dict[str, JsonValue], Field(alias="schema")] = {"type": "object"}
    strict: bool | None = None


class SchemaFormat(BaseModel):
    type: Literal["json_schema"]
    json_schema: NamedSchema


class StreamOptions(BaseModel):
    include_usage: bool | None = None


def _describe_unsupported(schema: dict[str, Any]) -> None:
    for name, accepted in _UNSUPPORTED.items():
        schema["properties"][name] = {
            "enum": list(accepted),
            "description": "Not supported: only values without effect.",
        }


class ChatRequest(BaseModel):
    """OpenAI's request. Other parameters (store, service_tier, ...) are accepted and ignored."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_describe_unsupported)

    model: Annotated[Name, Field(description="The task, or TASK@VERSION to pin a version.")]
    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1)]
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stop: Stop | None = None
    temperature: Annotated[float, Field(ge=0, le=2, description="Default: 0, greedy decoding.")] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Field(ge=-_SEED, lt=_SEED)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: Annotated[TextFormat | JsonObjectFormat | SchemaFormat, Field(discriminator="type")] | None = None
    tools: Annotated[tuple[Tool, ...], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: Metadata = None
    user: Annotated[Name, Field(description="Groups a user's requests, and keeps them on one version.")] | None = None


@dataclass(frozen=True)
class ValidRequest:
    """A validated request. `version` is the pinned one; `input` the last user message."""

    version: str | None
    messages: tuple[Message, ...]
    input: str
    generation: GenerationConfig
    user: str | None
    stream: bool
    include_usage: bool
    metadata: object = None


def parse_request(body: bytes) -> ChatRequest:
    """Parse a request's JSON. Raises ApiError."""
    return parse_json(ChatRequest, body)


def validate_request(request: ChatRequest, task: str, *, max_chars: int, max_tokens: int) -> ValidRequest:
    """Validate a request beyond its schema, and cap its max_tokens at `max_tokens`. Raises ApiError."""
    _refuse_unsupported(request.model_extra or {})
    # As in curation, an empty system message does not replace the task's instruction.
    records = [message.as_record() for message in request.messages]
    messages = tuple(message for message in records if message.content or message.role != "system")
    _refuse_too_long(messages, max_chars)
    user_texts = [message.content for message in messages if message.role == "user"]
    if not user_texts or not user_texts[-1].strip():
        raise ApiError(400, "messages: send a user message with text.", param="messages", code="empty_messages")
    return ValidRequest(
        version=_pinned(request.model, task),
        messages=messages,
        input=user_texts[-1],
        generation=_generation(request, max_tokens, max_chars),
        user=storable(request.user) if request.user else None,
        stream=bool(request.stream),
        include_usage=request.stream_options is not None and bool(request.stream_options.include_usage),
        metadata=request.metadata,
    )


def unknown_model(model: str) -> ApiError:
    return ApiError(404, f"The model `{model}` does not exist here.", param="model", code="model_not_found")


def model_name(task: str, version: str) -> str:
    """The model name that pins a version."""
    return f"{task}@{version}"


def _pinned(model: str, task: str) -> str | None:
    name, _, version = model.partition("@")
    if name != task or (not version and model != task):
        raise unknown_model(model)
    return version or None


def _refuse_unsupported(options: Mapping[str, object]) -> None:
    if not options:
        return
    for name, accepted in _UNSUPPORTED.items():
        if name in options and options[name] not in accepted:
            raise ApiError(400, f"{name}: this parameter is not supported.", param=name, code="unsupported_parameter")


def _refuse_too_long(messages: Iterable[Message], max_chars: int) -> None:
    chars = sum(
        len(message.content) + (len(json.dumps(message.tool_calls)) if message.tool_calls else 0)
        for message in messages
    )
    if chars > max_chars:
        raise prompt_too_large(f"the messages have {chars} characters; the maximum is {max_chars}.", "messages")


def _generation(request: ChatRequest, max_tokens: int, max_chars: int) -> GenerationConfig:
    """The generation parameters. `top_p` 0 keeps only the most likely token, so it is greedy decoding."""
    requested = request.max_completion_tokens or request.max_tokens or max_tokens
    tools, tool_choice = _tools(request, max_chars)
    greedy = request.top_p == 0
    return GenerationConfig(
        max_tokens=min(requested, max_tokens),
        n=request.n or 1,
        stop=tuple(map(storable, request.stop or ())),
        temperature=0.0 if greedy else request.temperature or 0.0,
        top_p=1.0 if greedy or request.top_p is None else request.top_p,
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        seed=request.seed,
        top_logprobs=_top_logprobs(request),
        json_schema=_json_schema(request, max_chars),
        has_response_format=request.response_format is not None,
        tools=tools,
        tool_choice=tool_choice,
    )


def _top_logprobs(request: ChatRequest) -> int | None:
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs:
        raise ApiError(400, "top_logprobs: set logprobs to true.", param="top_logprobs", code="invalid_value")
    return None


def _json_schema(request: ChatRequest, max_chars: int) -> str | None:
    requested = request.response_format
    if isinstance(requested, JsonObjectFormat):
        return '{"type": "object"}'
    if not isinstance(requested, SchemaFormat):
        return None
    schema = _json("response_format", requested.json_schema.schema_)
    _refuse_long("response_format", schema, max_chars)
    return schema


def _tools(request: ChatRequest, max_chars: int) -> tuple[str | None, str | None]:
    """The tools and the tool choice, as JSON; (None, None) if no tool may be called."""
    choice = request.tool_choice
    offered = request.tools or ()
    if isinstance(choice, NamedTool):
        if choice.function.name not in [tool.function.name for tool in offered]:
            what = f"tool_choice: there is no tool {choice.function.name!r} among the tools."
            raise ApiError(400, what, param="tool_choice", code="invalid_value")
    elif choice == "required" and not offered:
        raise ApiError(400, "tool_choice: there are no tools to call.", param="tool_choice", code="invalid_value")
    if not offered or choice == "none":
        return None, None
    tools = _json("tools", [tool.model_dump(exclude_unset=True) for tool in offered])
    _refuse_long("tools", tools, max_chars)
    chosen = choice.model_dump() if isinstance(choice, NamedTool) else choice
    return tools, None if chosen is None else _json("tool_choice", chosen)


def _refuse_long(param: str, text: str, max_chars: int) -> None:
    if len(text) > max_chars:
        message = f"{param}: these have {len(text)} characters as JSON; the maximum is {max_chars}."
        raise ApiError(400, message, param=param, code="invalid_value")


def _json(param: str, value: object) -> str:
    try:
        return storable(json.dumps(value, ensure_ascii=False, allow_nan=False))
    except ValueError as fault:  # NaN, Infinity, or a number of thousands of digits, which pydantic reads
        raise ApiError(400, f"{param}: {fault}.", param=param, code="invalid_value") from None
