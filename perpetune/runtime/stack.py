"""The services of perpetune on one machine: commands, ports, environment."""

from __future__ import annotations

import os
import secrets
import sys
from dataclasses import dataclass
from urllib.parse import urlsplit

from perpetune.proxies import no_proxy_variables
from perpetune.runtime.addresses import WORKSPACE_ID
from perpetune.runtime.ownership import own_id
from perpetune.runtime.processes.supervisor import Service
from perpetune.workspace import Workspace

HOST = "127.0.0.1"
# As patterns of MLflow's --allowed-hosts, with any port: a tunnel may change it.
LOOPBACK = ("localhost", "localhost:*", "127.0.0.1", "127.0.0.1:*", "[[]::1]:*")
PYTHON = sys.executable

# Server settings for one machine: idle servers should use almost no CPU.
SERVERS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # On disk, because a killed server with leases in memory would block the concurrency limit forever.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    # These services clean up late, paused, cancelled or orphaned runs: once a minute is enough. Schedules and event
    # triggers do not wait for them, except for the first run of a schedule.
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_CLEANUP_RECONCILER_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "15",
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT60S",
    # Nine processes for scorers and prompt optimisation, which perpetune does not use.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


@dataclass(frozen=True)
class Ports:
    prefect: int = 4200
    mlflow: int = 5000
    gateway: int = 8000
    worker: int = 4201
    vllm: int | None = None  # None: not started


def environment(workspace: Workspace, ports: Ports) -> dict[str, str]:
    """Environment variables with the addresses and settings of the services of this workspace.

    Addresses set in the caller's environment take precedence, for services that run elsewhere.
    """
    settings = workspace.settings
    home = workspace.home
    variables = {
        "PREFECT_API_URL": settings.prefect_api_url or f"http://{HOST}:{ports.prefect}/api",
        "MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri or f"http://{HOST}:{ports.mlflow}",
        "PERPETUNE_GATEWAY_URL": settings.gateway_url or f"http://{HOST}:{ports.gateway}",
        "PERPETUNE_DATABASE_URL": settings.database_url or f"sqlite:///{home / 'predictions.db'}",
        "PERPETUNE_ASSETS": str(workspace.assets.resolve()),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_RUNNER_POLL_FREQUENCY": "4",
        # A run that is not heard of three times is ended (perpetune.flows.alerting).
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": os.environ.get("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "60"),
        "PREFECT_RUNNER_SERVER_ENABLE": "true",
        "PREFECT_RUNNER_SERVER_HOST": HOST,
        "PREFECT_RUNNER_SERVER_PORT": str(ports.worker),
        **no_proxy_variables(os.environ),
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DVC_NO_ANALYTICS": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "PYTHONUNBUFFERED": "1",
        # The workspace may contain flows.py or mlflow/, which must not be imported instead of the packages.
        "PYTHONSAFEPATH": "1",
        # Training and inference share the cores, so waiting OpenMP threads should sleep soon. Without any spinning,
        # training took 1.4 times as long. For GNU's and LLVM's OpenMP.
        "GOMP_SPINCOUNT": "20000",
        "KMP_BLOCKTIME": "1",
        **SERVERS,
    }
    if pair := settings.prefect_user_and_password:
        variables["PREFECT_API_AUTH_STRING"] = pair
    if settings.gateway_url is None:  # one that runs elsewhere need not know this workspace
        variables[WORKSPACE_ID] = own_id(settings, home)
    if ports.vllm is not None:
        variables["PERPETUNE_VLLM_URL"] = f"http://{HOST}:{ports.vllm}"
        # Only the gateway and the flow runs know it, so no web page can load or unload adapters there.
        key = settings.vllm_api_key.get_secret_value() if settings.vllm_api_key else secrets.token_urlsafe()
        variables |= {"PERPETUNE_VLLM_API_KEY": key, "VLLM_API_KEY": key}
    return variables


def servers(workspace: Workspace, ports: Ports) -> list[Service]:
    """The Prefect and MLflow services, unless their addresses are set because they run elsewhere."""
    settings = workspace.settings
    services = []
    if settings.prefect_api_url is None:
        services.append(_prefect(ports.prefect, settings.prefect_ui_url))
    if settings.mlflow_tracking_uri is None:
        services.append(_mlflow(workspace, ports.mlflow))
    return services


def _prefect(port: int, ui_url: str | None) -> Service:
    page = f"http://{HOST}:{port}"
    command = (PYTHON, "-m", "perpetune.flows.server", "--host", HOST, "--port", str(port))
    names = () if ui_url is None else ("--allowed-hosts", urlsplit(ui_url).netloc)
    return Service("prefect", (*command, *names), port, f"{page}/api/health", page)


def _mlflow(workspace: Workspace, port: int) -> Service:
    page = f"http://{HOST}:{port}"
    store = workspace.home / "mlflow"
    store.mkdir(parents=True, exist_ok=True)
    command = (
        *(PYTHON, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}"),
        *("--artifacts-destination", str(store / "artifacts")),
        # Its default also takes "10.*" and the like, which a name such as 10.example.org satisfies (DNS rebinding).
        *("--allowed-hosts", ",".join([*LOOPBACK, *_more_hosts(workspace.settings.mlflow_ui_url)])),
    )
    # In a folder of its own: its uvicorn imports from where it is started, PYTHONSAFEPATH or not.
    return Service("mlflow", command, port, f"{page}/health", page, folder=store)


def _more_hosts(ui_url: str | None) -> list[str]:
    """The name under which people open MLflow's pages, and those of MLflow's own setting."""
    named = [host.strip() for host in os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS", "").split(",")]
    return [host for host in (urlsplit(ui_url or "").netloc, *named) if host]


def worker(port: int) -> Service:
    """The service that starts flow runs when they are due."""
    return Service("worker", (PYTHON, "-m", "perpetune.flows"), port, f"http://{HOST}:{port}/health")


def gateway(port: int) -> Service:
    page = f"http://{HOST}:{port}"
    command = (PYTHON, "-m", "perpetune.gateway", "--host", HOST, "--port", str(port))
    return Service("gateway", command, port, f"{page}/healthz", f"{page}/v1")
