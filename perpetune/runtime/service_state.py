"""Which services of a workspace are up, asked all at once, and what starts those that are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from perpetune.engines.openai_api.tls import Tls, vllm_tls
from perpetune.errors import PerpetuneError
from perpetune.proxies import is_on_this_machine
from perpetune.runtime.prefect_api import ui_url
from perpetune.runtime.served.readiness import state_of_task
from perpetune.workspace import Workspace

SECONDS = 1.5  # until a service counts as down
START = "`perpetune up`"


@dataclass(frozen=True)
class ServiceState:
    """`what` it does or why it is down, in a few words; `do` is the command or setting that brings it up.

    `serving` is the version that the gateway serves.
    """

    name: str
    up: bool
    what: str
    address: str | None = None
    do: str | None = None
    serving: str | None = None


def not_running(name: str) -> ServiceState:
    return ServiceState(name, False, "not running", do=START)


def service_states(workspace: Workspace) -> tuple[ServiceState, ...]:
    """The gateway, the engine, MLflow, Prefect and the worker. It takes `SECONDS` at most, more if names do not resolve."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        asked = pool.submit(_gateway, workspace), pool.submit(_vllm, workspace), pool.submit(_mlflow, workspace)
        prefect, worker = pool.submit(_prefect, workspace).result()
        gateway, vllm, mlflow = asked[0].result(), asked[1].result(), asked[2].result()
    return gateway, vllm or _embedded(gateway), mlflow, prefect, worker


def _gateway(workspace: Workspace) -> ServiceState:
    url, task = workspace.settings.gateway_url, workspace.params.task.name

    def read(answer: httpx.Response) -> ServiceState:
        state = state_of_task(_object(answer), task)
        if "serving" not in state:
            return ServiceState("gateway", False, "another program answers there", url, "correct PERPETUNE_GATEWAY_URL")
        if state.get("task", task) != task:
            return ServiceState("gateway", False, f"serves {state['task']}", url, "correct PERPETUNE_GATEWAY_URL")
        if state["serving"] is None:
            return ServiceState("gateway", False, f"has no version: {state.get('release')}", url, "`perpetune refresh`")
        return ServiceState("gateway", True, f"serves version {state['serving']}", url, serving=str(state["serving"]))

    return _state("gateway", url, "/readyz", {}, "PERPETUNE_GATEWAY_URL", read)


def _vllm(workspace: Workspace) -> ServiceState | None:
    """vLLM, if it is the engine."""
    if workspace.params.serve.engine != "vllm":
        return None
    urls = workspace.settings.vllm_urls
    try:
        tls = vllm_tls(workspace.settings)
    except PerpetuneError as fault:
        return ServiceState("engine", False, fault.what, fault.where, "`perpetune doctor`")
    states = [_replica(url, tls) for url in urls] or [not_running("engine")]
    return next((each for each in states if not each.up), states[0])  # a replica that is down is worth knowing


def _replica(url: str, tls: Tls) -> ServiceState:
    def read(answer: httpx.Response) -> ServiceState:
        return ServiceState("engine", True, "vLLM", url)

    return _state("engine", url, "/health", {}, "PERPETUNE_VLLM_URL", read, tls)


def _embedded(gateway: ServiceState) -> ServiceState:
    if gateway.up:
        return ServiceState("engine", True, "in the gateway")
    return ServiceState("engine", False, "in the gateway, which serves nothing", do=gateway.do)


def _mlflow(workspace: Workspace) -> ServiceState:
    url = workspace.settings.mlflow_tracking_uri
    if url is not None and not url.startswith("http"):
        return ServiceState("MLflow", True, "without a server", url)
    return _state("MLflow", url, "/health", {}, "MLFLOW_TRACKING_URI", lambda _: ServiceState("MLflow", True, "", url))


def _prefect(workspace: Workspace) -> tuple[ServiceState, ServiceState]:
    """Prefect, and the worker that last asked it for runs of this task."""
    url, task = workspace.settings.prefect_api_url, workspace.params.task.name
    headers = workspace.settings.prefect_headers
    page = ui_url(url) if url else None
    prefect = _state(
        "Prefect", url, "/health", headers, "PREFECT_API_URL", lambda _: ServiceState("Prefect", True, "", page)
    )
    if not prefect.up:
        return prefect, ServiceState("worker", False, "not known without Prefect", do=prefect.do)
    deployed = f"/deployments/name/watch/{task}"
    return prefect, _state("worker", url, deployed, headers, "PREFECT_API_URL", _worker)


def _worker(answer: httpx.Response) -> ServiceState:
    """Prefect says that a deployment is ready if a worker has asked for its runs within a minute."""
    found = _object(answer)
    if answer.status_code == 404:
        return ServiceState("worker", False, "nothing is scheduled: it has never run", do=START)
    if found.get("status") != "READY":
        return ServiceState("worker", False, "does not ask Prefect for runs", do=START)
    if found.get("paused"):
        return ServiceState("worker", False, "its schedules are paused", do="resume watch and refresh in Prefect")
    return ServiceState("worker", True, "starts the scheduled runs")


def _state(
    name: str,
    url: str | None,
    path: str,
    headers: Mapping[str, str],
    setting: str,
    read: Callable[[httpx.Response], ServiceState],
    tls: Tls | None = None,
) -> ServiceState:
    """What `read` makes of the answer; down if there is none, it refuses us, or it is an error of the server."""
    if url is None:
        return not_running(name)
    try:
        verify = tls.context if tls else True
        with httpx.Client(timeout=SECONDS, trust_env=not is_on_this_machine(url), verify=verify) as client:
            answer = client.get(f"{url.rstrip('/')}{path}", headers=dict(headers))
    except (httpx.HTTPError, httpx.InvalidURL):
        return ServiceState(name, False, "does not answer", url, f"{START}, or correct {setting}")
    if answer.status_code in (401, 403):
        return ServiceState(name, False, f"refuses our credentials ({answer.status_code})", url, "`perpetune doctor`")
    if answer.status_code >= 500 and name != "gateway":  # a gateway without a version answers 503, and says so
        return ServiceState(name, False, f"answers {answer.status_code}", url, "`perpetune doctor`")
    return read(answer)


def _object(answer: httpx.Response) -> Mapping[str, object]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
