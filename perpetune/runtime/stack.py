"""Which services make up perpetune on one machine, and where they listen."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from perpetune.runtime.processes import Service
from perpetune.workspace import Workspace

HOST = "127.0.0.1"
PYTHON = sys.executable

# How the servers behave on one machine: they should cost next to nothing while nothing happens.
SERVERS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Who holds the one place of a refresh: kept in memory, a killed server would leave it taken for ever.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    # Its services look for what was missed (late, paused, cancelled or orphaned runs, workers that are away): once a
    # minute is enough. Neither schedules nor automations on events wait for them but for the first run of a schedule.
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_CLEANUP_RECONCILER_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "15",
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT60S",
    # Nine processes for scorers and the optimisation of prompts, which we do not use.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


@dataclass(frozen=True)
class Ports:
    prefect: int = 4200
    mlflow: int = 5000
    gateway: int = 8000
    worker: int = 4201
    vllm: int | None = None  # none is started


def environment(workspace: Workspace, ports: Ports) -> dict[str, str]:
    """What every service and command of this workspace needs to find the others.

    Addresses set by the caller win: they name services that run elsewhere.
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
        "PREFECT_RUNNER_SERVER_ENABLE": "true",
        "PREFECT_RUNNER_SERVER_HOST": HOST,
        "PREFECT_RUNNER_SERVER_PORT": str(ports.worker),
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DVC_NO_ANALYTICS": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "PYTHONUNBUFFERED": "1",
        # The workspace may hold a flows.py or a folder mlflow/: nothing is imported from the folder a service starts in.
        "PYTHONSAFEPATH": "1",
        # Training and answering share the cores, so threads that wait for work soon sleep. At once would be too soon: the
        # next piece comes within microseconds, and training took 1.4 times as long. GNU's and LLVM's OpenMP in turn.
        "GOMP_SPINCOUNT": "20000",
        "KMP_BLOCKTIME": "1",
        **SERVERS,
    }
    if ports.vllm is not None:
        variables["PERPETUNE_VLLM_URL"] = f"http://{HOST}:{ports.vllm}"
    return variables


def servers(workspace: Workspace, ports: Ports) -> list[Service]:
    """Prefect and MLflow, each only where its address is not set to one that runs elsewhere."""
    settings = workspace.settings
    services = []
    if settings.prefect_api_url is None:
        services.append(_prefect(ports.prefect))
    if settings.mlflow_tracking_uri is None:
        services.append(_mlflow(workspace, ports.mlflow))
    return services


def _prefect(port: int) -> Service:
    page = f"http://{HOST}:{port}"
    command = (PYTHON, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port))
    return Service("prefect", command, port, f"{page}/api/health", page)


def _mlflow(workspace: Workspace, port: int) -> Service:
    page = f"http://{HOST}:{port}"
    store = workspace.home / "mlflow"
    store.mkdir(parents=True, exist_ok=True)
    command = (
        *(PYTHON, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}"),
        *("--artifacts-destination", str(store / "artifacts")),
    )
    # In a folder of its own: its uvicorn imports from where it is started, PYTHONSAFEPATH or not.
    return Service("mlflow", command, port, f"{page}/health", page, folder=store)


def worker(port: int) -> Service:
    """Serves the deployments: starts flow runs when they are due."""
    return Service("worker", (PYTHON, "-m", "perpetune.flows"), port, f"http://{HOST}:{port}/health")


def gateway(port: int) -> Service:
    page = f"http://{HOST}:{port}"
    command = (PYTHON, "-m", "perpetune.gateway", "--host", HOST, "--port", str(port))
    return Service("gateway", command, port, f"{page}/healthz", f"{page}/v1")
