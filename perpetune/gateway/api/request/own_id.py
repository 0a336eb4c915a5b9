"""The id that a client gives to its own request, by which it may send feedback."""

from __future__ import annotations

from collections.abc import Mapping

from perpetune.prediction_log.storable import storable

MAX_CHARS = 512  # OpenAI's limit of a value in `metadata`
_HEADERS = ("x-client-request-id", "x-request-id")


def own_id(metadata: object, headers: Mapping[str, str]) -> str | None:
    """`metadata.request_id`, else the header x-client-request-id or x-request-id; None if there is none that is usable."""
    named = metadata.get("request_id") if isinstance(metadata, dict) else None
    for found in (named, *(headers.get(name) for name in _HEADERS)):
        if isinstance(found, str) and 0 < len(found) <= MAX_CHARS:
            return storable(found)
    return None
