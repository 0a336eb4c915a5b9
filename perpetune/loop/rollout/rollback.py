"""Going back to the previous champion: at once where a gateway runs, then written down."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from perpetune.errors import NoPrevious, PerpetuneError
from perpetune.loop.rollout.versions import list_versions, serving_lines
from perpetune.loop.run_context import ids_of, log_later_decision, use_mlflow
from perpetune.policy.decision.record import Decision, record
from perpetune.policy.rollout import ManualRollback, manual_rollback
from perpetune.runtime.events import ROLLED_BACK
from perpetune.runtime.gateway_client import NoGateway, RollbackReply, gateway_of
from perpetune.runtime.prefect_api import Prefect
from perpetune.tracking import registry
from perpetune.workspace import Workspace


def roll_back(workspace: Workspace, reason: str) -> RollbackReply:
    """Through the gateway, which answers with the previous champion when this returns, or in the registry alone.

    Raises PerpetuneError where there is no previous champion or the gateway cannot go back.
    """
    try:
        return gateway_of(workspace).roll_back(reason)
    except NoGateway:
        return move_aliases(workspace)


def move_aliases(workspace: Workspace) -> RollbackReply:
    """In the registry, where no gateway runs. Raises PerpetuneError where there is no previous champion."""
    use_mlflow(workspace)
    try:
        rolled_back, restored = registry.roll_back(workspace.params.task.name)
    except NoPrevious as fault:
        raise with_choices(workspace, fault) from None
    return RollbackReply(rolled_back, restored, None)


def with_choices(workspace: Workspace, fault: NoPrevious) -> PerpetuneError:
    """The same, with what serves and what could: there is a way on, if not back."""
    use_mlflow(workspace)
    return PerpetuneError(
        fault.what, where=fault.where, do="\n  ".join(serving_lines(list_versions(workspace.params.task.name)))
    )


def record_rollback(workspace: Workspace, went: RollbackReply, reason: str) -> Decision:
    """The record of what a person decided, with the run that made the version which gave way."""
    use_mlflow(workspace)
    version = registry.get(workspace.params.task.name, went.rolled_back)
    evidence = ManualRollback(reason, went.rolled_back, went.restored, went.seconds)
    ids = ids_of(workspace, version, went.restored)
    decision = record(manual_rollback(evidence), evidence, task=version.task, time=datetime.now(UTC), ids=ids)
    log_rollback(decision, went)
    return decision


def log_rollback(decision: Decision, went: RollbackReply) -> None:
    """Where `perpetune explain` and `perpetune status` find it."""
    version = registry.get(decision.task, went.rolled_back)
    log_later_decision(decision, version)
    registry.tag_version(decision.task, went.rolled_back, {"release.state": "rolled back"})


def emit_event(workspace: Workspace, went: RollbackReply, reason: str, say: Callable[[str], None]) -> None:
    """Emit the event where a Prefect server is known; one that is down is said and does not undo what was done."""
    url = workspace.settings.prefect_api_url
    if url is None:
        return
    payload = {"version": went.rolled_back, "restored": went.restored, "reason": reason}
    try:
        Prefect(url).emit(ROLLED_BACK, workspace.params.task.name, payload)
    except PerpetuneError as fault:
        say(f"Prefect was not told: {fault}")
