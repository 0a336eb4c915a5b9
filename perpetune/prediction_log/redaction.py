"""Replacing personal data by its type before a row is stored: `write to <EMAIL_ADDRESS>`.

What to replace is found by pattern and checksum, without a language model and without a network: see `redacting/`.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import json
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from perpetune.errors import PerpetuneError
from perpetune.prediction_log.redacting.folded_text import fold
from perpetune.prediction_log.redacting.found import Found
from perpetune.prediction_log.redacting.personal_data import personal_data_finder
from perpetune.prediction_log.redacting.secret_patterns import NAME as SECRET
from perpetune.prediction_log.redacting.secret_patterns import find_secrets, is_named_secret
from perpetune.records import Failure, Feedback, Message, Prediction, Shadow

Row = TypeVar("Row", Prediction, Feedback, Shadow, Failure)

_MAY_MATCH = re.compile(r"[\d@]|::|PRIVATE KEY|hf_[A-Za-z]{30}")  # all that is found contains one of these


class Redactor:
    """Replaces e-mail addresses, phone, card, bank account and social security numbers, IP addresses, wallets,
    credentials in URLs, and secrets such as API keys. `key` is the secret of the keyed hash that replaces users. Raises PerpetuneError if Presidio is
    not installed.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        require_presidio()
        self._find = personal_data_finder()

    def row(self, row: Row) -> Row:
        """The row without personal data."""
        if isinstance(row, Prediction):
            return row.model_copy(
                update={
                    "messages": tuple(map(self._message, row.messages)),
                    "input": self.text(row.input),
                    "output": self._written(row.output),
                    "group": self._hash(row.group),
                    "client_id": self._own_id(row.client_id),
                    "other_outputs": tuple(map(self._written, row.other_outputs)),
                }
            )
        if isinstance(row, Feedback):
            row = row.model_copy(update={"request_id": self._own_id(row.request_id)})
        names = {Feedback: ("label", "comment"), Shadow: ("output", "error")}.get(type(row), ())
        return row.model_copy(update={name: self._optional_text(getattr(row, name)) for name in names})

    def text(self, text: str) -> str:
        """The text with `<NAME>` in place of what is found, in any of Unicode's forms of it."""
        folded = fold(text)
        if not _MAY_MATCH.search(folded.text):
            return text
        for each in reversed(_merged([*self._find(folded.text), *find_secrets(folded.text)])):
            start, end = folded.source_span(each.start, each.end)
            text = f"{text[:start]}<{each.name}>{text[end:]}"
        return text

    def _optional_text(self, text: str | None) -> str | None:
        return None if text is None else self.text(text)

    def _message(self, message: Message) -> Message:
        calls = message.tool_calls
        return message.model_copy(
            update={
                "content": self.text(message.content),
                "tool_calls": None if calls is None else tuple(self._json_value(call) for call in calls),
                "tool_call_id": self._optional_text(message.tool_call_id),
            }
        )

    def _json_value(self, value: Any) -> Any:
        """Redact JSON, and JSON inside its strings, such as the arguments of a tool call."""
        if isinstance(value, dict):
            return {self.text(name): self._named_value(name, content) for name, content in value.items()}
        if isinstance(value, list | tuple):
            return [self._json_value(content) for content in value]
        if isinstance(value, str):
            inner = _json(value)
            return self.text(value) if inner is None else json.dumps(self._json_value(inner), ensure_ascii=False)
        if isinstance(value, int | float) and not isinstance(value, bool):
            written = str(value)
            redacted = self.text(written)
            return value if redacted == written else redacted
        return value

    def _written(self, output: str) -> str:
        """An output, which may be JSON or calls as JSON. It keeps its form if nothing is found."""
        value = _json(output)
        if value is None:
            return self.text(output)
        redacted = self._json_value(value)
        return output if redacted == value else json.dumps(redacted, ensure_ascii=False)

    def _named_value(self, name: str, value: Any) -> Any:
        """Redact a value of a JSON object; one that its name calls a secret as a whole."""
        if isinstance(value, str) and is_named_secret(name, value):
            return f"<{SECRET}>"
        return self._json_value(value)

    def _own_id(self, request_id: str | None) -> str | None:
        """A client's own id, as a hash if it has personal data: ids must stay different."""
        return request_id if request_id is None or self.text(request_id) == request_id else self._hash(request_id)

    def _hash(self, group: str | None) -> str | None:
        if group is None:
            return None
        return hmac.new(self._key, group.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32]


def group_key(folder: Path | None) -> bytes:
    """The folder's hash key, created once; without a folder a new one."""
    if folder is None:
        return secrets.token_bytes(32)
    path = folder / "group.key"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.touch(0o600)
    temporary.write_bytes(secrets.token_bytes(32))
    try:
        os.link(temporary, path)  # atomic, and only the first of several processes succeeds
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    return path.read_bytes()


def _json(text: str) -> dict[str, Any] | list[Any] | None:
    if text[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _merged(found: Iterable[Found]) -> list[Found]:
    """Merge overlapping ones; the one with the highest score gives the name."""
    merged: list[Found] = []
    for each in sorted(found, key=lambda each: (each.start, each.end, each.score, each.name)):
        if merged and each.start < merged[-1].end:
            before = merged[-1]
            best = each if each.score > before.score else before
            merged[-1] = Found(before.start, max(before.end, each.end), best.score, best.name)
        else:
            merged.append(each)
    return merged


def require_presidio() -> None:
    """Raises PerpetuneError if Presidio is not installed."""
    if importlib.util.find_spec("presidio_analyzer") is None:
        raise PerpetuneError(
            "log.redact is true, but Presidio is not installed",
            where="params.yaml",
            do="pip install 'perpetune[redact]', or set log.redact: false",
        )
