"""JSON as bytes, faster than Python's own encoder, which takes longer for a prompt's tokens than all else about a request."""

from __future__ import annotations

import json

from pydantic_core import to_json

_JSON = json.JSONEncoder(separators=(",", ":"))


def json_bytes(value: object) -> bytes:
    """The value in UTF-8, or in ASCII if it has half a character, which only an escape can carry."""
    try:
        return to_json(value)
    except ValueError:
        return _JSON.encode(value).encode()
