"""The id that every response carries in `x-request-id`, so that a user's report can be found in logs and proxies."""

from __future__ import annotations

import uuid

HEADER = "x-request-id"


def new_request_id() -> str:
    """The id of a request that is not answered with a completion, whose own id is `chatcmpl-...`."""
    return f"req-{uuid.uuid4().hex}"
