"""An HTTP client for OpenAI-compatible model servers; errors become exceptions."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from opentelemetry import propagate, trace
from pydantic import SecretStr

from perpetune.engines.engine import EngineDown
from perpetune.engines.openai_api.http_client.connection import Connection
from perpetune.engines.openai_api.http_client.pool import ConnectionPool
from perpetune.engines.openai_api.json_bytes import json_bytes
from perpetune.engines.openai_api.tls import Tls, TlsFiles

_CLIENT_FAULTS = frozenset({400, 404, 413, 422})


class RequestRejected(Exception):
    """The server rejected the request (4xx). `param` is the field that it names, `code` the kind of error."""

    def __init__(self, status: int, message: str, param: str | None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    @property
    def is_unknown_model(self) -> bool:
        return self.status == 404 and self.param == "model"

    @property
    def is_context_exceeded(self) -> bool:
        """Whether the prompt is too long: OpenAI's code for it, or its words, which other servers repeat."""
        return self.code == "context_length_exceeded" or "maximum context length" in str(self)


class ModelClient:
    """A client of one server, named `name` in messages. Calls raise EngineDown (no answer, 5xx) and RequestRejected.

    `tls` is of addresses that begin with https://; without one the system's CAs are trusted.
    """

    def __init__(self, url: str, api_key: SecretStr | None, name: str, tls: Tls | None = None) -> None:
        self._name = name
        self._tls = tls or Tls(TlsFiles("PERPETUNE_REMOTE"))
        self._is_secure = url.startswith("https://")
        key = api_key.get_secret_value().strip() if api_key else ""
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        self._pool = ConnectionPool(url, self._tls, headers)

    async def get(self, path: str) -> Any:
        return json.loads(await self._reply(path, None))

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        return json.loads(await self.post_for_text(path, body))

    async def post_for_text(self, path: str, body: dict[str, Any]) -> bytes:
        return await self._reply(path, body)

    async def stream(self, path: str, body: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """The JSON of each server-sent event up to [DONE]."""
        async with self._response(path, body) as response:
            async for line in response.lines():
                if not line.startswith(b"data: "):
                    continue
                if line.startswith(b"data: [DONE]"):
                    return
                event = json.loads(line[6:])
                if "error" in event:
                    raise self._error_from(_status(event["error"]), event["error"])
                yield event
        raise EngineDown(f"{self._name} closed the stream before [DONE]")

    async def close(self) -> None:
        await self._pool.close()

    async def _reply(self, path: str, body: dict[str, Any] | None) -> bytes:
        """POST a body, or GET without one."""
        data = None if body is None else json_bytes(body)
        try:
            status, reply = await self._pool.reply(path, data, _trace_headers())
        except OSError as fault:
            raise self._no_answer(fault) from fault
        if status >= 300:
            raise self._error_from(status, _error(reply))
        return reply

    @asynccontextmanager
    async def _response(self, path: str, body: dict[str, Any]) -> AsyncIterator[Connection]:
        """The response to a POST, as it arrives."""
        try:
            async with self._pool.response(path, json_bytes(body), _trace_headers()) as response:
                if response.status >= 300:
                    raise self._error_from(response.status, _error(await response.read()))
                yield response
        except OSError as fault:
            raise self._no_answer(fault) from fault

    def _no_answer(self, fault: OSError) -> EngineDown:
        why = self._tls.explain(fault) if self._is_secure else None
        return EngineDown(f"{self._name} does not answer: {why or fault or 'it takes too long'}")

    def _error_from(self, status: int, error: dict[str, Any]) -> Exception:
        message = str(error.get("message"))
        if status in _CLIENT_FAULTS:
            return RequestRejected(status, message, error.get("param"), error.get("code"))
        return EngineDown(f"{self._name} answered {status}: {message}")


def _trace_headers() -> dict[str, str] | None:
    """The current trace, for the server; None if there is none."""
    if trace.get_current_span() is trace.INVALID_SPAN:
        return None
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def _error(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError:
        return {"message": body[:500].decode(errors="replace")}
    if isinstance(parsed, dict):
        error = parsed.get("error", parsed)
        if isinstance(error, dict):
            message = str(error.get("message") or error.get("detail"))
            return {"message": message, "param": error.get("param"), "code": error.get("code")}
    return {"message": str(parsed)[:500]}


def _status(error: dict[str, Any]) -> int:
    """The HTTP status of an error inside a stream: vLLM sends it as the code, others send text."""
    code = str(error.get("code"))
    return int(code) if code.isdigit() else 500
