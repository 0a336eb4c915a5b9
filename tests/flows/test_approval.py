"""The approval of a promotion through a real Prefect server, logged to a real MLflow store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from mlflow.tracking import MlflowClient
from prefect.client.orchestration import SyncPrefectClient
from waiting import eventually
from workspaces import write_params

from perpetune.explain.status import decisions_of
from perpetune.policy.decision.record import Decision, Ids, record
from perpetune.policy.promotion import PairedEvidence, PromotionEvidence
from perpetune.policy.verdict import Interval, Verdict
from perpetune.runtime.events import PROMOTED, REFRESHED, REJECTED, WAITING
from perpetune.runtime.processes import Supervisor, free_ports
from perpetune.runtime.stack import Ports, environment, servers
from perpetune.tracking import registry
from perpetune.tracking.runs import close_run, connect, open_run
from perpetune.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

# A refresh that has just decided to promote.
REFRESH = """
from pathlib import Path
from prefect import flow
from perpetune.flows.approval import approve
from perpetune.policy.decision.record import Decision
from perpetune.loop.run_context import use_mlflow
from perpetune.workspace import open_workspace

@flow(name="refresh", log_prints=True)
def refresh() -> str:
    workspace = open_workspace()
    use_mlflow(workspace)
    return approve(workspace, Decision.from_json(Path("promotion.json").read_text())).outcome

print("OUTCOME", refresh())
"""


@pytest.fixture(scope="module")
def workspace(
    tmp_path_factory: pytest.TempPathFactory, new_mlflow_store: Callable[[Path], str], seed_servers: Callable[..., None]
) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PREFECT_API_URL", "PERPETUNE_GATEWAY_URL", "PERPETUNE_DATABASE_URL", "PERPETUNE_HOME"):
            patch.delenv(name, raising=False)
        patch.setenv("MLFLOW_TRACKING_URI", new_mlflow_store(folder))
        opened = with_hours(folder, 1.0)
        ports = Ports(*free_ports(4))
        for name, value in environment(opened, ports).items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        connect(os.environ["MLFLOW_TRACKING_URI"])
        MlflowClient().create_experiment("colours", artifact_location=str(folder / "artifacts"))
        MlflowClient().create_registered_model("colours")
        seed_servers(opened, "prefect")
        with Supervisor(folder, opened.home / "logs", {}, print) as supervisor:
            supervisor.start(servers(opened, ports))
            yield opened


def with_hours(folder: Path, hours: float) -> Workspace:
    write_params(folder, task={"name": "colours"}, promote={"approval": "required", "approval_hours": hours})
    return open_workspace(folder)


def promoted(workspace: Workspace) -> str:
    """A new version that the gate has promoted, with its decision record."""
    run = open_run("colours", "refresh", {"perpetune.kind": "refresh"}, {})
    version = str(MlflowClient().create_model_version("colours", f"runs:/{run.id}/model", run.id).version)
    evidence = PromotionEvidence(PairedEvidence(0.2, Interval(0.1, 0.3), 0.001, 100), None, "base")
    decision = record(
        Verdict("promote", ("It is better.",), "Promote what is better."),
        evidence,
        task="colours",
        time=datetime.now(UTC),
        ids=Ids(run_id=run.id, model_version=version),
    )
    MlflowClient().log_text(run.id, decision.to_json(), "decision.json")
    close_run(run, succeeded=True)
    (workspace.root / "promotion.json").write_text(decision.to_json())
    return version


def begin(workspace: Workspace) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", REFRESH], cwd=workspace.root, stdout=subprocess.PIPE, text=True)


def outcome(child: subprocess.Popen[str]) -> str:
    said, _ = child.communicate(timeout=240)
    assert child.returncode == 0
    return said.rpartition("OUTCOME ")[2].strip()


def ask(method: str, path: str, body: object = None) -> Any:
    answer = httpx.request(method, f"{os.environ['PREFECT_API_URL']}{path}", json=body, timeout=30)
    answer.raise_for_status()
    return answer.json()


def runs(name: str, state: str) -> list[Any]:
    flow = {"name": {"any_": [name]}}
    return list(ask("POST", "/flow_runs/filter", {"flows": flow, "flow_runs": {"state": {"type": {"any_": [state]}}}}))


def payloads(event: str, version: str) -> list[dict[str, Any]]:
    found = ask("POST", "/events/filter", {"filter": {"event": {"name": [event]}}})["events"]
    return [each["payload"] for each in found if each["payload"]["version"] == version]


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_a_version_waits_for_approval_and_has_the_response_in_its_tags(workspace: Workspace) -> None:
    version = promoted(workspace)
    child = begin(workspace)
    [waiting] = eventually(lambda: runs("approval", "PAUSED"), 240)
    assert waiting["name"] == f"approve version {version}?"
    assert len(runs("refresh", "RUNNING")) == 1, "it keeps its concurrency slot meanwhile"
    assert registry.get("colours", version).tags["approval"] == "waiting"
    [told] = eventually(lambda: payloads(WAITING, version), 60)
    assert told["flow_run_id"] == waiting["id"]

    with SyncPrefectClient(os.environ["PREFECT_API_URL"]) as client:
        without_comment = client.resume_flow_run(UUID(waiting["id"]), {"approve": True, "who": "Ada", "comment": ""})
        assert without_comment.status == "REJECT"
        said = {"approve": True, "who": "Ada", "comment": "reads well"}
        assert client.resume_flow_run(UUID(waiting["id"]), said).status == "ACCEPT"
    assert outcome(child) == "promote"

    tags = registry.get("colours", version).tags
    assert (tags["approval"], tags["approval.by"], tags["approval.comment"]) == ("approved", "Ada", "reads well")
    approval, promotion = decisions_of(workspace, version)
    assert (approval.kind, approval.outcome, promotion.kind) == ("approval", "promote", "promotion")
    assert approval.time.isoformat() == tags["approval.time"]
    assert "Ada" in approval.reason and "reads well" in approval.reason
    assert eventually(lambda: payloads(PROMOTED, version), 60)


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_without_a_response_the_version_is_rejected(workspace: Workspace) -> None:
    version = promoted(workspace)
    child = begin(with_hours(workspace.root, 0.001))
    assert outcome(child) == "reject"
    assert registry.get("colours", version).tags["approval"] == "timed out"
    assert decisions_of(workspace, version)[0].reason == f"Version {version} was not approved within 0.001 hours."
    assert eventually(lambda: payloads(REJECTED, version), 60)
    assert eventually(lambda: runs("approval", "FAILED"), 60)
    assert not runs("refresh", "FAILED"), "a no is a result of the refresh, and no failure"


# The refresh itself, in a workspace without data: it would fail if it went on to train. It may be killed at an alias.
KILLED = """
import os, signal, sys
from mlflow.tracking import MlflowClient
from perpetune.flows.refresh import refresh

