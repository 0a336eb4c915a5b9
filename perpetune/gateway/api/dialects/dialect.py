"""What a path of the API has of its own: how a request is read, and how answers are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from perpetune.gateway.api.chat.chat_reply import Reply
from perpetune.gateway.api.chat.chat_request import ChatRequest, parse_request
from perpetune.gateway.api.errors import ApiError
from perpetune.generation.answer import Answer
from perpetune.generation.parameters import Delta


class Replies(Protocol):
    """Writes the answers to one request: a whole body, or the events of a stream."""

    def body(self, answers: Sequence[Answer]) -> bytes: ...

    def beginning(self, count: int) -> bytes: ...

    def piece(self, delta: Delta) -> bytes: ...

    def end(self, answers: Sequence[Answer]) -> bytes: ...

    def error(self, error: ApiError) -> bytes: ...


WriteAs = Callable[[Reply], Replies]
"""Makes the writer of a path from that of chat completions, which has the id, the version and so on."""


@dataclass(frozen=True)
class Dialect:
    """`read` parses a body to the chat request that it means, and to how its answers are written. Raises ApiError.

    Ids begin with `id_prefix`. `names` has this path's name of a field for each name of chat completions, for errors.
    """

    id_prefix: str
    read: Callable[[bytes], tuple[ChatRequest, WriteAs]]
    names: Mapping[str, str] = field(default_factory=dict)

    def in_own_words(self, error: ApiError) -> ApiError:
        """The error with the fields' names as this path has them."""
        for name, own in self.names.items():
            if error.param is not None and error.param.startswith(name):
                message = str(error).replace(f"{name}: ", f"{own}: ", 1)
                param = own + error.param.removeprefix(name)
                return ApiError(error.status, message, param=param, code=error.code, retry_after=error.retry_after)
        return error


CHAT = Dialect("chatcmpl-", lambda body: (parse_request(body), lambda reply: reply))
