"""Manual promotion: make a version champion whatever its verdict was."""

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
    """The result of a manual promotion: the release, the system that serves now, and the decision record."""

    released: DeployResult
    system: str
    decision: Decision


def promote_manually(workspace: Workspace, version: str, reason: str) -> PromotionResult:
    """Make a version of any system champion and wait until the gateway serves it, after its parity check.

    Raises PerpetuneError if there is no such version, it is champion already, its base is not that of params.yaml, or
    the gateway refuses it: the old champion then stays.
    """
    use_mlflow(workspace)
    found = _version(workspace, version)
    system = _require_base(workspace, found)
    champion = registry.find(found.task, "champion")
    _reset_detector(found)
    released = release(workspace, found.version, champion.version if champion else None)
    return PromotionResult(released, system, _record(workspace, found, released, reason))


def emit_events(workspace: Workspace, promoted: PromotionResult, say: Callable[[str], None]) -> None:
    """Emit the events if PREFECT_API_URL is set; if the server does not answer, only a line is printed with `say`."""
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
        say(f"the events were not emitted to Prefect: {fault}")


def _version(workspace: Workspace, version: str) -> Version:
    task = workspace.params.task.name
    found = next((each for each in registry.versions(task) if each.version == version), None)
    if found is None:
        raise PerpetuneError(f"the model {task} has no version {version}", do="\n  ".join(listing(list_versions(task))))
    champion = registry.find(task, "champion")
    if champion is not None and champion.version == version:
        raise PerpetuneError(
            f"version {version} of {task} is already champion", do="\n  ".join(serving_lines(list_versions(task)))
        )
    return found


def _require_base(workspace: Workspace, version: Version) -> str:
    """The system of a version. Raises PerpetuneError if its base is not the workspace's and it needs one."""
    card = registry.fetch_release(version.task, version.version, workspace.home / "releases")
    base = workspace.params.base
    if card.system not in ("linear", "remote") and card.base != base:
        raise PerpetuneError(
            f"version {version.version} was trained on the base {_named(card.base)}, params.yaml has {_named(base)}",
            where="params.yaml: base",
            do=f"set base.model: {card.base.model} and base.revision: {card.base.revision or 'null'}, restart "
            "`perpetune up`, and promote the version again",
        )
    return card.system


def _named(base: BaseParams) -> str:
    return f"{base.model} {base.revision}" if base.revision else base.model


def _reset_detector(version: Version) -> None:
    """Reset the detector of a version that served before: an old alarm would roll it back at the next check."""
    if DETECTOR in version.tags:
        detector_state = reset_detector(from_text(version.tags[DETECTOR]))
        registry.tag_version(version.task, version.version, {DETECTOR: to_text(detector_state)})


def _record(workspace: Workspace, version: Version, released: DeployResult, reason: str) -> Decision:
    evidence = ManualPromotion(
        reason=reason,
        version=version.version,
        previous=released.previous,
        verdict=version.tags.get("decision"),
        seconds=released.seconds if released.served else None,
    )
    ids = ids_of(workspace, version, released.previous)
    decision = record(manual_promotion(evidence), evidence, task=version.task, time=datetime.now(UTC), ids=ids)
    log_later_decision(workspace, decision, version)
    return decision