if "killed" in sys.argv:
    MlflowClient.set_registered_model_alias = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
print("OUTCOME", refresh(reason="a test"))
"""


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_the_next_refresh_carries_out_what_a_killed_one_had_decided(workspace: Workspace) -> None:
    write_params(workspace.root, task={"name": "colours"}, promote={"approval": "none"})
    version = promoted(workspace)
    run = registry.get("colours", version).run_id
    MlflowClient().update_run(run, status="RUNNING")  # killed after its decision
    MlflowClient().set_tag(run, "decision", "promote")
    before = registry.find("colours", "champion")
    decided = Decision.from_json((workspace.root / "promotion.json").read_text())
    ids = decided.ids.model_copy(update={"champion_version": before.version if before else None})
    MlflowClient().log_text(run, decided.model_copy(update={"ids": ids}).to_json(), "decision.json")

    command = [sys.executable, "-c", KILLED]
    child = subprocess.run([*command, "killed"], cwd=workspace.root, capture_output=True, text=True, timeout=240)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert MlflowClient().get_run(run).info.status == "RUNNING"
    assert MlflowClient().get_registered_model("colours").aliases.get("champion") != int(version)
    child = subprocess.run(command, cwd=workspace.root, capture_output=True, text=True, timeout=240)
    assert "OUTCOME promote" in child.stdout, child.stdout + child.stderr
    champion = registry.find("colours", "champion")
    assert champion is not None and champion.version == version
    assert (champion.tags["decision"], champion.tags["release.state"]) == ("promote", "released")
    assert MlflowClient().get_run(run).info.status == "FINISHED"
    [told] = eventually(lambda: payloads(REFRESHED, version), 60)
    assert told["outcome"] == "promote"
