"""The refresh flow: from new data to a served version."""

from __future__ import annotations

from typing import Literal

from prefect import flow
from prefect.runtime import flow_run

from perpetune.policy.unchanged import Trigger
from perpetune.policy.wording import one_line
from perpetune.runtime.events import REFRESHED, UNCHANGED
from perpetune.workspace import open_workspace

Until = Literal["curate", "train"]


def run_name() -> str:
    return f"refresh ({flow_run.parameters['trigger']})"


@flow(name="refresh", flow_run_name=run_name, log_prints=True)
def refresh(
    trigger: Trigger = "manual",
    reason: str = "started manually",
    again: bool = False,
    verbose: bool = False,
    until: Until | None = None,
    goes_on: str | None = None,
) -> str:
    """Curate, fine-tune, evaluate, decide and, if the challenger passes the gate, release it or put it on trial.

    Returns the outcome: "promote", "reject", "collect more labels" or, if a person has to approve the version, "waiting";
    or "unchanged" if it ended before training because data and settings are those of the last refresh. While a version
    waits for approval, another refresh does nothing. `again` skips these tests; `verbose` logs every reason
    too (perpetune.tasks.verdict reads it from the run). If the last refresh was killed after its decision, that is
    carried out first; so is a decision on the last challenger whose labels of disagreements have come. After a promotion
    nothing else is done, unless `again`.

    `until` ends it after that step, as "curated" or "trained", with its MLflow run open to the flow run that goes on; that
    one gets the id of this flow run as `goes_on`, so that it keeps the data (perpetune.flows.remote_refresh).
    """
    # Imported late: a worker, which only starts runs, does not need torch, MLflow and Evidently.
    from perpetune.flows.release import decide_on_disagreements, finish, put_into_service, settle_approvals
    from perpetune.loop.approve import waiting_version
    from perpetune.loop.planning.step_durations import CURATE, DECIDE, EVALUATE, TRAIN, timed
    from perpetune.tasks.events import emit
    from perpetune.tasks.refresh.curate import curate, log_data, nothing_new

    workspace = open_workspace()
    print(one_line(f"reason: {reason}"))
    finished = finish(workspace)
    settle_approvals(workspace)
    if finished is not None and finished.ends_refresh and not again:
        version, outcome = finished.decision.ids.model_version, finished.outcome
        emit(REFRESHED, workspace.params.task.name, {"version": version, "outcome": outcome, "trigger": trigger})
        return outcome
    if not again and (waiting := waiting_version(workspace)) is not None:
        print(
            f"version {waiting.version} waits for approval, so nothing is trained: `perpetune approve {waiting.version}`"
        )
        reason = f"version {waiting.version} waits for approval"
        emit(UNCHANGED, workspace.params.task.name, {"reason": reason, "trigger": trigger})
        return "waiting"
    if not again and (decided := decide_on_disagreements(workspace)) is not None and decided.ends_refresh:
        return decided.outcome
    taken: dict[str, float] = {}
    with timed(taken, CURATE):
        curated = curate(workspace, goes_on)
    if not again and (why := nothing_new(workspace, curated, trigger)):
        emit(UNCHANGED, workspace.params.task.name, {"reason": why, "trigger": trigger})
        return "unchanged"
    if until == "curate":
        return "curated"
    # Here begins what computes: a refresh that has ended above loads no model library.
    from perpetune.tasks.refresh.answer_traffic import answer_traffic
    from perpetune.tasks.refresh.assess import assess
    from perpetune.tasks.refresh.decide import decide, register
    from perpetune.tasks.refresh.fine_tune import fine_tune
    from perpetune.tasks.refresh.plan import compare, plan
    from perpetune.tasks.refresh.track import tracked

    with tracked(workspace, "refresh", trigger, reason, curated.version, ends=until is None) as run:
        log_data(workspace, run, curated)
        planned = plan(workspace, run, curated)
        with timed(taken, TRAIN):
            challenger = fine_tune(workspace, run, planned)
        if until == "train":
            return "trained"
        version = register(workspace, run, curated, challenger)
        with timed(taken, EVALUATE):
            assessment = assess(workspace, run, challenger, version)
            traffic = answer_traffic(workspace, run, challenger, version, assessment)
        with timed(taken, DECIDE):
            decision = decide(workspace, run, curated, challenger, assessment, version, traffic)
        version = decision.ids.model_version or version
        outcome = put_into_service(workspace, decision, taken).outcome
    if goes_on is None:
        compare(workspace, planned, taken, challenger)
    emit(REFRESHED, workspace.params.task.name, {"version": version, "outcome": outcome, "trigger": trigger})
    return outcome
