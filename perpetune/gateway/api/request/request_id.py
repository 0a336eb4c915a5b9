"""The id that every response carries in `x-request-id`, so that a user's report can be found in logs and proxies."""

from __future__ import annotations

import os

HEADER = "x-request-id"


def new_request_id(prefix: str = "req-") -> str:
    """The id of a request: of a completion with its own prefix, such as `chatcmpl-`. It can't be guessed."""
    return prefix + os.urandom(16).hex()  # as `secrets.token_hex` does, in one call
