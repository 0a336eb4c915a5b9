"""API keys, stored in the prediction log's database and cached by the gateway.

A key is 32 random bytes. It cannot be guessed, so its SHA-256 is stored and no slow hash is needed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from sqlalchemy import Engine, Row, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from perpetune.errors import PerpetuneError
from perpetune.prediction_log.database import error_text
from perpetune.prediction_log.tables import api_keys

logger = logging.getLogger(__name__)

Role = Literal["ask", "feedback", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

_BYTES = 32
_SHORTEST = 32  # characters of a key that was made elsewhere
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TASK = re.compile(r"[a-z][a-z0-9-]{0,62}")  # as in params.yaml


def parse_role(text: str) -> Role:
    """The role of this name. Raises PerpetuneError if there is none."""
    for role in ROLES:
        if role == text:
            return role
    raise PerpetuneError(f"there is no role {text!r}", do=f"choose from {', '.join(ROLES)}")


@dataclass(frozen=True)
class Key:
    """The metadata of a key; the key itself is not stored. `tasks` is empty if it may be used for all."""

    name: str
    roles: tuple[Role, ...]
    created: datetime
    revoked: datetime | None
    tasks: tuple[str, ...] = ()

    def may(self, role: Role) -> bool:
        return role in self.roles or "admin" in self.roles

    def is_for(self, task: str) -> bool:
        return not self.tasks or task in self.tasks


@dataclass(frozen=True)
class Keyring:
    """All keys ever created, with their digests. While there is none, the gateway needs no key."""

    keys: tuple[tuple[str, Key], ...]

    @property
    def open(self) -> bool:
        return not self.keys

    def find(self, secret: str) -> Key | None:
        """The valid key with this secret, or None. Compares with every key in constant time."""
        digest, found = _digest(secret), None
        for known, key in self.keys:
            if hmac.compare_digest(known, digest):
                found = key
        return found if found and not found.revoked else None


def add_key(log: Engine, name: str, roles: Sequence[Role], tasks: Sequence[str] = ()) -> str:
    """Create a key, for these tasks or for all, and return its secret, which cannot be read again.

    Raises PerpetuneError if the name was used before or is invalid.
    """
    secret = f"ppt_{secrets.token_urlsafe(_BYTES)}"
    if not _store(log, name, roles, secret, tasks):
        raise _name_in_use(name)
    return secret


def register_key(log: Engine, name: str, roles: Sequence[Role], secret: str, tasks: Sequence[str] = ()) -> bool:
    """Store a key whose secret was made elsewhere; False if this very key is already there.

    Raises PerpetuneError if the secret is too short to be a random one, the name is invalid, or it names another key or
    a revoked one.
    """
    if len(secret) < _SHORTEST:
        raise PerpetuneError(
            f"a key of {len(secret)} characters can be guessed",
            do=f"use at least {_SHORTEST} random ones, such as `openssl rand -hex 24` prints",
        )
    if _store(log, name, roles, secret, tasks):
        return True
    found = read_keyring(log).find(secret)
    if found is None or found.name != name:
        raise _name_in_use(name)
    return False


def _store(log: Engine, name: str, roles: Sequence[Role], secret: str, tasks: Sequence[str]) -> bool:
    """Store a key; False if the name was used before."""
    if not _NAME.fullmatch(name):
        raise PerpetuneError(
            f"{name!r} is no valid name of a key",
            do="use up to 64 letters, digits, dots, dashes and underscores, beginning with a letter or digit",
        )
    for task in tasks:
        if not _TASK.fullmatch(task):
            raise PerpetuneError(f"{task!r} is no name of a task", do="see task.name in the params.yaml of each task")
    row = {
        "name": name,
        "digest": _digest(secret),
        "roles": sorted(set(roles)),
        "created": datetime.now(UTC),
        "tasks": sorted(set(tasks)) or None,
    }
    try:
        with log.connect().execution_options(writes=True) as connection, connection.begin():
            connection.execute(insert(api_keys).values(row))
    except IntegrityError:
        return False
    except SQLAlchemyError as fault:
        raise PerpetuneError(f"the key could not be stored: {error_text(fault)}") from None
    return True


def _name_in_use(name: str) -> PerpetuneError:
    return PerpetuneError(
        f"there is or was a key named {name}", do="choose another name; `perpetune keys list` shows those in use"
    )


def list_keys(log: Engine) -> tuple[Key, ...]:
    """All keys ever created, oldest first."""
    return tuple(key for _, key in read_keyring(log).keys)


def revoke_key(log: Engine, name: str) -> Key:
    """Revoke a key; a revoked one keeps its time. Raises PerpetuneError if there is no such key."""
    of_name = api_keys.c.name == name
    with log.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(
            update(api_keys).where(of_name, api_keys.c.revoked.is_(None)).values(revoked=datetime.now(UTC))
        )
        row = connection.execute(select(api_keys).where(of_name)).first()
    if row is None:
        raise PerpetuneError(f"there is no key named {name}", do="`perpetune keys list` shows all names")
    return _key(row)


def read_keyring(*logs: Engine) -> Keyring:
    """Read all keys of these logs. Raises SQLAlchemyError."""
    in_order = select(api_keys).order_by(api_keys.c.created, api_keys.c.name)
    keys: list[tuple[str, Key]] = []
    for log in logs:
        with log.connect() as connection:
            keys += [(row.digest, _key(row)) for row in connection.execute(in_order)]
    return Keyring(tuple(keys))


class KeyringCache:
    """The gateway's copy of the keys of these logs, refreshed every `seconds` off the event loop.

    `keyring` is None until the first successful read. If a database is down, the last copy stays valid.
    """

    def __init__(self, *logs: Engine, seconds: float = 2.0) -> None:
        self.keyring: Keyring | None = None
        self._logs = logs
        self._seconds = seconds
        self._error: str | None = None
        self._refresh_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the keys before the first request, and refresh them from then on."""
        await self.refresh()
        self._refresh_task = asyncio.create_task(self._read_forever())

    async def close(self) -> None:
        if self._refresh_task:
            self._refresh_task.cancel()
            await asyncio.wait([self._refresh_task])

    async def refresh(self) -> None:
        try:
            self.keyring = await asyncio.to_thread(read_keyring, *self._logs)
        except SQLAlchemyError as fault:
            self._report(error_text(fault))
        else:
            self._report(None)

    async def _read_forever(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            await self.refresh()

    def _report(self, error: str | None) -> None:
        """Log changes."""
        if error and error != self._error:
            logger.warning("the API keys cannot be read, the known ones stay valid: %s", error)
        elif self._error and not error:
            logger.warning("the API keys can be read again")
        self._error = error


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _key(row: Row[Any]) -> Key:
    return Key(row.name, tuple(row.roles), row.created, row.revoked, tuple(row.tasks or ()))
