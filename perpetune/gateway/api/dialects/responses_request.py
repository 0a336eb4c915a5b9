"""Requests of OpenAI's Responses API, as the chat requests that they mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag, ValidationError

from perpetune.gateway.api.chat.chat_request import ChatRequest
from perpetune.gateway.api.errors import ApiError, invalid
from perpetune.gateway.api.request.request_json import parse_json

# Accepted with these values, which have no effect. Other unknown parameters are ignored, as in chat completions.
_UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "background": (None, False),
    "conversation": (None,),
    "previous_response_id": (None,),
    "prompt": (None,),
}


class TextPart(BaseModel):
    type: Literal["input_text", "output_text", "text"]
    text: str


Text = str | list[TextPart]


class InputMessage(BaseModel):
    """A turn of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Text


class InputCall(BaseModel):
    """A call that the model made before."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class InputCallOutput(BaseModel):
    """What a call returned."""

    type: Literal["function_call_output"]
    call_id: str
    output: Text


class InputReasoning(BaseModel):
    """Reasoning of an earlier answer, which is left out."""

    type: Literal["reasoning"]


def _kind(item: object) -> str:
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return str(kind or "message")


InputItem = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[InputCall, Tag("function_call")]
    | Annotated[InputCallOutput, Tag("function_call_output")]
    | Annotated[InputReasoning, Tag("reasoning")],
    Discriminator(_kind),
]


class FunctionTool(BaseModel):
    type: Literal["function"]
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


class ChosenTool(BaseModel):
    type: Literal["function"]
    name: str


class PlainFormat(BaseModel):
    type: Literal["text", "json_object"]


class SchemaFormat(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)

    type: Literal["json_schema"]
    name: str = "answer"
    description: str | None = None
    schema_: Annotated[dict[str, JsonValue], Field(alias="schema")] = {"type": "object"}
    strict: bool | None = None


class TextOptions(BaseModel):
    format: Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")] | None = None


class ResponsesRequest(BaseModel):
    """OpenAI's request. Nothing is stored to be continued: send the whole conversation as `input`."""

    model_config = ConfigDict(extra="allow")

    model: Annotated[str, Field(description="The task, or TASK@VERSION to pin a version.")]
    input: Annotated[
        Annotated[str, Tag("text")] | Annotated[list[InputItem], Field(min_length=1), Tag("items")],
        Discriminator(lambda value: "text" if isinstance(value, str) else "items"),
    ]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, description="Default: 0, greedy decoding.")] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    text: TextOptions | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: list[str] | None = None
    stream: bool | None = None
    metadata: dict[str, JsonValue] | None = None
    user: str | None = None
    safety_identifier: str | None = None

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.top_logprobs) or "message.output_text.logprobs" in (self.include or ())


def read_request(body: bytes) -> ResponsesRequest:
    """Parse and validate a request's JSON. Raises ApiError."""
    request = parse_json(ResponsesRequest, body)
    for name, accepted in _UNSUPPORTED.items():
        if (request.model_extra or {}).get(name) not in accepted:
            what = "this server keeps no conversations; send the whole one as input"
            raise ApiError(400, f"{name}: {what}.", param=name, code="unsupported_parameter")
    return request


def as_chat(request: ResponsesRequest) -> ChatRequest:
    """The chat request that it means. Raises ApiError."""
    asked: dict[str, Any] = {
        "model": request.model,
        "messages": list(_messages(request)),
        "max_completion_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "response_format": _response_format(request),
        "tools": [_tool(tool) for tool in request.tools] if request.tools else None,
        "tool_choice": _tool_choice(request),
        "logprobs": request.wants_logprobs or None,
        "top_logprobs": request.top_logprobs,
        "stream": request.stream,
        "metadata": request.metadata,
        "user": request.user or request.safety_identifier,
    }
    try:
        return ChatRequest.model_validate({name: value for name, value in asked.items() if value is not None})
    except ValidationError as fault:
        raise invalid(fault.errors(include_url=False), b"") from None


def _messages(request: ResponsesRequest) -> Iterator[dict[str, Any]]:
    if request.instructions:
        yield {"role": "system", "content": request.instructions}
    if isinstance(request.input, str):
        yield {"role": "user", "content": request.input}
        return
    calls: list[dict[str, Any]] = []
    for item in request.input:
        if isinstance(item, InputCall):
            function = {"name": item.name, "arguments": item.arguments}
            calls.append({"id": item.call_id, "type": "function", "function": function})
            continue
        if calls and not isinstance(item, InputReasoning):
            yield {"role": "assistant", "tool_calls": calls}
            calls = []
        if isinstance(item, InputMessage):
            yield {"role": item.role, "content": _plain(item.content)}
        elif isinstance(item, InputCallOutput):
            yield {"role": "tool", "tool_call_id": item.call_id, "content": _plain(item.output)}
    if calls:
        yield {"role": "assistant", "tool_calls": calls}


def _plain(text: Text) -> str:
    return text if isinstance(text, str) else "".join(part.text for part in text)


def _response_format(request: ResponsesRequest) -> dict[str, Any] | None:
    wanted = request.text.format if request.text else None
    if wanted is None:
        return None
    if isinstance(wanted, PlainFormat):
        return wanted.model_dump()
    return {"type": "json_schema", "json_schema": wanted.model_dump(exclude={"type"}, exclude_none=True)}


def _tool(tool: FunctionTool) -> dict[str, Any]:
    return {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_unset=True)}


def _tool_choice(request: ResponsesRequest) -> object:
    choice = request.tool_choice
    return {"type": "function", "function": {"name": choice.name}} if isinstance(choice, ChosenTool) else choice
