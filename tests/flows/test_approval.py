"""The approval of a promotion through a real Prefect server, logged to a real MLflow store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest
from command_line import perpetune
from flows_here import send_what_is_left
from mlflow.tracking import MlflowClient
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Cancelling, Crashed
from waiting import eventually
from workspaces import write_params

from perpetune.audit.store import entries
from perpetune.explain.status import decisions_of
from perpetune.flows.deployments import deployments
from perpetune.flows.refresh import refresh as refresh_flow
from perpetune.flows.release import put_into_service, settle_approvals
from perpetune.loop.approve import ApprovalResponse, record_response
from perpetune.loop.run_context import use_mlflow
from perpetune.policy.decision.record import Decision, Ids, record
from perpetune.policy.promotion.evidence import PairedEvidence, PromotionEvidence
from perpetune.policy.verdict import Interval, Verdict
from perpetune.prediction_log.database import open_log
from perpetune.runtime.events import PROMOTED, REFRESHED, REJECTED, WAITING
from perpetune.runtime.processes.supervisor import Supervisor, answers, free_ports
from perpetune.runtime.stack import Ports, environment, servers, worker
from perpetune.tracking import registry
from perpetune.tracking.runs import close_run, connect, open_run
from perpetune.workspace import Workspace, open_workspace

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@flow(name="refresh", log_prints=True)
def refresh() -> str:
    """A refresh that has just decided to promote."""
    workspace = open_workspace()
    use_mlflow(workspace)
    decision = Decision.from_json(Path("promotion.json").read_text())
    return put_into_service(workspace, decision, {}).outcome


@flow(name="watch", log_prints=True)
def watch() -> None:
    """What checks and refreshes do first."""
    settle_approvals(open_workspace())


# The same refresh in a process of its own.
REFRESH = "import runpy, sys; print('OUTCOME', runpy.run_path(sys.argv[1])['refresh']())"


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
        patch.setenv("PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS", "5")
        patch.setenv("PREFECT_RUNNER_POLL_FREQUENCY", "2")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
        connect(os.environ["MLFLOW_TRACKING_URI"])
        MlflowClient().create_experiment("colours", artifact_location=str(folder / "artifacts"))
        MlflowClient().create_registered_model("colours")
        seed_servers(opened, "prefect")
        with Supervisor(folder, opened.home / "logs", {}, print) as supervisor:
            supervisor.start(servers(opened, ports))
            with inside(opened):
                for deployment in deployments(opened.params):
                    deployment.apply()
            yield opened
            send_what_is_left()


@pytest.fixture(scope="module")
def running_worker(workspace: Workspace) -> Iterator[None]:
    """A worker for the rest of this file."""
    [port] = free_ports(1)
    with Supervisor(
        workspace.root, workspace.home / "logs", {"PREFECT_RUNNER_SERVER_PORT": str(port)}, print
    ) as supervisor:
        supervisor.start([worker(port)])
        yield


@contextmanager
def inside(workspace: Workspace) -> Iterator[None]:
    """A flow that is called in the block runs in the workspace, for this Prefect server."""
    with chdir(workspace.root), temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}):
        yield


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
        ids=Ids(run_id=run.id, model_version=version, champion_version=champion(workspace)),
    )
    MlflowClient().log_text(run.id, decision.to_json(), "decision.json")
    close_run(run, succeeded=True)
    (workspace.root / "promotion.json").write_text(decision.to_json())
    return version


def refreshed(workspace: Workspace) -> str:
    with inside(workspace):
        return refresh()


def refreshed_elsewhere(workspace: Workspace) -> str:
    """The same in a process that has ended."""
    command = [sys.executable, "-c", REFRESH, __file__]
    done = subprocess.run(command, cwd=workspace.root, stdout=subprocess.PIPE, text=True, timeout=240, check=True)
    return done.stdout.rpartition("OUTCOME ")[2].strip()


def settle(workspace: Workspace) -> None:
    with inside(workspace):
        watch()


# A client reads the certificates of all authorities when it is made, which takes longer than a request.
CLIENT = httpx.Client(timeout=30)


def ask(method: str, path: str, body: object = None) -> Any:
    answer = CLIENT.request(method, f"{os.environ['PREFECT_API_URL']}{path}", json=body)
    answer.raise_for_status()
    return answer.json()


def runs(name: str, *states: str) -> list[Any]:
    flow = {"name": {"any_": [name]}}
    return list(ask("POST", "/flow_runs/filter", {"flows": flow, "flow_runs": {"state": {"type": {"any_": states}}}}))


def payloads(event: str, version: str) -> list[dict[str, Any]]:
    found = ask("POST", "/events/filter", {"filter": {"event": {"name": [event]}}})["events"]
    return [each["payload"] for each in found if each["payload"]["version"] == version]


def asked(workspace: Workspace, refresh: Callable[[Workspace], str] = refreshed) -> tuple[str, Any]:
    """A promoted version, and the suspended run that waits for its approval. The refresh has ended."""
    version = promoted(workspace)
    assert refresh(workspace) == "waiting"
    # On a busy machine a short time is over before this looks.
    [waiting] = [run for run in runs("approval", "PAUSED", "FAILED") if run["parameters"]["version"] == version]
    return version, waiting


def flow_processes() -> list[str]:
    """The processes of this test that are neither Prefect's server nor its watchdog."""
    found = [" ".join(each.cmdline()) for each in psutil.Process().children(recursive=True)]
    kept = ("perpetune.flows.server", "perpetune.runtime.processes.watchdog", "resource_tracker")
    return [line for line in found if line and not any(name in line for name in kept)]


