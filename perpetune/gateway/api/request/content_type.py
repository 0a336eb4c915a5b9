"""What the content-type of a request says."""

from __future__ import annotations

_JSON_LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")


def is_json(content_type: str) -> bool:
    # A browser sends text/plain cross-site without a CORS preflight, but not this.
    kind = _kind(content_type)
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def is_json_lines(content_type: str) -> bool:
    return _kind(content_type) in _JSON_LINES


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
