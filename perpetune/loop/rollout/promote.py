"""A person's word: this version is to serve, whatever was decided on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from perpetune.errors import PerpetuneError
from perpetune.loop.rollout.deploy import DeployResult, release
from perpetune.loop.rollout.versions import list_versions, listing, serving_lines
from perpetune.loop.run_context import ids_of, log_later_decision, use_mlflow
from perpetune.monitoring.detector_state import DETECTOR, from_text, reset_detector, to_text
from perpetune.params import BaseParams
from perpetune.policy.decision.record import Decision, record
from perpetune.policy.rollout import ManualPromotion, manual_promotion
from perpetune.runtime.events import DEPLOYED, PROMOTED
from perpetune.runtime.prefect_api import Prefect
from perpetune.tracking import registry
from perpetune.tracking.registry import Version
from perpetune.workspace import Workspace


@dataclass(frozen=True)
class PromotionResult:
    """What became of a person's word, the system that answers now, and the record of it."""

    released: DeployResult
    system: str
    decision: Decision


def promote_manually(workspace: Workspace, version: str, reason: str) -> PromotionResult:
    """Make a version of any system champion and wait until the gateway answers with it, parity checked.

    Raises PerpetuneError where there is no such version, it is champion already, it belongs to another base than
    params.yaml names, or the gateway refuses it: the old champion then serves on.
    """
    use_mlflow(workspace)
    found = _version(workspace, version)
    system = _require_base(workspace, found)
    _forget_alarm(found)
    released = release(workspace, found.version)
    return PromotionResult(released, system, _write_down(workspace, found, released, reason))


def emit_events(workspace: Workspace, promoted: PromotionResult, say: Callable[[str], None]) -> None:
    """Emit the events where a Prefect server is known; one that is down is said and does not undo what was done."""
    url = workspace.settings.prefect_api_url
    if url is None:
        return
    released, decision = promoted.released, promoted.decision
    try:
        payload = {"version": released.version, "outcome": decision.outcome, "reason": decision.reason}
        Prefect(url).emit(PROMOTED, decision.task, payload)
        if released.served:
            Prefect(url).emit(DEPLOYED, decision.task, {"version": released.version, "previous": released.previous})
    except PerpetuneError as fault:
        say(f"Prefect was not told: {fault}")


def _version(workspace: Workspace, version: str) -> Version:
    task = workspace.params.task.name
    found = next((each for each in registry.versions(task) if each.version == version), None)
    if found is None:
        raise PerpetuneError(f"the model {task} has no version {version}", do="\n  ".join(listing(list_versions(task))))
    champion = registry.find(task, "champion")
    if champion is not None and champion.version == version:
        raise PerpetuneError(
            f"version {version} of {task} is champion already", do="\n  ".join(serving_lines(list_versions(task)))
        )
    return found


def _require_base(workspace: Workspace, version: Version) -> str:
    """The system of a version that this workspace's gateway can load. A linear or remote model needs no base."""
    card = registry.fetch_release(version.task, version.version, workspace.home / "releases")
    base = workspace.params.base
    if card.system not in ("linear", "remote") and card.base != base:
        raise PerpetuneError(
            f"version {version.version} answers with the base {_named(card.base)}, and params.yaml names {_named(base)}",
            where="params.yaml: base",
            do=f"set base.model: {card.base.model} and base.revision: {card.base.revision or 'null'}, restart "
            "`perpetune up`, and promote it again",
        )
    return card.system


def _named(base: BaseParams) -> str:
    return f"{base.model} {base.revision}" if base.revision else base.model


def _forget_alarm(version: Version) -> None:
    """One that served before and was found decayed would be rolled back at the next check, against a person's word."""
    if DETECTOR in version.tags:
        detector_state = reset_detector(from_text(version.tags[DETECTOR], 0.0))
        registry.tag_version(version.task, version.version, {DETECTOR: to_text(detector_state)})


def _write_down(workspace: Workspace, version: Version, released: DeployResult, reason: str) -> Decision:
    evidence = ManualPromotion(
        reason=reason,
        version=version.version,
        previous=released.previous,
        verdict=version.tags.get("decision"),
        seconds=released.seconds if released.served else None,
    )
    ids = ids_of(workspace, version, released.previous)
    decision = record(manual_promotion(evidence), evidence, task=version.task, time=datetime.now(UTC), ids=ids)
    log_later_decision(decision, version)
    return decision