def restart_the_server() -> None:
    """End it as `kill` does; the supervisor starts it again."""
    port = str(httpx.URL(os.environ["PREFECT_API_URL"]).port)
    [server] = [each for each in psutil.Process().children() if {"perpetune.flows.server", port} <= {*each.cmdline()}]
    server.terminate()
    server.wait(60)
    eventually(lambda: answers(f"{os.environ['PREFECT_API_URL']}/health"), 120)


def champion(workspace: Workspace) -> str | None:
    found = registry.find("colours", "champion")
    return found.version if found else None


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_an_approved_version_whose_process_was_killed_is_released_by_the_next_check(workspace: Workspace) -> None:
    with_hours(workspace.root, 1.0)
    version = promoted(workspace)
    long_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    registry.tag_version("colours", version, {"approval.time": long_ago, "approval": "approved"})
    settle(workspace)
    assert champion(workspace) == version


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_the_next_check_carries_out_an_answer_whose_run_was_killed_and_gives_up_what_has_no_record(
    workspace: Workspace,
) -> None:
    lost = open_run("colours", "refresh", {"perpetune.kind": "refresh"}, {})
    unrecorded = str(MlflowClient().create_model_version("colours", "nowhere", lost.id).version)
    long_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    registry.tag_version("colours", unrecorded, {"approval.until": long_ago, "approval": "waiting"})
    version, waiting = asked(with_hours(workspace.root, 1.0))
    with SyncPrefectClient(os.environ["PREFECT_API_URL"]) as client:
        said = {"approve": False, "who": "Ada", "comment": "it is rude"}
        assert client.resume_flow_run(UUID(waiting["id"]), said).status == "ACCEPT"
        client.set_flow_run_state(UUID(waiting["id"]), Crashed(message="killed"), force=True)
    settle(workspace)
    tags = registry.get("colours", version).tags
    assert (tags["approval"], tags["approval.by"]) == ("refused", "Ada (claimed)")
    assert registry.get("colours", unrecorded).tags["approval"] == "without record"
    settle(workspace)


