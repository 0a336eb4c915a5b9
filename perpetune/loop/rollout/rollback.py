"""Rollback to the previous champion, through the gateway or in the registry, and its decision record."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from perpetune.errors import ChampionChanged, NoPrevious, PerpetuneError
from perpetune.loop.rollout.versions import list_versions, serving_lines
from perpetune.loop.run_context import ids_of, log_later_decision, use_mlflow
from perpetune.policy.decision.record import Decision, record
from perpetune.policy.rollout import ManualRollback, manual_rollback
from perpetune.runtime.events import ROLLED_BACK
from perpetune.runtime.gateway_client import NoGateway, RollbackReply, gateway_of
from perpetune.runtime.prefect_api import Prefect
from perpetune.tracking import registry
from perpetune.workspace import Workspace


def roll_back(workspace: Workspace, reason: str, rolled_back: str | None = None) -> RollbackReply:
    """Roll back through the gateway, which then serves the previous champion, or in the registry if none runs.

    `rolled_back` is the version that the decision is about (None: whichever is champion). Raises ChampionChanged if
    another one is champion now, and PerpetuneError if there is no previous champion or the gateway cannot load it.
    """
    if rolled_back is not None:
        _require_champion(workspace, rolled_back)
    try:
        return gateway_of(workspace).roll_back(reason)
    except NoGateway:
        return move_aliases(workspace)


def _require_champion(workspace: Workspace, version: str) -> None:
    use_mlflow(workspace)
    task = workspace.params.task.name
    champion = registry.find(task, "champion")
    if champion is None or champion.version != version:
        raise ChampionChanged(
            f"version {version} of {task} was to be rolled back, and meanwhile it is not champion any more",
            do="`perpetune watch` checks the version that serves now",
        )


def move_aliases(workspace: Workspace) -> RollbackReply:
    """Roll back in the registry only. Raises PerpetuneError if there is no previous champion."""
    use_mlflow(workspace)
    try:
        rolled_back, restored = registry.roll_back(workspace.params.task.name)
    except NoPrevious as fault:
        raise with_choices(workspace, fault) from None
    return RollbackReply(rolled_back, restored, None)


def with_choices(workspace: Workspace, fault: NoPrevious) -> PerpetuneError:
    """The same error with the versions that serve and that could be promoted."""
    use_mlflow(workspace)
    return PerpetuneError(
        fault.what, where=fault.where, do="\n  ".join(serving_lines(list_versions(workspace.params.task.name)))
    )


def record_rollback(workspace: Workspace, done: RollbackReply, reason: str) -> Decision:
    """Log the decision record of a manual rollback to the run of the version rolled back."""
    use_mlflow(workspace)
    version = registry.get(workspace.params.task.name, done.rolled_back)
    evidence = ManualRollback(reason, done.rolled_back, done.restored, done.seconds)
    ids = ids_of(workspace, version, done.restored)
    decision = record(manual_rollback(evidence), evidence, task=version.task, time=datetime.now(UTC), ids=ids)
    log_rollback(workspace, decision, done)
    return decision


def log_rollback(workspace: Workspace, decision: Decision, done: RollbackReply) -> None:
    """Log the decision to the run and the tags of the version rolled back."""
    version = registry.get(decision.task, done.rolled_back)
    log_later_decision(workspace, decision, version)
    registry.tag_version(decision.task, done.rolled_back, {"release.state": "rolled back"})


def emit_event(workspace: Workspace, done: RollbackReply, reason: str, say: Callable[[str], None]) -> None:
    """Emit the event if PREFECT_API_URL is set; if the server does not answer, only a line is printed with `say`."""
    url = workspace.settings.prefect_api_url
    if url is None:
        return
    payload = {"version": done.rolled_back, "restored": done.restored, "reason": reason}
    try:
        Prefect(url).emit(ROLLED_BACK, workspace.params.task.name, payload)
    except PerpetuneError as fault:
        say(f"the event was not emitted to Prefect: {fault}")
