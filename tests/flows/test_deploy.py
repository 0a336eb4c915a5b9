"""`python -m perpetune.flows deploy` against a real Prefect server: the same deployments, in the work pool of docs/guides/gpus.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.tracking import MlflowClient
from prefect.settings import PREFECT_API_URL, temporary_settings
from waiting import eventually
from workspaces import write_params

from perpetune.flows.remote_training.prefect_pool import PrefectPool
from perpetune.runtime.events import ROLLED_BACK, TRIAL
from perpetune.runtime.prefect_api import Prefect
from perpetune.runtime.processes.supervisor import Supervisor, free_ports
from perpetune.runtime.stack import Ports, environment, servers, worker
from perpetune.tracking import registry
from perpetune.tracking.runs import close_run, connect, open_run
from perpetune.workspace import open_workspace

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
POOL = ROOT / "deploy" / "kubernetes" / "work-pool.json"
IMAGE = "registry.example/perpetune:1"
# Modules of a team's own, with names that perpetune imports. All that follows works beside them.
# A workspace may also be a checkout of perpetune, whose code is not the installed one.
NAMESAKES = ("flows.py", "tasks.py", "mlflow/__init__.py", "dvc/__init__.py", "prefect.py", "perpetune/__init__.py")
FLOWS = ("refresh", "watch", "trial", "approval", "retention")


@pytest.fixture(scope="module")
def workspace(
    tmp_path_factory: pytest.TempPathFactory, seed_servers: Callable[..., None]
) -> Iterator[tuple[Path, Supervisor, Ports]]:
    """A workspace with a Prefect server of its own, and its environment."""
    folder = tmp_path_factory.mktemp("workspace")
    write_params(folder, task={"name": "colours"})
    for name in NAMESAKES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"raise RuntimeError('{name} of the workspace was imported')\n")
    ports = Ports(*free_ports(4))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PREFECT_API_URL", raising=False)
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        opened = open_workspace(folder)
        for name, value in environment(opened, ports).items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
        seed_servers(opened, "prefect")
        with Supervisor(folder, opened.home / "logs", {}, print) as supervisor:
            supervisor.start(servers(opened, ports))
            create_pool("gpu", "kubernetes", json.loads(POOL.read_text()))
            yield folder, supervisor, ports


def python(*arguments: str, folder: Path | None = None) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def create_pool(name: str, type: str, template: dict[str, Any] | None = None) -> None:
    """As `prefect work-pool create` does."""
    ask("POST", "/work_pools/", {"name": name, "type": type, "base_job_template": template or {}})


# A client reads the certificates of all authorities when it is made, which takes longer than a request.
CLIENT = httpx.Client(timeout=30)


def ask(method: str, path: str, body: object = None) -> Any:
    for _ in range(20):
        answer = CLIENT.request(method, f"{os.environ['PREFECT_API_URL']}{path}", json=body)
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:  # its database is locked for a moment
            break
        time.sleep(0.5)
    answer.raise_for_status()
    return answer.json() if answer.content else None


def registered(flow: str) -> dict[str, Any]:
    """A deployment without the fields that depend on when and where it was registered."""
    found = ask("GET", f"/deployments/name/{flow}/colours")
    automations = ask("GET", f"/automations/related-to/prefect.deployment.{found['id']}")
    kept = (
        *("entrypoint", "parameters", "tags", "description", "paused", "global_concurrency_limit"),
        *("concurrency_options", "enforce_parameter_schema", "parameter_openapi_schema"),
    )
    limit = found["global_concurrency_limit"]
    return {name: found[name] for name in kept} | {
        "global_concurrency_limit": limit and (limit["limit"], limit["active"]),
        "schedules": [(each["schedule"], each["parameters"], each["active"]) for each in found["schedules"]],
        "triggers": [
            {name: each["trigger"][name] for name in ("type", "expect", "match", "threshold", "within")}
            | {"starts": [(action["type"], action.get("parameters")) for action in each["actions"]]}
            for each in automations
        ],
    }


@pytest.mark.integration
def test_a_worker_of_a_pool_runs_in_the_workspace_itself(
    workspace: tuple[Path, Supervisor, Ports], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in a copy of it: what a run leaves in .perpetune is there for the next. The flow fails, because MLflow is away."""
    folder, _, _ = workspace
    create_pool("here", "process")
    python("-m", "perpetune.flows", "deploy", "--pool", "here", folder=folder)
    watch = ask("GET", "/deployments/name/watch/colours")
    # The pool's worker is a process of the team's own, which need not have the environment of ours.
    monkeypatch.delenv("PYTHONSAFEPATH")
    run = ask("POST", f"/deployments/{watch['id']}/create_flow_run", {"parameters": {"trigger": "manual"}})
    python("-m", "prefect", "worker", "start", "--pool", "here", "--run-once", folder=folder.parent)
    said = "\n".join(
        line["message"] for line in ask("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
    )
    assert "Beginning flow run 'watch (manual)'" in said
    assert "Downloading flow code" not in said
    assert "params.yaml" not in said, "it was found"
    assert "the MLflow server does not answer" in said, "it ran as far as that, beside modules of those names"


def test_a_training_runs_in_a_pool_and_its_end_is_seen(
    workspace: tuple[Path, Supervisor, Ports], tmp_path: Path
) -> None:
    """The flow, its command and how it ended; that the store holds no job is what the command finds."""
    folder, _, _ = workspace
    create_pool("trainers", "process")
    pool = PrefectPool("trainers", "colours")
    with temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}):
        run = pool.start(f"file://{tmp_path}/store")
        assert pool.why_ended(run) is None
        python("-m", "prefect", "worker", "start", "--pool", "trainers", "--run-once", folder=folder)
        ended = pool.why_ended(run)
    assert ended is not None
    assert ended.startswith("Failed")
    assert "the training ended with status 1" in ended


