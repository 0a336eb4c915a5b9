"""Prefect, MLflow, the gateway and vLLM: whether they answer, take our credentials, and have our time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from perpetune.doctor.finding import Finding, fault_of
from perpetune.engines.openai_api.tls import Tls, vllm_tls
from perpetune.errors import PerpetuneError
from perpetune.proxies import is_on_this_machine
from perpetune.runtime.alerts import alert_prefix
from perpetune.runtime.prefect_api import Prefect
from perpetune.runtime.processes.ports import VLLM_PORT
from perpetune.runtime.processes.supervisor import is_free
from perpetune.runtime.served.readiness import state_of_task
from perpetune.runtime.stack import Ports
from perpetune.settings import Settings
from perpetune.workspace import Workspace

_SECONDS = 5.0
MAX_SKEW = 30.0  # seconds; a Date header has whole ones
_START = "start it with `perpetune up`"
_LORA_ROUTE = "/v1/load_lora_adapter"


def ports(workspace: Workspace) -> Finding:
    """Whether the ports that `perpetune up` prefers are free."""
    usual = {"Prefect": Ports.prefect, "MLflow": Ports.mlflow, "the gateway": Ports.gateway}
    if workspace.params.serve.engine == "vllm":
        usual["vLLM"] = VLLM_PORT
    taken = [f"{port} of {name}" for name, port in usual.items() if not is_free(port)]
    if not taken:
        return Finding("ports", "ok", f"{', '.join(map(str, usual.values()))} are free for `perpetune up`")
    return Finding(
        "ports",
        "warning",
        f"another program listens on {', '.join(taken)}, so `perpetune up` takes the next free ones",
        "name others, as in `perpetune up --gateway-port 8080`, if clients need a fixed address",
    )


def prefect(workspace: Workspace) -> list[Finding]:
    """Whether Prefect answers, takes our credentials, and has the refresh of this task."""
    settings, task = workspace.settings, workspace.params.task.name
    if settings.prefect_api_url is None:
        return [_not_running("Prefect")]
    url = settings.prefect_api_url.rstrip("/")
    answer = _get(f"{url}/deployments/name/refresh/{task}", settings.prefect_headers)
    if isinstance(answer, str):
        return [Finding("Prefect", "fault", f"{url} {answer}", f"{_START}, or correct PREFECT_API_URL")]
    if answer.status_code in (401, 403):
        do = "set PREFECT_API_AUTH_STRING (user:password of a server) or PREFECT_API_KEY (Prefect Cloud)"
        return [Finding("Prefect", "fault", f"{url} refuses our credentials ({answer.status_code})", do)]
    if answer.status_code == 404:
        what = f"{url} has no deployment refresh/{task}, so nothing is scheduled"
        return [Finding("Prefect", "fault", what, f"start the worker: {_START}"), *_clock("Prefect", answer)]
    answered = _answered("Prefect", url, answer)
    return [answered, *([_alerts(url, task)] if answer.is_success else []), *_clock("Prefect", answer)]


def _alerts(url: str, task: str) -> Finding:
    """Whether Prefect tells anybody of trouble."""
    try:
        names = [str(each["name"]) for each in Prefect(url).automations(alert_prefix(task))]
    except PerpetuneError as error:
        return fault_of("alerts", error)
    if f"{alert_prefix(task)}test" in names:
        return Finding("alerts", "ok", "people are told of trouble; `perpetune alerts test` tries it")
    do = "set PERPETUNE_ALERTS to an Apprise URL, such as mailtos://..., and start the worker again"
    return Finding("alerts", "warning", "no one is told of decay, failed runs or a blind monitor", do)


def mlflow(workspace: Workspace) -> list[Finding]:
    """Whether MLflow answers and takes our credentials."""
    uri = workspace.settings.mlflow_tracking_uri
    if uri is None:
        return [_not_running("MLflow")]
    if not uri.startswith("http"):
        return [Finding("MLflow", "ok", f"{uri}, without a server")]
    url = uri.rstrip("/")
    answer = _get(f"{url}/api/2.0/mlflow/experiments/search?max_results=1", _mlflow_headers())
    if isinstance(answer, str):
        return [Finding("MLflow", "fault", f"{url} {answer}", f"{_START}, or correct MLFLOW_TRACKING_URI")]
    if answer.status_code in (401, 403):
        do = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        return [Finding("MLflow", "fault", f"{url} refuses our credentials ({answer.status_code})", do)]
    return [_answered("MLflow", url, answer), *_clock("MLflow", answer)]


def gateway(workspace: Workspace) -> list[Finding]:
    """Whether the gateway serves a version, writes its log, and takes our key."""
    settings = workspace.settings
    if settings.gateway_url is None:
        return [_not_running("gateway")]
    url = settings.gateway_url.rstrip("/")
    answer = _get(f"{url}/readyz", {})
    if isinstance(answer, str):
        return [Finding("gateway", "fault", f"{url} {answer}", f"{_START}, or correct PERPETUNE_GATEWAY_URL")]
    state = state_of_task(_object(answer), workspace.params.task.name)
    if "serving" not in state:
        return [Finding("gateway", "fault", f"{url} is no gateway of perpetune", "correct PERPETUNE_GATEWAY_URL")]
    troubles = [
        Finding("gateway", "warning", f"{part}: {state[part]}", do)
        for part, do in (
            ("registry", "check MLFLOW_TRACKING_URI of the gateway"),
            ("log", "check PERPETUNE_DATABASE_URL of the gateway; answers wait in its spool meanwhile"),
        )
        if state.get(part) != "ok"
    ]
    if not state.get("ready"):
        return [Finding("gateway", "fault", f"{url} serves no version: {state.get('release')}", _SEE_LOG), *troubles]
    models = _get(f"{url}/v1/models", settings.gateway_headers)
    if not isinstance(models, str) and models.status_code in (401, 403):
        do = "create one with `perpetune keys add NAME --role admin` and set PERPETUNE_API_KEY"
        troubles.append(Finding("gateway", "fault", "it refuses our key, so no swap can reach it", do))
    elif not is_on_this_machine(url) and not settings.gateway_headers:
        do = "create keys with `perpetune keys add`, unless a proxy in front asks for them"
        troubles.append(Finding("gateway", "warning", f"{url} answers anybody: it has no keys", do))
    return [Finding("gateway", "ok", f"{url} serves version {state['serving']}"), *troubles, *_clock("gateway", answer)]


_SEE_LOG = "see .perpetune/logs/gateway.log"


def vllm(workspace: Workspace) -> list[Finding]:
    """Whether vLLM answers, takes our key, and can load adapters while it runs."""
    settings = workspace.settings
    if workspace.params.serve.engine != "vllm":
        return []
    if not settings.vllm_urls:
        return [_not_running("vLLM")]
    try:
        tls = vllm_tls(settings)
    except PerpetuneError as error:
        return [fault_of("vLLM", error)]
    return [_replica(url.rstrip("/"), settings, tls) for url in settings.vllm_urls]


def _replica(url: str, settings: Settings, tls: Tls) -> Finding:
    key = settings.vllm_api_key.get_secret_value() if settings.vllm_api_key else ""
    models = _get(f"{url}/v1/models", {"authorization": f"Bearer {key}"} if key else {}, tls)
    if isinstance(models, str):
        return Finding("vLLM", "fault", f"{url} {models}", "start it, or correct the settings PERPETUNE_VLLM_...")
    if models.status_code in (401, 403):
        return Finding("vLLM", "fault", f"{url} refuses our key", "set PERPETUNE_VLLM_API_KEY to its --api-key")
    routes = _get(f"{url}/openapi.json", {}, tls)
    paths = {} if isinstance(routes, str) else _object(routes).get("paths")
    if not isinstance(paths, Mapping) or _LORA_ROUTE not in paths:
        do = "start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True: see docs/guides/vllm.md"
        return Finding("vLLM", "fault", f"{url} cannot load adapters while it runs", do)
    return _answered("vLLM", url, models)


def _get(url: str, headers: Mapping[str, str], tls: Tls | None = None) -> httpx.Response | str:
    """The answer, or why there is none, as the end of a sentence."""
    try:
        verify = tls.context if tls else True
        with httpx.Client(timeout=_SECONDS, trust_env=not is_on_this_machine(url), verify=verify) as client:
            return client.get(url, headers=dict(headers))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = tls.explain(error) if tls and url.startswith("https://") else None
        return f"does not answer: {why}" if why else f"does not answer ({type(error).__name__})"


def _answered(subject: str, url: str, answer: httpx.Response) -> Finding:
    if answer.is_success:
        return Finding(subject, "ok", f"{url} answers")
    do = f"see the log of {subject}, or correct its address"
    return Finding(subject, "fault", f"{url} answers {answer.status_code}: {answer.text[:100]}", do)


def _clock(subject: str, answer: httpx.Response) -> list[Finding]:
    """A warning if the service's clock differs from ours."""
    try:
        theirs = parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        return []
    skew = abs((datetime.now(UTC) - theirs).total_seconds())
    if skew <= MAX_SKEW:
        return []
    do = "synchronise both clocks (NTP): schedules, cooldowns and the order of labels depend on them"
    return [Finding("clock", "fault", f"the clock of {subject} differs from this machine's by {skew:.0f} s", do)]


def _not_running(subject: str) -> Finding:
    return Finding(subject, "not checked", "`perpetune up` does not run, and no address is set")


def _mlflow_headers() -> dict[str, str]:
    """The credentials that MLflow's own client would send."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"authorization": f"Bearer {token}"}
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if not user:
        return {}
    credentials = httpx.BasicAuth(user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
    request = next(credentials.auth_flow(httpx.Request("GET", "http://unused")))
    return {"authorization": request.headers["authorization"]}


def _object(answer: httpx.Response) -> Mapping[str, object]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}
