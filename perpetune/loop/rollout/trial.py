"""Step 5 with a trial: the challenger gets part of the traffic (canary) or a copy of it (shadow) until a verdict."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from perpetune.errors import PerpetuneError
from perpetune.loop.rollout.deploy import DeployResult, release
from perpetune.loop.rollout.trial_labels import PROPENSITY, TrialLabels, read_evidence
from perpetune.loop.run_context import git_commit, log_later_decision, params_digest, use_mlflow
from perpetune.model.release import Trial
from perpetune.policy.decision.record import Decision, Ids, record
from perpetune.policy.rollout import TrialEvidence, should_release
from perpetune.policy.verdict import Verdict
from perpetune.prediction_log.database import open_log
from perpetune.runtime.gateway_client import NoGateway, gateway_of
from perpetune.tracking import registry
from perpetune.tracking.registry import Version
from perpetune.workspace import Workspace


@dataclass(frozen=True)
class TrialCheck:
    """The result of one check of a trial. `decision` is None while it continues, `released` None unless promoted.

    `asked` counts the labels of disagreements that it asked for.
    """

    version: str
    evidence: TrialEvidence
    verdict: Verdict
    decision: Decision | None = None
    released: DeployResult | None = None
    asked: int = 0


def needs_trial(workspace: Workspace) -> bool:
    """Whether a promoted version goes on trial: `release.strategy` says so, and there is a champion to compare with."""
    if workspace.params.release.strategy == "immediate":
        return False
    return registry.find(workspace.params.task.name, "champion") is not None


def start_trial(workspace: Workspace, version: str, replaces: str | None = registry.ANY) -> Trial:
    """Put the version on trial and have the gateway load it; if no gateway runs, the next one to start loads it.

    `replaces` is the champion that the version was compared with. Raises ChampionChanged if it is not champion now, and
    PerpetuneError if the gateway does not load it: the trial is then over, and the version tagged as refused.
    """
    rules, task = workspace.params.release, workspace.params.task.name
    assert rules.strategy != "immediate"
    if replaces != registry.ANY:
        registry.require_champion(task, version, replaces)
    registry.begin_trial(task, version, rules.strategy, rules.traffic_ratio)
    registry.tag_version(task, version, {PROPENSITY: "0"})  # an earlier trial of the version may have left one
    try:
        state = gateway_of(workspace).check()
    except NoGateway:
        return Trial(version, rules.strategy, rules.traffic_ratio)
    except PerpetuneError as fault:
        raise _refused(task, version, str(fault)) from fault
    if state.trial != version:
        raise _refused(task, version, state.release)
    return Trial(version, rules.strategy, rules.traffic_ratio)


def check_trial(workspace: Workspace, flow_run_id: str) -> TrialCheck | None:
    """Check the running trial and act on the verdict; None if no trial runs.

    The decision record is logged to the run that made the version. Raises PerpetuneError if the gateway refuses a
    promoted version.
    """
    use_mlflow(workspace)
    task = workspace.params.task.name
    trial, champion = registry.wanted(task).trial, registry.find(task, "champion")
    if trial is None or champion is None:
        return None
    challenger = registry.get(task, trial.version)
    found = _read(workspace, challenger, champion, trial)
    evidence, verdict = found.evidence, should_release(found.evidence, workspace.params.release)
    verdict = replace(verdict, reasons=(*verdict.reasons, *found.unasked.sentences()))
    if verdict.outcome == "continue":
        return TrialCheck(trial.version, evidence, verdict, asked=found.asked)
    if registry.wanted(task).trial != trial:  # a gateway or a user ended it meanwhile
        return None
    decision = _record(workspace, challenger, champion, evidence, verdict, flow_run_id)
    if verdict.outcome == "promote":
        return TrialCheck(
            trial.version, evidence, verdict, decision, release(workspace, trial.version, champion.version)
        )
    registry.end_trial(task, trial.version, "aborted")
    registry.tag_version(task, champion.version, {"answers": f"{challenger.run_id}/champion"})
    _reload_gateway(workspace)
    return TrialCheck(trial.version, evidence, verdict, decision)


def _read(workspace: Workspace, challenger: Version, champion: Version, trial: Trial) -> TrialLabels:
    log = open_log(workspace.settings.prediction_log)
    try:
        return read_evidence(workspace, log, challenger, champion, trial)
    finally:
        log.dispose()


def _record(
    workspace: Workspace,
    challenger: Version,
    champion: Version,
    evidence: TrialEvidence,
    verdict: Verdict,
    flow_run_id: str,
) -> Decision:
    ids = Ids(
        run_id=challenger.run_id,
        model_version=challenger.version,
        champion_version=champion.version,
        data_version=challenger.tags.get("data.version"),
        git_commit=git_commit(workspace.root),
        base_digest=challenger.tags.get("base.digest"),
        adapter_digest=challenger.tags.get("adapter.digest"),
        prefect_flow_run_id=flow_run_id,
        params_sha256=params_digest(workspace),
    )
    decision = record(verdict, evidence, task=challenger.task, time=datetime.now(UTC), ids=ids)
    log_later_decision(workspace, decision, challenger)
    return decision


def _refused(task: str, version: str, reason: str) -> PerpetuneError:
    now = registry.wanted(task).trial
    if now is not None and now.version == version:
        registry.end_trial(task, version, "refused")
    registry.tag_version(task, version, {"release.reason": reason})
    return PerpetuneError(
        f"the gateway cannot serve version {version} on trial: {reason}",
        do="the champion still serves; see the gateway's log",
    )


def _reload_gateway(workspace: Workspace) -> None:
    """Have the gateway end the trial now rather than when it next polls the registry."""
    try:
        gateway_of(workspace).check()
    except (NoGateway, PerpetuneError):
        pass