def answered(version_asked: tuple[str, Any], *, approve: bool) -> tuple[str, UUID]:
    """The version, and its run, which no worker has started since it was resumed."""
    version, waiting = version_asked
    said = {"approve": approve, "who": "Ada", "comment": "reads well"}
    with SyncPrefectClient(os.environ["PREFECT_API_URL"]) as client:
        assert client.resume_flow_run(UUID(waiting["id"]), said).status == "ACCEPT"
    return version, UUID(waiting["id"])


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_what_a_person_cancels_is_recorded_as_cancelled_and_not_carried_out(workspace: Workspace) -> None:
    """Without an answer, with one, and after it was recorded. A run that an automation ends is no person's word."""
    before = champion(with_hours(workspace.root, 1.0))
    unanswered, waiting = asked(workspace)
    approved, approved_run = answered(asked(workspace), approve=True)
    recorded, recorded_run = answered(asked(workspace), approve=True)
    promotion = Decision.from_json((workspace.root / "promotion.json").read_text())
    assert record_response(workspace, promotion, ApprovalResponse(True, "Ada", "reads well")).outcome == "promote"
    hung, hung_run = answered(asked(workspace), approve=False)
    with SyncPrefectClient(os.environ["PREFECT_API_URL"]) as client:
        for run in (UUID(waiting["id"]), approved_run):
            client.set_flow_run_state(run, Cancelled(), force=True)
        client.set_flow_run_state(recorded_run, Cancelling(), force=True)
        client.set_flow_run_state(hung_run, Cancelling(message="Cancelled by Automation 1"), force=True)
        client.set_flow_run_state(hung_run, Cancelled(), force=True)
    settle(workspace)
    found = {version: registry.get("colours", version).tags for version in (unanswered, approved, recorded, hung)}
    assert [tags["approval"] for tags in found.values()] == ["cancelled", "cancelled", "cancelled", "refused"]
    assert champion(workspace) == before
    assert decisions_of(workspace, unanswered)[0].reason.endswith("was cancelled before anybody answered.")
    assert "Ada (claimed) approved" in decisions_of(workspace, recorded)[0].reason
    assert eventually(lambda: len(payloads(REJECTED, approved)), 60) == 1
    settle(workspace)
    assert len(decisions_of(workspace, approved)) == 2, "the promotion, and that its approval was cancelled"


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_two_that_settle_at_the_same_moment_settle_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    version, _ = asked(with_hours(workspace.root, 0.001))
    time.sleep(4)
    monkeypatch.chdir(workspace.root)
    log_text, both = MlflowClient.log_text, Barrier(2)

    def slowly(*given: Any) -> None:
        time.sleep(2)
        log_text(*given)

    def settle_here() -> None:
        with temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}):
            both.wait()
            settle_approvals(open_workspace())

    monkeypatch.setattr(MlflowClient, "log_text", slowly)
    with ThreadPoolExecutor(2) as pool:
        for settled in [pool.submit(settle_here) for _ in range(2)]:
            settled.result()
    assert registry.get("colours", version).tags["approval"] == "timed out"
    assert [each.kind for each in decisions_of(workspace, version)] == ["approval", "promotion"]
    assert len(eventually(lambda: payloads(REJECTED, version), 60)) == 1


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_no_process_waits_and_a_worker_of_later_carries_the_answer_out(
    workspace: Workspace, request: pytest.FixtureRequest
) -> None:
    """Resumed as Prefect's UI does it, after the process that asked and the worker of that time have ended."""
    before = champion(workspace)
    version, waiting = asked(with_hours(workspace.root, 1.0), refreshed_elsewhere)
    assert (waiting["name"], waiting["state"]["name"]) == (f"approve version {version}?", "Suspended")
    assert not runs("refresh", "RUNNING") and not runs("approval", "RUNNING")
    assert flow_processes() == []
    tags = registry.get("colours", version).tags
    assert (tags["approval"], tags["approval.flow_run"]) == ("waiting", waiting["id"])
    assert champion(workspace) == before
    [told] = eventually(lambda: payloads(WAITING, version), 60)
    assert told["flow_run_id"] == waiting["id"]

    with SyncPrefectClient(os.environ["PREFECT_API_URL"]) as client:
        without_comment = client.resume_flow_run(UUID(waiting["id"]), {"approve": True, "who": "Ada", "comment": ""})
        assert without_comment.status == "REJECT"
        said = {"approve": True, "who": "Ada", "comment": "reads well"}
        assert client.resume_flow_run(UUID(waiting["id"]), said).status == "ACCEPT"
    assert champion(workspace) == before, "no worker runs"
    restart_the_server()
    request.getfixturevalue("running_worker")
    eventually(lambda: champion(workspace) == version, 240)
    assert eventually(lambda: [run for run in runs("approval", "COMPLETED") if run["id"] == waiting["id"]], 60)

    tags = registry.get("colours", version).tags
    assert (tags["approval"], tags["approval.by"], tags["approval.comment"]) == (
        "approved",
        "Ada (claimed)",
        "reads well",
    )
    approval, promotion = decisions_of(workspace, version)
    assert (approval.kind, approval.outcome, promotion.kind) == ("approval", "promote", "promotion")
    assert approval.time.isoformat() == tags["approval.time"]
    assert "Ada" in approval.reason and "reads well" in approval.reason
    assert eventually(lambda: payloads(PROMOTED, version), 60)


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_the_command_refuses_and_says_what_waits_no_more(workspace: Workspace, running_worker: None) -> None:
    before = champion(workspace)
    version, _ = asked(with_hours(workspace.root, 1.0))
    said = perpetune(workspace.root, "approve", version, "--refuse", "--by", "Ada", "--comment", "it is rude")
    assert said.exit_code == 0, said.stderr
    assert f"Ada (claimed) refused version {version}" in said.stdout.replace("\n", " ") or "refused" in said.stdout
    again = perpetune(workspace.root, "approve", version, "--by", "Ada", "--comment", "after all")
    assert again.exit_code == 1
    assert f"version {version} does not wait for approval: its approval is refused by Ada (claimed)" in again.stderr
    assert registry.get("colours", version).tags["approval"] == "refused"
    assert champion(workspace) == before
    assert eventually(lambda: payloads(REJECTED, version), 60)


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_an_identity_that_the_gateway_authenticated_is_told_from_one_that_was_typed(
    workspace: Workspace, running_worker: None, tiny_folder: Path
) -> None:
    """Through the real gateway, behind a proxy that names its user, and the real flow."""
    ada = "user ada@example.org"
    write_params(
        workspace.root,
        task={"name": "colours"},
        base={"model": f"path:{tiny_folder}", "revision": None},
        promote={"approval": "required", "approval_hours": 1.0},
        serve={"trusted_proxies": ["127.0.0.1"], "identity_header": "X-Auth-Request-Email"},
    )
    added = perpetune(workspace.root, "keys", "add", "boss", "--role", "admin")
    key = {"authorization": f"Bearer {added.stdout.strip()}"}
    first, _ = asked(workspace)
    with served(workspace) as url:
        # The gateway has made a first version champion meanwhile, so that an approval would be overtaken.
        answer = {"approve": False, "comment": "read 50 answers"}
        path = f"{url}/v1/approvals/{first}"
        assert httpx.post(path, json=answer).status_code == 401
        proxied = httpx.post(path, json=answer, headers=key | {"x-auth-request-email": "ada@example.org"}, timeout=60)
        assert (proxied.status_code, proxied.json()["by"]) == (200, ada), proxied.text
        eventually(lambda: registry.get("colours", first).tags["approval"] == "refused", 240)
        second, _ = asked(workspace)
        typed = perpetune(workspace.root, "approve", second, "--refuse", "--by", ada, "--comment", "it is rude")
        assert typed.exit_code == 0, typed.stderr
    by = {version: registry.get("colours", version).tags["approval.by"] for version in (first, second)}
    assert by == {first: ada, second: f"{ada} (claimed)"}
    log = open_log(open_workspace(workspace.root).settings.prediction_log)
    actors = {entry.event.actor for entry in entries(log) if entry.event.subject == f"colours version {first}"}
    log.dispose()
    assert ada in actors
    assert decisions_of(workspace, second)[0].reason == f"{ada} (claimed) refused version {second}: it is rude"
    assert perpetune(workspace.root, "audit", "verify").exit_code == 0


