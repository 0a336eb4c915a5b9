"""The overlays of deploy/kubernetes, rendered: valid for Kubernetes, confined, and in agreement with the rest."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_file import containers as containers_of_compose
from compose_file import read_compose
from prefect.utilities.templating import apply_values

from perpetune.runtime.vllm_service import MAX_LORAS
from perpetune.settings import Settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
VERSIONS = ("1.33", "1.37")
OF_THE_OPERATOR = {"ServiceMonitor", "PrometheusRule"}  # kubernetes-validate has no schema of them
# Of the machine that serves flow runs, and what the Secret has.
SERVING = "PREFECT_RUNNER_"
Manifests = dict[tuple[str, str], dict[str, Any]]

RENDERER = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]
needs_kustomize = pytest.mark.skipif(shutil.which(RENDERER[0]) is None, reason="needs kubectl or kustomize")


@pytest.fixture(scope="module")
def rendered() -> dict[str, Manifests]:
    found = {}
    for name in OVERLAYS:
        done = subprocess.run([*RENDERER, str(FOLDER / "overlays" / name)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "", "no warning, such as of a deprecated field"
        found[name] = _by_name(yaml.safe_load_all(done.stdout))
    return found


@pytest.fixture(scope="module")
def pool() -> dict[str, Any]:
    return dict(json.loads((FOLDER / "work-pool.json").read_text()))


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return dict(yaml.safe_load((FOLDER / "base/settings.yaml").read_text())["data"])


def _by_name(documents: Iterator[dict[str, Any]]) -> Manifests:
    return {(each["kind"], each["metadata"]["name"]): each for each in documents}


def job(pool: dict[str, Any], **values: object) -> dict[str, Any]:
    """The job that Prefect's worker makes of the pool's template."""
    defaults = {name: of["default"] for name, of in pool["variables"]["properties"].items() if "default" in of}
    return dict(apply_values(pool["job_configuration"]["job_manifest"], defaults | values))


def pods(manifests: Manifests) -> Iterator[tuple[str, dict[str, Any]]]:
    """The pod template of each workload, by name."""
    for (kind, name), manifest in manifests.items():
        if kind in {"Deployment", "StatefulSet", "Job"}:
            yield name, manifest["spec"]["template"]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def variables(pod: dict[str, Any], manifests: Manifests) -> dict[str, str]:
    """The environment of a pod's main container, without what Secrets have."""
    [main] = pod["spec"]["containers"]
    names = [each["configMapRef"]["name"] for each in main.get("envFrom", ()) if "configMapRef" in each]
    data = {key: value for name in names for key, value in manifests["ConfigMap", name]["data"].items()}
    return data | {each["name"]: each["value"] for each in main.get("env", ()) if "value" in each}


@needs_kustomize
@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid(rendered: dict[str, Manifests], overlay: str, version: str) -> None:
    validation = pytest.importorskip("kubernetes_validate")
    for (kind, _), manifest in rendered[overlay].items():
        if kind not in OF_THE_OPERATOR:
            validation.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_job_of_a_flow_run_is_valid(pool: dict[str, Any], version: str) -> None:
    validation = pytest.importorskip("kubernetes_validate")
    given = {"image": "perpetune:1", "name": "run", "labels": {"a": "b"}, "env": [], "command": ["python"]}
    validation.validate(job(pool, **given), version, strict=True)


def test_a_wrong_manifest_is_found() -> None:
    validation = pytest.importorskip("kubernetes_validate")
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": {"maxUnavailble": 1}}
    with pytest.raises(validation.ValidationError):
        validation.validate(budget, VERSIONS[0], strict=True)