def test_tasks_that_share_a_pool_train_in_their_own_images(
    workspace: tuple[Path, Supervisor, Ports], tmp_path: Path
) -> None:
    images = {"colours": "registry.example/colours:1", "shapes": "registry.example/shapes:1"}
    with temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}):
        for task, image in images.items():
            PrefectPool("gpu", task, image).start(f"file://{tmp_path}/store")
    found = {task: ask("GET", f"/deployments/name/train/{task}") for task in images}
    assert {task: each["job_variables"]["image"] for task, each in found.items()} == images
    for each in found.values():
        ask("DELETE", f"/deployments/{each['id']}")


@pytest.mark.integration
def test_a_pool_gets_all_that_serving_registers(workspace: tuple[Path, Supervisor, Ports]) -> None:
    folder, supervisor, ports = workspace
    said = python(
        "-m", "perpetune.flows", "deploy", "--pool", "gpu", "--image", IMAGE, "--workspace", "/workspace", folder=folder
    )
    assert said.splitlines() == [f"{flow}/colours now runs in the work pool gpu" for flow in FLOWS]
    pooled = {flow: registered(flow) for flow in FLOWS}
    found = {flow: ask("GET", f"/deployments/name/{flow}/colours") for flow in FLOWS}
    refresh, watch, trial = (found[flow] for flow in ("refresh", "watch", "trial"))
    variables = {"image": IMAGE, "env": {"PYTHONSAFEPATH": "1", "PERPETUNE_RUN_FOLDER": "/workspace"}}
    assert (refresh["work_pool_name"], refresh["job_variables"]) == ("gpu", variables)
    assert (watch["work_pool_name"], watch["job_variables"]["image"]) == ("gpu", IMAGE)
    assert watch["job_variables"]["gpus"] == trial["job_variables"]["gpus"] == 0
    stay = [{"prefect.deployments.steps.set_working_directory": {"directory": "/"}}]
    assert (refresh["pull_steps"], watch["pull_steps"]) == (stay, stay)
    assert [each["starts"] for each in pooled["refresh"]["triggers"]] == [
        [("run-deployment", {"trigger": "decay", "reason": "{{ event.payload.reason }}"})]
    ]
    assert [(each["expect"], each["starts"]) for each in pooled["trial"]["triggers"]] == [
        (["perpetune.model.trial"], [("run-deployment", {"trigger": "begun"})])
    ]

    run = ask("POST", f"/deployments/{refresh['id']}/create_flow_run", {"parameters": {"trigger": "manual"}})
    due = ask("POST", "/work_pools/gpu/get_scheduled_flow_runs", {"scheduled_before": run["expected_start_time"]})
    assert run["id"] in [each["flow_run"]["id"] for each in due], "a worker of the pool gets it"

    for flow in found.values():
        ask("DELETE", f"/deployments/{flow['id']}")
    supervisor.start([worker(ports.worker)])
    assert {flow: registered(flow) for flow in FLOWS} == pooled

    prefect = Prefect(os.environ["PREFECT_API_URL"])
    prefect.emit(TRIAL, "another", {"version": "3"})
    prefect.emit(TRIAL, "colours", {"version": "3"})
    (begun,) = eventually(lambda: prefect.runs_of("trial/colours"), 60)
    assert begun.name == "trial (begun)"
    ended = prefect.follow(begun, print)
    assert "the MLflow server does not answer" in ended.message, "it ran as far as that, beside modules of those names"


