"""A refresh that is killed at any write after its training: the next one ends it without training again."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kills import killed_at
from mlflow.tracking import MlflowClient
from workspaces import write_params

from perpetune.audit.store import entries
from perpetune.errors import ChampionChanged
from perpetune.evaluation.evaluate import Evaluation, evaluate
from perpetune.explain.status import decisions_of, read_status
from perpetune.generation.answer import Answer
from perpetune.loop.approve import APPROVED, REFUSED, WAITING, ApprovalResponse, record_response
from perpetune.loop.assess.assess import Assessment
from perpetune.loop.audited import record_digest
from perpetune.loop.decide import decide
from perpetune.loop.planning.unfinished import repeat_tags, unfinished_refresh, withdraw, withdrawn_if_champion_changed
from perpetune.loop.rollout.deploy import release
from perpetune.loop.run_context import open_loop_run
from perpetune.params import load_params
from perpetune.policy.decision.record import Decision
from perpetune.prediction_log.database import open_log
from perpetune.records import Example
from perpetune.tracking import registry
from perpetune.tracking.runs import Run, active, close_run, connect, open_run
from perpetune.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow

EVALUATE = load_params(Path(__file__).parents[4] / "params.yaml").evaluate
MISSED = set(range(30))
numbers = itertools.count()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, new_mlflow_store: Callable[[Path], str]) -> str:
    return new_mlflow_store(tmp_path_factory.mktemp("refreshes"))


@pytest.fixture
def open_task(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Workspace]:
    """Open a workspace of a new task whose version 1 is champion."""
    for name in ("PREFECT_API_URL", "PERPETUNE_GATEWAY_URL", "PERPETUNE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("PERPETUNE_DATABASE_URL", f"sqlite:///{tmp_path / 'predictions.db'}")
    connect(store)

    def begin() -> Workspace:
        task = f"task-{next(numbers)}"
        client = MlflowClient()
        client.create_experiment(task, artifact_location=str(tmp_path / "artifacts"))
        client.create_registered_model(task)
        folder = tmp_path / task
        folder.mkdir()
        write_params(folder, task={"name": task}, promote={"min_rows": 20})
        run = open_run(task, "first", {}, {})
        client.create_model_version(task, "nowhere", run.id)
        registry.promote(task, "1")
        return open_workspace(folder)

    return begin


def evaluation(source: str, wrong: dict[str, set[int]]) -> Evaluation:
    """Sixty rows; each system is right but on the rows named."""
    rows = [
        Example(input=f"row {n}", output="good", id=f"{source}-{n}", group=str(n), source=source) for n in range(60)
    ]
    answers = {
        system: [Answer("bad" if n in missed else "good", None, None, 9, 1, "stop", 0.1) for n in range(60)]
        for system, missed in wrong.items()
    }
    return evaluate(rows, answers, [], "classification", EVALUATE)


def champion(workspace: Workspace) -> str:
    found = registry.find(workspace.params.task.name, "champion")
    assert found is not None
    return found.version


def audited(workspace: Workspace) -> list[str]:
    """The digests of the decision records in the audit log, of the workspace's task."""
    log = open_log(workspace.settings.prediction_log)
    try:
        found = [each.event for each in entries(log)]
    finally:
        log.dispose()
    task = workspace.params.task.name
    return [each.details["record"] for each in found if each.subject == f"{task} version 2"]


