"""Moves of the aliases that are safe at every point: the intent is written first, and whoever comes next completes it.

A move (a promotion, a rollback, a refusal) changes several aliases and tags, and MLflow has no transaction over them.
So one tag of the registered model first says where every alias goes; from that write on the move holds, and readers see
it as done. The other writes repeat what the tag says, in any number of processes and as often as need be; the tag is
removed last. See docs/decisions/0020-a-move-of-the-aliases-is-written-down-first.md.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from pydantic import TypeAdapter, ValidationError

from perpetune.errors import PerpetuneError

logger = logging.getLogger(__name__)

MOVE = "perpetune.move"  # tag of the registered model while a move is under way
NOT_FOUND = "RESOURCE_DOES_NOT_EXIST"
_TRIES = 50  # of a move that meets another process's move, and of a write that meets another process's write
# What MLflow's database says if a row came (SQLite, PostgreSQL) or went (SQLAlchemy) meanwhile.
_CONFLICTS = ("unique constraint", "expected to update 1 row(s); 0 were matched")

Aliases = Mapping[str, str]
"""The version of each alias."""


@dataclass(frozen=True)
class Change:
    """Where aliases go (None: the alias is removed), and tags by version that belong to the move."""

    aliases: Mapping[str, str | None]
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Move:
    """A change that is under way; `before` are the aliases that it changes, as they were."""

    id: str
    before: Mapping[str, str | None]
    change: Change


@dataclass(frozen=True)
class _Model:
    """A registered model as MLflow has it: its aliases, the move under way, and when it was registered (ms)."""

    aliases: Aliases
    move: Move | None
    created: int


_JSON = TypeAdapter(Move)


def aliases_of_model(task: str) -> dict[str, str]:
    """The version of each alias, in one request; a move under way counts as done."""
    return _after(_read(task))


def registered_at(task: str) -> int:
    """When the model was registered, in Unix milliseconds; 0 if it is not. A model made again has another time."""
    return _read(task).created


def state_of_model(task: str) -> tuple[dict[str, str], int]:
    """`aliases_of_model` and `registered_at` in one request. It completes a move that another process has left."""
    model = _read(task)
    if model.move is not None:
        _complete(task, model)
    return _after(model), model.created


def move(task: str, plan: Callable[[Aliases], Change | None]) -> dict[str, str]:
    """Plan a change from the aliases as they are and carry it out; returns the aliases from before.

    `plan` may raise, and returns None if there is nothing to move. It is called again if another process moves aliases at
    the same time. A process that is killed after the first write has made the move all the same: see
    `complete_move`.
    """
    for _ in range(_TRIES):
        complete_move(task)
        before = _read(task)
        change = plan(before.aliases)
        if change is None:
            return dict(before.aliases)
        moved = {alias: before.aliases.get(alias) for alias in change.aliases}
        mine = Move(uuid.uuid4().hex, moved, change)
        write(MlflowClient().set_registered_model_tag, task, MOVE, _JSON.dump_json(mine).decode())
        now = _read(task)
        if now.move == mine and _matches(now.aliases, moved):
            _carry_out(task, mine)
            return dict(before.aliases)
        if now.move == mine:  # planned from aliases that another process was still moving
            MlflowClient().delete_registered_model_tag(task, MOVE)
        time.sleep(random.uniform(0.005, 0.05))
    raise PerpetuneError(
        f"the aliases of {task} are being moved by other processes all the time", do="end them, and try again"
    )


def complete_move(task: str) -> bool:
    """Complete a move that a killed process has left; returns whether there was one."""
    if not is_moving(task):
        return False
    model = _read(task)
    return model.move is not None and _complete(task, model)


def is_moving(task: str) -> bool:
    """Whether a move is under way. It takes as long however many versions there are, of which `_read` makes MLflow read all."""
    return bool(MlflowClient().search_registered_models(f"name = '{task}' and tags.`{MOVE}` != ''", max_results=1))


def _complete(task: str, model: _Model) -> bool:
    assert model.move is not None
    if not _belongs(model.aliases, model.move):
        logger.warning("an unfinished move of %s is dropped: somebody has moved the aliases since", task)
        MlflowClient().delete_registered_model_tag(task, MOVE)
        return False
    try:
        _carry_out(task, model.move)
    except MlflowException as fault:
        if fault.error_code != NOT_FOUND:
            raise
        logger.warning("an unfinished move of %s is dropped: a version of it was deleted", task)
        MlflowClient().delete_registered_model_tag(task, MOVE)
    return True


def _carry_out(task: str, under_way: Move) -> None:
    """The writes of a move, in which another process may have been faster; the tag goes last."""
    for step in _writes(task, under_way):
        if _read(task).move != under_way:  # completed by another process
            return
        step()
    MlflowClient().delete_registered_model_tag(task, MOVE)


def _writes(task: str, under_way: Move) -> Iterator[Callable[[], None]]:
    client = MlflowClient()
    for version, tags in under_way.change.tags.items():
        for key, value in tags.items():
            yield partial(write, client.set_model_version_tag, task, version, key, value)
    for alias, version_wanted in under_way.change.aliases.items():
        if version_wanted is None:
            yield partial(client.delete_registered_model_alias, task, alias)
        else:
            yield partial(write, client.set_registered_model_alias, task, alias, version_wanted)


def _read(task: str) -> _Model:
    try:
        found = MlflowClient().get_registered_model(task)
    except MlflowException as fault:
        if fault.error_code == NOT_FOUND:
            return _Model({}, None, 0)
        raise
    aliases = {alias: str(version) for alias, version in found.aliases.items()}  # a local store has them as numbers
    return _Model(aliases, _move_in(found.tags.get(MOVE)), int(found.creation_timestamp or 0))


def _move_in(text: str | None) -> Move | None:
    try:
        return _JSON.validate_json(text) if text else None
    except ValidationError:  # of another release
        return None


def _after(model: _Model) -> dict[str, str]:
    if model.move is None or not _belongs(model.aliases, model.move):
        return dict(model.aliases)
    found = {**model.aliases, **model.move.change.aliases}
    return {alias: version for alias, version in found.items() if version is not None}


def _belongs(aliases: Aliases, under_way: Move) -> bool:
    """Whether every alias is where it was before the move or where the move puts it."""
    wanted = under_way.change.aliases
    return all(aliases.get(alias) in (old, wanted[alias]) for alias, old in under_way.before.items())


def _matches(aliases: Aliases, expected: Mapping[str, str | None]) -> bool:
    return all(aliases.get(alias) == version for alias, version in expected.items())


def write(call: Callable[..., object], *values: str) -> None:
    """Write an alias or a tag; again if another process created or removed it between MLflow's read and its write."""
    for tries_left in reversed(range(_TRIES)):
        try:
            call(*values)
            return
        except MlflowException as fault:
            said = str(fault).lower()
            if not tries_left or not any(conflict in said for conflict in _CONFLICTS):
                raise
