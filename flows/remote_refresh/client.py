"""Have a service refresh a copy of this workspace, and bring back what changed."""

from __future__ import annotations

import sys
import time
import uuid

from perpetune.errors import PerpetuneError
from perpetune.flows.remote_refresh.container import GOES_ON, read_outcome
from perpetune.flows.remote_refresh.copied_workspace import bring, read_manifest, send
from perpetune.training.remote.client import Patience, Service
from perpetune.training.remote.store import JobStore
from perpetune.workspace import Workspace

_PATIENCE = Patience()


def refresh_remotely(workspace: Workspace, root: JobStore, service: Service, patience: Patience = _PATIENCE) -> str:
    """Returns the outcome, as the flow `refresh` does. The copy is in the store only meanwhile.

    Raises PerpetuneError if a server is on this machine alone, the store or the service fails, the pipeline ends without an
    outcome, or the same file changed here and there; what a failed step left, such as a checkpoint, is brought back too.
    """
    require_reachable_servers(workspace)
    store = root.below(f"refreshes/{uuid.uuid4().hex}")
    send(workspace.root, store)
    sent = read_manifest(store)
    job = service.start(store.address)
    print(f"the refresh runs as {job}, on the copy {store.address}", file=sys.stderr)
    try:
        reason = _await_end(service, job, patience)
    except BaseException:
        service.stop(job)
        raise
    bring(store, workspace.root, sent)
    found = read_outcome(store)
    store.remove()
    if found is None or found["outcome"] in GOES_ON:
        raise PerpetuneError(f"the pipeline ended without an outcome: {reason}", where=job, do="read its log there")
    return str(found["outcome"])


def _await_end(service: Service, job: str, patience: Patience) -> str:
    heard_at = time.monotonic()
    while True:
        try:
            if (reason := service.why_ended(job)) is not None:
                return reason
            heard_at = time.monotonic()
        except PerpetuneError:
            if time.monotonic() - heard_at > patience.silent:
                raise
        time.sleep(patience.poll)


def require_reachable_servers(workspace: Workspace) -> None:
    """Raises PerpetuneError if the steps could not reach what holds versions, runs or the log."""
    settings = workspace.settings
    known = {
        "MLFLOW_TRACKING_URI": (settings.mlflow_tracking_uri or "").startswith("http"),
        "PREFECT_API_URL": settings.prefect_api_url is not None,
        "PERPETUNE_DATABASE_URL": settings.prediction_log.startswith("postgres"),
    }
    for variable, reachable in known.items():
        if not reachable:
            raise PerpetuneError(
                "the containers of a pipeline could not reach it", where=variable, do="name a server of the network"
            )
