"""Replacing personal data by its type before a row is stored: `write to <EMAIL_ADDRESS>`.

What to replace is found by pattern and checksum, without a language model and without a network: see `perpetune.redacting`.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
import os
import secrets
from pathlib import Path
from typing import TypeVar

from perpetune.errors import PerpetuneError
from perpetune.records import Failure, Feedback, Prediction, Shadow
from perpetune.redacting.personal_data import personal_data_finder
from perpetune.redacting.replacer import Replacer, patterns_finder

Row = TypeVar("Row", Prediction, Feedback, Shadow, Failure)


class Redactor:
    """Replaces e-mail addresses, phone, card, bank account and social security numbers, IP addresses, wallets,
    credentials in URLs, and secrets such as API keys. `key` is the secret of the keyed hash that replaces users. Raises PerpetuneError if Presidio is
    not installed.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        require_presidio()
        self._replacer = Replacer(patterns_finder(personal_data_finder()), lambda name, _: f"<{name}>")

    def row(self, row: Row) -> Row:
        """The row without personal data."""
        if isinstance(row, Prediction):
            return row.model_copy(
                update={
                    "messages": tuple(map(self._replacer.message, row.messages)),
                    "input": self.text(row.input),
                    "output": self._replacer.written(row.output),
                    "group": self._hash(row.group),
                    "client_id": self._own_id(row.client_id),
                    "other_outputs": tuple(map(self._replacer.written, row.other_outputs)),
                }
            )
        if isinstance(row, Feedback):
            row = row.model_copy(update={"request_id": self._own_id(row.request_id)})
        names = {Feedback: ("label", "comment"), Shadow: ("output", "error")}.get(type(row), ())
        return row.model_copy(update={name: self._replacer.optional_text(getattr(row, name)) for name in names})

    def text(self, text: str) -> str:
        """The text with `<NAME>` in place of what is found, in any of Unicode's forms of it."""
        return self._replacer.text(text)

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


def require_presidio() -> None:
    """Raises PerpetuneError if Presidio is not installed."""
    if importlib.util.find_spec("presidio_analyzer") is None:
        raise PerpetuneError(
            "log.redact is true, but Presidio is not installed",
            where="params.yaml",
            do="pip install 'perpetune[redact]', or set log.redact: false",
        )
