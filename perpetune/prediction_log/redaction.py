"""Replacing personal data by its type before a row is stored: `write to <EMAIL_ADDRESS>`.

It uses Microsoft Presidio's pattern and checksum recognizers, which need no language model and no network.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from perpetune.errors import PerpetuneError
from perpetune.records import Failure, Feedback, Message, Prediction, Shadow

Row = TypeVar("Row", Prediction, Feedback, Shadow, Failure)
Find = Callable[[str], Iterable[tuple[int, int, float, str]]]

_MIN_SCORE = 0.4  # Presidio's score of a phone number; lower ones are patterns such as "any nine digits"
_MAY_MATCH = re.compile(r"[\d@]|::")  # every recognized entity contains one of these


class Redactor:
    """Replaces e-mail addresses, phone, card, bank account and social security numbers, IP addresses, wallets and
    credentials in URLs. `key` is the secret of the keyed hash that replaces users. Raises PerpetuneError if Presidio is
    not installed.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._find = _finder()

    def row(self, row: Row) -> Row:
        """The row without personal data."""
        if isinstance(row, Prediction):
            return row.model_copy(
                update={
                    "messages": tuple(map(self._message, row.messages)),
                    "input": self.text(row.input),
                    "output": self.text(row.output),
                    "group": self._hash(row.group),
                    "client_id": self._own_id(row.client_id),
                    "other_outputs": tuple(map(self.text, row.other_outputs)),
                }
            )
        if isinstance(row, Feedback):
            row = row.model_copy(update={"request_id": self._own_id(row.request_id)})
        names = {Feedback: ("label", "comment"), Shadow: ("output", "error")}.get(type(row), ())
        return row.model_copy(update={name: self._optional_text(getattr(row, name)) for name in names})

    def text(self, text: str) -> str:
        if not _MAY_MATCH.search(text):
            return text
        for start, end, name in reversed(_merged_spans(self._find(text))):
            text = f"{text[:start]}<{name}>{text[end:]}"
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
            return {self.text(name): self._json_value(content) for name, content in value.items()}
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


def _merged_spans(found: Iterable[tuple[int, int, float, str]]) -> list[tuple[int, int, str]]:
    """Merge overlapping spans; the one with the highest score gives the name."""
    spans: list[tuple[int, int, float, str]] = []
    for start, end, score, name in sorted(found):
        if spans and start < spans[-1][1]:
            first, last, best, name_before = spans[-1]
            spans[-1] = (first, max(last, end), max(best, score), name if score > best else name_before)
        else:
            spans.append((start, end, score, name))
    return [(start, end, name) for start, end, _, name in spans]


def require_presidio() -> None:
    """Raises PerpetuneError if Presidio is not installed."""
    if importlib.util.find_spec("presidio_analyzer") is None:
        raise PerpetuneError(
            "log.redact is true, but Presidio is not installed",
            where="params.yaml",
            do="pip install 'perpetune[redact]', or set log.redact: false",
        )


def _finder() -> Find:
    require_presidio()
    from presidio_analyzer import Pattern, PatternRecognizer
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer,
        CryptoRecognizer,
        EmailRecognizer,
        IbanRecognizer,
        IpRecognizer,
        PhoneRecognizer,
        UsSsnRecognizer,
    )

    class AnyEmail(EmailRecognizer):
        """Presidio's recognizer uses tldextract, which may download a list, and ignores internal domains."""

        def validate_result(self, pattern_text: str) -> bool | None:
            return None

    credentials = PatternRecognizer(
        "URL_CREDENTIALS",
        patterns=[Pattern("user:password@", r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)", 1.0)],
    )
    recognizers = [
        AnyEmail(),
        PhoneRecognizer(),
        CreditCardRecognizer(),
        IbanRecognizer(),
        IpRecognizer(),
        UsSsnRecognizer(),
        CryptoRecognizer(),
        credentials,
    ]

    def find(text: str) -> Iterable[tuple[int, int, float, str]]:
        for recognizer in recognizers:
            for result in recognizer.analyze(text, recognizer.supported_entities, None):  # type: ignore[arg-type]  # these need no language model
                if result.score >= _MIN_SCORE:
                    yield result.start, result.end, result.score, result.entity_type

    return find