class Process:
    """The steps of a refresh after its training, in the order of flows/refresh.py. `evaluated` counts evaluations."""

    def __init__(self, workspace: Workspace, *, better: bool = True) -> None:
        self.workspace, self.better, self.trained, self.evaluated = workspace, better, set[str](), 0

    def refresh(self) -> str:
        """What the flow does; a run that was not begun before has to train."""
        found = unfinished_refresh(self.workspace)
        if found is not None and found.changed is not None:
            withdraw(found.decision)
        elif found is not None:
            repeat_tags(found)
            if found.outcome == "promote" and not found.settled:
                self._release(found.decision)
            close_run(found.run, succeeded=True)
            return found.outcome
        run = open_loop_run(self.workspace, "refresh", "manual", "a test", "flow-run", "data 1")
        self.trained.add(run.id)
        decision = self._decide(run, self._version(run))
        if decision.outcome == "promote":
            self._release(decision)
        close_run(run, succeeded=True)
        return decision.outcome

    def _release(self, decision: Decision) -> None:
        with withdrawn_if_champion_changed(decision):
            release(self.workspace, str(decision.ids.model_version), decision.ids.champion_version)

    def _version(self, run: Run) -> str:
        task = self.workspace.params.task.name
        made = registry.version_from_run(task, run, "f00d")
        if made is None:  # tests/perpetune/tracking/test_registry.py registers one with files
            made = str(MlflowClient().create_model_version(task, "nowhere", run.id, {"adapter.digest": "f00d"}).version)
        return made

    def _decide(self, run: Run, version: str) -> Decision:
        self.evaluated += 1
        wrong = {"champion": MISSED, "challenger": set[int]()}
        if not self.better:
            wrong = {"champion": set[int](), "challenger": MISSED}
        found = Assessment({name: evaluation(name, wrong) for name in ("frozen", "recent")}, champion(self.workspace))
        challenger: Any = SimpleNamespace(
            card=SimpleNamespace(task=self.workspace.params.task.name, base_digest="b"),
            trained=SimpleNamespace(digest="f00d"),
        )
        data: Any = SimpleNamespace(version="data 1")
        return decide(self.workspace, run, data, challenger, found, version, "flow-run")


@pytest.mark.parametrize("better", [True, False])
def test_the_next_refresh_ends_it_wherever_it_was_killed(open_task: Callable[[], Workspace], better: bool) -> None:
    for number in itertools.count():
        workspace = open_task()
        task = workspace.params.task.name
        process = Process(workspace, better=better)
        with killed_at(number) as made:
            process.refresh()
        if "set_terminated" in made:
            assert number > 8
            break
        if not process.trained and not made:
            continue  # killed before it began its run
        status = read_status(workspace)
        if status.unfinished:
            assert "`perpetune refresh` carries it out" in status.unfinished
        outcome = process.refresh()
        where = f"killed after {made}"
        assert outcome == ("promote" if better else "reject"), where
        assert champion(workspace) == ("2" if better else "1"), where
        assert len(process.trained) <= 1, f"{where}: it began another run, and so trained again"
        assert len(registry.versions(task)) == 2, where
        tags = registry.get(task, "2").tags
        assert (tags["decision"], bool(tags["decision.line"])) == (outcome, True), where
        assert decisions_of(workspace, "2")[0].outcome == outcome
        if better:
            previous = registry.find(task, "previous")
            assert previous is not None and previous.version == "1", where
            assert tags["release.state"] == "released", where
        else:
            assert registry.get(task, "1").tags["answers"].endswith("/champion"), where
        assert unfinished_refresh(workspace) is None, where
        assert audited(workspace) == [record_digest(decisions_of(workspace, "2")[0])], f"{where}: decided once"


def test_a_decision_against_an_older_champion_is_made_again_without_training(
    open_task: Callable[[], Workspace],
) -> None:
    workspace = open_task()
    task, process = workspace.params.task.name, Process(workspace)
    run = open_loop_run(workspace, "refresh", "manual", "a test", "flow-run", "data 1")
    decision = process._decide(run, process._version(run))
    assert decision.outcome == "promote"
    other = MlflowClient().create_model_version(task, "nowhere", registry.get(task, "1").run_id)
    registry.promote(task, str(other.version))  # while the release was due
    found = unfinished_refresh(workspace)
    assert found is not None and "meanwhile version 3 serves" in str(found.changed)
    with pytest.raises(ChampionChanged):
        process._release(decision)
    assert champion(workspace) == "3"
    assert "decision" not in registry.get(task, "2").tags
    assert process.refresh() == "promote"
    assert (process.trained, process.evaluated, champion(workspace)) == ({run.id}, 2, "2")
    assert registry.get(task, "2").tags["decision"] == "promote"


