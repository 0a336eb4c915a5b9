"""Reading the JSON of a request."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from perpetune.gateway.api.errors import invalid

Asked = TypeVar("Asked", bound=BaseModel)


def parse_json(kind: type[Asked], body: bytes) -> Asked:
    """Parse a request's JSON. Raises ApiError."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as fault:
        errors = fault.errors(include_url=False)
    # pydantic's parser rejects lone surrogates (\ud83d), which clients do send; Python's json accepts them.
    if errors[0]["type"] != "json_invalid" or b"\\u" not in body:
        raise invalid(errors, body)
    try:
        return kind.model_validate(json.loads(body))
    except ValidationError as fault:
        raise invalid(fault.errors(include_url=False), body) from None
    except (ValueError, RecursionError):
        raise invalid(errors, body) from None
