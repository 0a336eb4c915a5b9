"""The files of deploy/kubernetes agree with each other, with the settings and with docker-compose.yml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.utilities.templating import apply_values

from perpetune.settings import Settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
# Of the machine that serves flow runs, and where its Prefect keeps files; the password is in the Secret.
NOT_HERE = {"PERPETUNE_API_KEY", "PERPETUNE_DATABASE_URL"}
SERVING = "PREFECT_RUNNER_"


@pytest.fixture(scope="module")
def manifests() -> dict[tuple[str, str], Any]:
    found = yaml.safe_load_all((FOLDER / "perpetune.yaml").read_text())
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


@pytest.fixture(scope="module")
def pool() -> dict[str, Any]:
    return dict(json.loads((FOLDER / "work-pool.json").read_text()))


def job(pool: dict[str, Any], **values: object) -> dict[str, Any]:
    """The job that Prefect's worker makes of the pool's template."""
    defaults = {name: of["default"] for name, of in pool["variables"]["properties"].items() if "default" in of}
    return dict(apply_values(pool["job_configuration"]["job_manifest"], defaults | values))


def test_a_flow_run_gets_gpus_the_workspace_and_shared_memory(pool: dict[str, Any]) -> None:
    pod = job(pool, image="perpetune:1", gpus=4)["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["image"] == "perpetune:1"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert container["workingDir"] == "/workspace"
    assert {each["name"]: each["mountPath"] for each in container["volumeMounts"]} == {
        "workspace": "/workspace",
        "shm": "/dev/shm",
    }
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert volumes["workspace"]["persistentVolumeClaim"] == {"claimName": "perpetune"}


def test_resources_of_the_work_pool_exist(pool: dict[str, Any], manifests: dict[tuple[str, str], Any]) -> None:
    [container] = job(pool, image="perpetune:1")["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": "perpetune"}}, {"secretRef": {"name": "perpetune"}}]
    assert ("ConfigMap", "perpetune") in manifests
    assert manifests["PersistentVolumeClaim", "perpetune"]["spec"]["accessModes"] == ["ReadWriteMany"]
    namespace = pool["variables"]["properties"]["namespace"]["default"]
    assert ("Namespace", namespace) in manifests
    assert {each["metadata"].get("namespace", namespace) for each in manifests.values()} == {namespace}


def test_the_environment_is_that_of_compose(manifests: dict[tuple[str, str], Any]) -> None:
    given = manifests["ConfigMap", "perpetune"]["data"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["x-perpetune"]["environment"]
    assert {name for name in compose if not name.startswith(SERVING)} - NOT_HERE <= set(given)
    assert all(isinstance(value, str) for value in given.values())


def test_each_variable_of_ours_is_a_setting(manifests: dict[tuple[str, str], Any]) -> None:
    known = {f"PERPETUNE_{name.upper()}" for name in Settings.model_fields}
    given = {name for name in manifests["ConfigMap", "perpetune"]["data"] if name.startswith("PERPETUNE_")}
    assert given <= known


def test_the_worker_has_the_locked_version_of_prefect(manifests: dict[tuple[str, str], Any]) -> None:
    [container] = manifests["Deployment", "prefect-worker"]["spec"]["template"]["spec"]["containers"]
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    version = next(line.removeprefix("prefect==") for line in lock if line.startswith("prefect=="))
    assert container["image"].startswith(f"prefecthq/prefect:{version}-")