def test_a_champion_that_changes_during_the_evaluation_is_noticed_before_the_decision(
    open_task: Callable[[], Workspace],
) -> None:
    workspace = open_task()
    task, process = workspace.params.task.name, Process(workspace)
    run = open_loop_run(workspace, "refresh", "manual", "a test", "flow-run", "data 1")
    version = process._version(run)
    challenger: Any = SimpleNamespace(
        card=SimpleNamespace(task=task, base_digest="b"), trained=SimpleNamespace(digest="f00d")
    )
    data: Any = SimpleNamespace(version="data 1")
    stale = Assessment({"frozen": evaluation("files", {"champion": MISSED, "challenger": set()})}, "7")
    with pytest.raises(ChampionChanged, match="compared with version 7, and meanwhile version 1 serves"):
        decide(workspace, run, data, challenger, stale, version, "flow-run")
    close_run(run, succeeded=False)
    assert process.refresh() == "promote"
    assert process.trained == {run.id}


@pytest.mark.parametrize(
    ("approval", "outcome", "approved"),
    [(WAITING, "promote", False), (APPROVED, "promote", True), (REFUSED, "reject", False)],
)
def test_what_a_person_said_is_kept(
    open_task: Callable[[], Workspace], approval: str, outcome: str, approved: bool
) -> None:
    workspace = open_task()
    process = Process(workspace)
    run = open_loop_run(workspace, "refresh", "manual", "a test", "flow-run", "data 1")
    process._decide(run, process._version(run))
    registry.tag_version(workspace.params.task.name, "2", {"approval": approval})
    found = unfinished_refresh(workspace)
    assert found is not None and (found.outcome, found.approved) == (outcome, approved)


def test_an_answer_that_was_cut_off_is_recorded_once_and_stands(open_task: Callable[[], Workspace]) -> None:
    """Also if the next process has another answer, such as that the time is over."""
    first, second = ApprovalResponse(False, "Ada", "it is rude"), None
    for number in itertools.count():
        workspace = open_task()
        process = Process(workspace)
        run = open_loop_run(workspace, "refresh", "manual", "a test", "flow-run", "data 1")
        promotion = process._decide(run, process._version(run))
        with killed_at(number) as made:
            record_response(workspace, promotion, first)
        where = f"killed after {made}"
        is_recorded = len(decisions_of(workspace, "2")) == 2
        decision = record_response(workspace, promotion, second if is_recorded else first)
        tags = registry.get(workspace.params.task.name, "2").tags
        assert (tags["approval"], tags["approval.by"]) == ("refused", "Ada (claimed)"), where
        assert audited(workspace) == [record_digest(promotion), record_digest(decision)], where
        assert len([each for each in decisions_of(workspace, "2") if each.kind == "approval"]) == 1, where
        if len(made) < number:
            break
    assert number > 5


def test_a_version_that_the_gateway_refused_is_not_tried_again(open_task: Callable[[], Workspace]) -> None:
    workspace = open_task()
    process = Process(workspace)
    run = open_loop_run(workspace, "refresh", "manual", "a test", "flow-run", "data 1")
    process._decide(run, process._version(run))
    registry.refuse(workspace.params.task.name, "2", "1", "it does not load")
    close_run(run, succeeded=False)
    assert unfinished_refresh(workspace) is None


def test_a_version_on_trial_is_settled(open_task: Callable[[], Workspace]) -> None:
    workspace = open_task()
    process = Process(workspace)
    run = open_loop_run(workspace, "refresh", "manual", "a test", "flow-run", "data 1")
    process._decide(run, process._version(run))
    registry.begin_trial(workspace.params.task.name, "2", "canary", 0.1)
    found = unfinished_refresh(workspace)
    assert found is not None and found.settled
    assert read_status(workspace).unfinished is None


def test_a_run_that_mlflow_finished_too_early_is_resumed(open_task: Callable[[], Workspace]) -> None:
    """MLflow ends its active run; a process killed before it reopens the run has not decided."""
    workspace = open_task()
    run = open_loop_run(workspace, "refresh", "manual", "a test", "flow-run", "data 1")
    with active(run):
        pass
    assert MlflowClient().get_run(run.id).info.status == "RUNNING"
    for number in range(1, 9):
        with killed_at(number) as made, active(run):
            pass
        if made[-1] == "set_terminated":
            break
    assert MlflowClient().get_run(run.id).info.status == "FINISHED"
    assert open_loop_run(workspace, "refresh", "manual", "again", "another", "data 1").id == run.id
    close_run(run, succeeded=True)
    assert open_loop_run(workspace, "refresh", "manual", "again", "a third", "data 1").id != run.id
