"""A refresh that was killed between its decision and its end: the next one carries the decision out, without training.

The decision record and the run's tag `decision` are written before anything that they decide, so that they are the
intent; every write after them can be repeated. See docs/decisions/0020-a-move-of-the-aliases-is-written-down-first.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from perpetune.errors import ChampionChanged, NoDecision
from perpetune.loop.approve import APPROVED, ENDED
from perpetune.loop.audited import is_audited, record_digest
from perpetune.loop.run_context import RECORD, tag_decision, use_mlflow
from perpetune.policy.decision.headline import headline
from perpetune.policy.decision.record import Decision
from perpetune.policy.promotion.costs import cost_table
from perpetune.policy.verdict import Outcome
from perpetune.tracking import registry
from perpetune.tracking.runs import Run, UnfinishedRun, artifact, drop_run_tag, find_run, newest_of_any_status, tag
from perpetune.workspace import Workspace

WITHDRAWN = "decision.withdrawn"  # tag of a run: the digest of the decision record that does not hold any more


@dataclass(frozen=True)
class UnfinishedRefresh:
    """A killed refresh and its decision. `outcome` is the person's, if the promotion was approved or refused.

    `approved`: a person has approved the promotion. `settled`: it is carried out, and only the run is not closed.
    `changed`: why the decision no longer holds, if another version has become champion.
    """

    run: Run
    decision: Decision
    outcome: Outcome
    approved: bool = False
    settled: bool = False
    changed: str | None = None


def unfinished_refresh(workspace: Workspace) -> UnfinishedRefresh | None:
    """The newest refresh of the task, if it has decided and not ended; None too if a gateway refused what it released.

    Only one refresh runs at a time, so at the start of another its process was killed; to anyone else it may be running.
    """
    use_mlflow(workspace)
    newest = newest_of_any_status(workspace.params.task.name, "refresh")
    decision = None if newest is None or newest.finished else _decision_of(workspace, newest)
    if newest is None or decision is None:
        return None
    version = registry.get(decision.task, str(decision.ids.model_version))
    approval, state = version.tags.get("approval"), version.tags.get(registry.STATE)
    champion = registry.find(decision.task, "champion")
    serving = champion.version if champion else None
    if state == "refused":
        return None
    outcome: Outcome = "reject" if approval in ENDED else decision.outcome
    settled = state is not None and serving != version.version  # on trial, or replaced since
    changed = None
    if outcome == "promote" and not settled and serving not in (decision.ids.champion_version, version.version):
        fault = registry.champion_changed(decision.task, version.version, decision.ids.champion_version, serving)
        changed = str(fault)
    return UnfinishedRefresh(newest.run, decision, outcome, approval == APPROVED, settled, changed)


def _decision_of(workspace: Workspace, unfinished: UnfinishedRun) -> Decision | None:
    """What the run has decided; None if it has not. Raises NoDecision if it is tagged so and has no record."""
    path = artifact(unfinished.run.id, RECORD, workspace.run_folder(unfinished.run.id))
    tagged = "decision" in unfinished.tags
    if path is None and tagged:
        raise NoDecision(f"the run {unfinished.run.id} is decided and has no decision record", do="delete it in MLflow")
    if path is None:
        return None
    decision = Decision.from_json(path.read_text(encoding="utf-8"))
    if tagged:
        return decision
    # Killed between the audit log and the tag it is decided; between the record and the audit log it is not.
    withdrawn = unfinished.tags.get(WITHDRAWN) == record_digest(decision)
    return decision if not withdrawn and is_audited(workspace, decision) else None


def repeat_tags(found: UnfinishedRefresh) -> None:
    """Write the tags of the decision again, of which a killed process may have written a part."""
    tag_decision(found.run, found.decision)
    tag_versions(found.decision)


def tag_versions(decision: Decision) -> None:
    """Tag the versions that a decision of a refresh is about; may be repeated, and changes no later decision."""
    ids, task = decision.ids, decision.task
    run, chosen = find_run(str(ids.run_id)), str(ids.model_version)
    tuned = registry.version_from_run(task, run, ids.adapter_digest) if ids.adapter_digest else None
    if tuned not in (None, chosen):
        _tag_version(decision, str(tuned), f"gave way to version {chosen} ({decision.system})")
    if decision.outcome != "promote" and ids.champion_version is not None:
        # This run evaluated the champion on the newest reference rows, which the monitor compares with.
        registry.tag_version(task, ids.champion_version, {"answers": f"{ids.run_id}/champion"})
    _tag_version(decision, chosen, decision.outcome)


def _tag_version(decision: Decision, version: str, outcome: str) -> None:
    """The tag `decision` comes last: a version that has it has the others."""
    if "decision" in registry.get(decision.task, version).tags:
        return
    line = headline(decision) if outcome == decision.outcome else outcome
    costs = cost_table(decision.evidence.get("answer_costs", {}))
    described = "\n\n".join(filter(None, (f"{outcome}: {' '.join(decision.reasons)}", costs)))
    registry.describe_version(decision.task, version, described)
    tags = {"decision.reason": decision.reason, "decision.line": line, "decision": outcome}
    registry.tag_version(decision.task, version, tags)


@contextmanager
def withdrawn_if_champion_changed(decision: Decision) -> Iterator[None]:
    """Withdraw the decision, and raise, if carrying it out raises ChampionChanged."""
    try:
        yield
    except ChampionChanged:
        withdraw(decision)
        raise


def withdraw(decision: Decision) -> None:
    """Take a decision back that was made against another champion: the next refresh evaluates the version again.

    The run's tag goes last: a process that is killed before that repeats all of it.
    """
    ids = decision.ids
    run = find_run(str(ids.run_id))
    tuned = registry.version_from_run(decision.task, run, ids.adapter_digest) if ids.adapter_digest else None
    for version in {ids.model_version, tuned} - {None}:
        registry.drop_tag(decision.task, str(version), "decision")
    tag(run, {WITHDRAWN: record_digest(decision)})
    drop_run_tag(run, "decision")