@contextmanager
def served(workspace: Workspace) -> Iterator[str]:
    """A gateway of the workspace while the block runs; yields its address."""
    [port] = free_ports(1)
    command = [sys.executable, "-m", "perpetune.gateway", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, cwd=workspace.root) as process:
        try:
            eventually(lambda: answers(f"http://127.0.0.1:{port}/healthz") or process.poll() is not None, 300)
            assert process.poll() is None, "it has ended"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_without_a_response_the_version_is_rejected(workspace: Workspace, running_worker: None) -> None:
    before = champion(workspace)
    version, waiting = asked(with_hours(workspace.root, 0.001))
    time.sleep(4)
    settle(workspace)
    assert registry.get("colours", version).tags["approval"] == "timed out"
    assert decisions_of(workspace, version)[0].reason == f"Version {version} was not approved within 0.001 hours."
    assert eventually(lambda: payloads(REJECTED, version), 60)
    late = perpetune(workspace.root, "approve", version, "--by", "Ada", "--comment", "late")
    assert "does not wait for approval: its approval is timed out" in late.stderr
    assert eventually(lambda: [run for run in runs("approval", "FAILED") if run["id"] == waiting["id"]], 90)
    assert champion(workspace) == before


# The refresh itself, in a workspace without data: it would fail if it went on to train. It is killed at an alias.
KILLED = """
import os, signal, sys
from mlflow.tracking import MlflowClient
from perpetune.flows.refresh import refresh

def kill(*_):
    print("TORCH", "torch" in sys.modules, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

MlflowClient.set_registered_model_alias = kill
refresh(reason="a test")
"""


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_the_next_refresh_carries_out_what_a_killed_one_had_decided(workspace: Workspace) -> None:
    write_params(workspace.root, task={"name": "colours"}, promote={"approval": "none"})
    version = promoted(workspace)
    run = registry.get("colours", version).run_id
    MlflowClient().update_run(run, status="RUNNING")  # killed after its decision
    MlflowClient().set_tag(run, "decision", "promote")

    command = [sys.executable, "-c", KILLED]
    child = subprocess.run(command, cwd=workspace.root, capture_output=True, text=True, timeout=240)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert "TORCH False" in child.stderr, "what trains is not loaded until something is trained"
    assert MlflowClient().get_run(run).info.status == "RUNNING"
    assert MlflowClient().get_registered_model("colours").aliases.get("champion") != int(version)
    with inside(workspace):
        assert refresh_flow(reason="a test") == "promote"
    champion = registry.find("colours", "champion")
    assert champion is not None and champion.version == version
    assert (champion.tags["decision"], champion.tags["release.state"]) == ("promote", "released")
    assert MlflowClient().get_run(run).info.status == "FINISHED"
    [told] = eventually(lambda: payloads(REFRESHED, version), 60)
    assert told["outcome"] == "promote"