@pytest.mark.integration
def test_going_back_by_hand_is_told_to_prefect(
    workspace: tuple[Path, Supervisor, Ports],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    new_mlflow_store: Callable[[Path], str],
) -> None:
    folder, _, _ = workspace
    store = new_mlflow_store(tmp_path)
    connect(store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    client = MlflowClient()
    client.create_experiment("colours", artifact_location=str(tmp_path / "artifacts"))
    client.create_registered_model("colours")
    for version in ("1", "2"):
        run = open_run("colours", "refresh", {}, {})
        close_run(run, succeeded=True)
        client.create_model_version("colours", f"runs:/{run.id}/model", run.id)
        registry.promote("colours", version)
    python("-m", "typer", "perpetune.cli", "run", "rollback", "--reason", "it promises refunds", folder=folder)
    body = {"filter": {"event": {"name": [ROLLED_BACK]}}}
    events = eventually(lambda: ask("POST", "/events/filter", body)["events"], 30)
    assert [(each["resource"]["prefect.resource.id"], each["payload"]) for each in events] == [
        ("perpetune.model.colours", {"version": "2", "restored": "1", "reason": "it promises refunds"})
    ]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--pool", "gqu", "--image", IMAGE), "Prefect has no work pool named gqu"),
        (("--pool", "gpu"), "the work pool gpu starts containers, so it needs an image"),
    ],
)
def test_a_missing_pool_or_image_is_an_error(
    workspace: tuple[Path, Supervisor, Ports], arguments: tuple[str, ...], says: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "perpetune.flows", "deploy", *arguments],
        cwd=workspace[0],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_terminal_in_a_workspace_with_such_modules_starts_it(tmp_path: Path) -> None:
    for name in ("flows.py", "mlflow.py", "prefect.py"):
        (tmp_path / name).write_text("raise RuntimeError")
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    path = os.pathsep.join(filter(None, [str(ROOT), plain.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "perpetune.flows", "--help"]
    subprocess.run(command, cwd=tmp_path, env=plain | {"PYTHONPATH": path}, check=True, capture_output=True)


def test_every_blank_of_the_pool_is_a_variable_of_it() -> None:
    pool = json.loads(POOL.read_text())
    blanks = {word.strip("{} ") for word in _words(pool["job_configuration"]) if word.startswith("{{")}
    assert blanks == set(pool["variables"]["properties"])


def _words(tree: object) -> Iterator[str]:
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _words(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _words(value)
    elif isinstance(tree, str):
        for part in tree.split("}}"):
            yield part[part.find("{{") :] if "{{" in part else ""