@needs_kustomize
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_keeps_the_restricted_standard(
    rendered: dict[str, Manifests], pool: dict[str, Any], overlay: str
) -> None:
    """Kubernetes' Pod Security Standard `restricted`, which the namespace enforces."""
    labels = rendered[overlay]["Namespace", "perpetune"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    run = job(pool, image="perpetune:1")["spec"]["template"]
    for name, pod in [*pods(rendered[overlay]), ("a flow run", run)]:
        whole = pod["spec"]["securityContext"]
        assert whole["runAsNonRoot"] is True and whole["runAsUser"] > 0, name
        assert whole["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers(pod):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert "memory" in container["resources"]["limits"] and "memory" in container["resources"]["requests"], name
        for volume in pod["spec"].get("volumes", ()):
            assert set(volume) - {"name"} <= {"persistentVolumeClaim", "secret", "emptyDir", "configMap"}, name


@needs_kustomize
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_a_manifest_names_exists(rendered: dict[str, Manifests], overlay: str) -> None:
    manifests = rendered[overlay]
    for name, pod in pods(manifests):
        for container in containers(pod):
            for source in container.get("envFrom", ()):
                assert "secretRef" in source or ("ConfigMap", source["configMapRef"]["name"]) in manifests, name
            mounted = {each["name"] for each in container.get("volumeMounts", ())}
            assert mounted <= {each["name"] for each in pod["spec"].get("volumes", ())}, name
        for volume in pod["spec"].get("volumes", ()):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or ("PersistentVolumeClaim", claim) in manifests, name
    labelled = [pod["metadata"]["labels"] for _, pod in pods(manifests)]
    for (kind, name), manifest in manifests.items():
        if kind in {"Service", "PodDisruptionBudget"} and "selector" in manifest["spec"]:
            selector = manifest["spec"]["selector"]
            assert any(selector.get("matchLabels", selector).items() <= labels.items() for labels in labelled), name
    target = manifests["HorizontalPodAutoscaler", "gateway"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) in manifests
    assert {each["metadata"].get("namespace", "perpetune") for each in manifests.values()} == {"perpetune"}


@needs_kustomize
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_gateways_are_updated_scaled_and_evicted_without_a_gap(rendered: dict[str, Manifests], overlay: str) -> None:
    manifests = rendered[overlay]
    gateway = manifests["Deployment", "gateway"]["spec"]
    assert "replicas" not in gateway, "an update would undo what the autoscaler did"
    assert gateway["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    [main] = gateway["template"]["spec"]["containers"]
    probes = [main[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")]
    assert probes == ["/healthz", "/readyz", "/healthz"]
    compose = read_compose({})["services"]["gateway-1"]
    assert f"{gateway['template']['spec']['terminationGracePeriodSeconds']}s" == compose["stop_grace_period"]
    assert " ".join(main["args"]) == compose["command"]
    assert manifests["PodDisruptionBudget", "gateway"]["spec"]["maxUnavailable"] == 1
    scaling = manifests["HorizontalPodAutoscaler", "gateway"]["spec"]
    assert scaling["minReplicas"] >= 2
    [metric] = scaling["metrics"]
    assert metric["pods"]["metric"]["name"] == "perpetune_engine_requests_in_flight"


@needs_kustomize
def test_the_servers_run_what_they_run_in_compose(rendered: dict[str, Manifests]) -> None:
    services = read_compose({})["services"]
    for name in ("mlflow", "prefect"):
        pod = dict(pods(rendered["complete"]))[name]
        [main] = pod["spec"]["containers"]
        words = (
            [word for argument in main["args"] for word in argument.split("=", 1)] if name == "mlflow" else main["args"]
        )
        assert words == services[name]["command"].split(), name
        secret = {key.removesuffix("__FILE") for key in services[name]["environment"] if key.endswith("__FILE")}
        theirs = set(services[name]["environment"]) - {f"{key}__FILE" for key in secret}
        here = set(variables(pod, rendered["complete"]))
        assert theirs - {"NO_PROXY", "no_proxy", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED"} <= here
        comment = (FOLDER / f"components/servers/{name}.yaml").read_text().split("apiVersion")[0]
        assert secret <= set(re.findall(r"[A-Z_]{5,}", comment)), "the comment lists what the Secret has"


@needs_kustomize
def test_every_replica_of_vllm_is_named_to_the_gateways(rendered: dict[str, Manifests]) -> None:
    manifests = rendered["complete"]
    vllm = manifests["StatefulSet", "vllm"]["spec"]
    urls = manifests["ConfigMap", "perpetune"]["data"]["PERPETUNE_VLLM_URL"].split(",")
    assert urls == [f"http://vllm-{number}.{vllm['serviceName']}:8000" for number in range(vllm["replicas"])]
    assert manifests["Service", "vllm"]["spec"]["clusterIP"] == "None"
    [main] = vllm["template"]["spec"]["containers"]
    compose = read_compose({})["services"]["vllm"]
    flags = {word.split("=")[0] for word in main["args"] if word.startswith("--")}
    assert flags == {word for word in compose["command"].split() if word.startswith("--")}
    computed = [words[2].replace("$$", "$").split('"$@" ')[1] for words in (main["command"], compose["entrypoint"])]
    assert computed[0] == computed[1]
    [gateway] = manifests["Deployment", "gateway"]["spec"]["template"]["spec"]["containers"]
    workspaces = [
        each["mountPath"] for of in (main, gateway) for each in of["volumeMounts"] if each["name"] == "workspace"
    ]
    assert workspaces == ["/workspace", "/workspace"], "adapters have one path"
    assert "PERPETUNE_VLLM_URL" not in rendered["servers-elsewhere"]["ConfigMap", "perpetune"]["data"]


@pytest.mark.parametrize("tasks", [1, 3])
def test_vllm_has_room_for_the_adapters_of_all_tasks(tmp_path: Path, tasks: int) -> None:
    """The command of Compose, of its file for TLS and of Kubernetes, run with a `vllm` that prints its words."""
    (tmp_path / "vllm").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "vllm").chmod(0o755)
    (tmp_path / "key").write_text("secret")
    stateful, *_ = yaml.safe_load_all((FOLDER / "components/vllm/vllm.yaml").read_text())
    started = [
        containers_of_compose({}, *more)["vllm"].command[:4] for more in ((), (ROOT / "deploy/compose/tls.yml",))
    ]
    for shell, flag, script, name in [*started, stateful["spec"]["template"]["spec"]["containers"][0]["command"]]:
        words = [shell, flag, script.replace("/run/secrets/vllm_api_key", str(tmp_path / "key")), name, "MODEL"]
        variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SERVED_TASKS": str(tasks)}
        said = subprocess.run(words, env=variables, check=True, capture_output=True, text=True).stdout.split()
        assert said[:2] == ["serve", "MODEL"]
        for option in ("--max-loras", "--max-cpu-loras"):
            assert said[said.index(option) + 1] == str(MAX_LORAS * tasks)


@needs_kustomize
def test_vllm_and_its_callers_show_each_other_certificates(rendered: dict[str, Manifests]) -> None:
    manifests = rendered["complete-tls"]
    settings = manifests["ConfigMap", "perpetune"]["data"]
    vllm = manifests["StatefulSet", "vllm"]["spec"]
    assert settings["PERPETUNE_VLLM_URL"].split(",") == [
        f"https://vllm-{number}.{vllm['serviceName']}:8000" for number in range(vllm["replicas"])
    ]
    [server] = vllm["template"]["spec"]["containers"]
    assert "--ssl-cert-reqs=2" in server["args"]
    [gateway] = manifests["Deployment", "gateway"]["spec"]["template"]["spec"]["containers"]
    used = repr([settings[name] for name in settings if name.startswith("PERPETUNE_VLLM_C")])
    for container, text in ((server, repr(server)), (gateway, used)):
        mounted = {each["mountPath"] for each in container["volumeMounts"]}
        read = set(re.findall(r"(/run/secrets/[\w-]+)/(?:ca\.crt|tls\.crt|tls\.key)", text))
        assert read and read <= mounted
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert set(server[probe]) & {"exec", "httpGet"} == {"exec"}, "the kubelet has no certificate"


@needs_kustomize
def test_nothing_may_be_asked_that_no_policy_names(rendered: dict[str, Manifests]) -> None:
    manifests = rendered["complete"]
    policies = {name: each["spec"] for (kind, name), each in manifests.items() if kind == "NetworkPolicy"}
    assert policies["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    served = {
        each["spec"]["selector"]["app"]
        for (kind, _), each in manifests.items()
        if kind == "Service" and "selector" in each["spec"]
    }
    admitted = {each["podSelector"]["matchLabels"]["app"] for each in policies.values() if "ingress" in each}
    assert admitted == served
    known = {pod["metadata"]["labels"]["app"] for _, pod in pods(manifests)} | {"perpetune-run"}
    named = set(re.findall(r"'values': \[([^\]]*)\]", repr(policies)))
    assert {name.strip("'") for group in named for name in group.split(", ")} <= known
    vllm = [each for rule in policies["vllm"]["ingress"] for each in rule["from"]]
    assert vllm[0]["podSelector"]["matchExpressions"][0]["values"] == ["gateway", "perpetune-run"]


@needs_kustomize
def test_the_operator_watches_the_gateways_with_the_alerts_of_compose(rendered: dict[str, Manifests]) -> None:
    manifests = rendered["complete"]
    monitor = manifests["ServiceMonitor", "gateway"]["spec"]
    service = manifests["Service", "gateway"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [each["port"] for each in monitor["endpoints"]] == [each["name"] for each in service["spec"]["ports"]]
    groups = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    assert manifests["PrometheusRule", "perpetune"]["spec"]["groups"] == [
        each for each in groups if each["name"] == "gateway"
    ]


@needs_kustomize
def test_images_of_ours_are_replaced(rendered: dict[str, Manifests]) -> None:
    for overlay, manifests in rendered.items():
        images = {container["image"] for _, pod in pods(manifests) for container in containers(pod)}
        assert all("/" in image and re.search(r":[\w.-]*\d", image) for image in images), overlay


def test_a_flow_run_gets_gpus_the_workspace_and_shared_memory(pool: dict[str, Any]) -> None:
    pod = job(pool, image="perpetune:1", gpus=4)["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["image"] == "perpetune:1"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert container["workingDir"] == "/workspace"
    assert {each["name"]: each["mountPath"] for each in container["volumeMounts"]} == {
        "workspace": "/workspace",
        "shm": "/dev/shm",
        "vllm-client": "/run/secrets/vllm-client",
    }
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert volumes["vllm-client"]["secret"] == {"secretName": "vllm-client", "optional": True}
    assert volumes["workspace"]["persistentVolumeClaim"] == {"claimName": "perpetune"}
    assert container["envFrom"] == [{"configMapRef": {"name": "perpetune"}}, {"secretRef": {"name": "perpetune"}}]
    assert pool["variables"]["properties"]["namespace"]["default"] == "perpetune"


def test_the_environment_is_that_of_compose(settings: dict[str, str]) -> None:
    compose = read_compose({})["x-perpetune"]["environment"]
    assert {name for name in compose if not name.startswith(SERVING) and not name.endswith("__FILE")} <= set(settings)
    assert all(isinstance(value, str) for value in settings.values())
    secret = {name.removesuffix("__FILE") for name in compose if name.endswith("__FILE")}
    comment = (FOLDER / "base/settings.yaml").read_text().split("apiVersion")[0]
    assert secret <= set(re.findall(r"[A-Z_]{5,}", comment)), "the comment lists what the Secret has"


def test_each_variable_of_ours_is_a_setting(settings: dict[str, str]) -> None:
    known = {f"PERPETUNE_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in settings if name.startswith("PERPETUNE_")} <= known


def test_the_worker_has_the_locked_version_of_prefect() -> None:
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    version = next(line.removeprefix("prefect==") for line in lock if line.startswith("prefect=="))
    assert f"image: prefecthq/prefect:{version}-" in (FOLDER / "base/worker.yaml").read_text()
