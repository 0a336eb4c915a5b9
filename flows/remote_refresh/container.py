"""`python -m perpetune.flows.remote_refresh.container STEP ADDRESS`: one step of a refresh on the copied workspace.

This is the command of a container. It needs perpetune, credentials for the store, and the addresses of MLflow, Prefect and
PostgreSQL, as a worker has them. `outcome.json` in the store says how far the refresh has come.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State

from perpetune.errors import PerpetuneError
from perpetune.flows.refresh import refresh
from perpetune.flows.remote_refresh.copied_workspace import fetch, send
from perpetune.flows.remote_refresh.steps import STEPS, Step
from perpetune.training.remote.store import JobStore

OUTCOME = "outcome.json"
GOES_ON = ("curated", "trained")


def run_step(step: Step, store: JobStore) -> str:
    """Returns the outcome of the refresh so far. If it has ended in an earlier step, nothing is done."""
    before = read_outcome(store)
    if before is not None and before["outcome"] not in GOES_ON:
        return str(before["outcome"])
    with tempfile.TemporaryDirectory(prefix="perpetune-refresh-") as scratch:
        root = Path(scratch)
        fetch(store, root)
        os.chdir(root)
        try:
            outcome, flow_run = _refreshed(step, None if before is None else str(before["flow_run"]))
        finally:
            send(root, store)  # a checkpoint, of a step that failed too
            os.chdir("/")
    store.write(OUTCOME, json.dumps({"outcome": outcome, "flow_run": flow_run}).encode())
    return outcome


def read_outcome(store: JobStore) -> dict[str, Any] | None:
    content = store.read(OUTCOME)
    return None if content is None else dict(json.loads(content))


def _refreshed(step: Step, goes_on: str | None) -> tuple[str, str]:
    """The outcome and the id of the flow run."""
    state: State[str] = refresh(
        trigger="manual",
        reason=f"a pipeline, step {step.name}",
        until=step.until,
        goes_on=goes_on,
        return_state=True,
    )
    outcome = state.result()
    return str(outcome), str(state.state_details.flow_run_id)


def main(given: list[str]) -> int:
    by_name = {step.name: step for step in STEPS}
    if len(given) != 2 or given[0] not in by_name:
        print(f"usage: python -m {__spec__.name} {{{','.join(by_name)}}} ADDRESS", file=sys.stderr)
        return 2
    try:
        print(run_step(by_name[given[0]], JobStore(given[1])))
        return 0
    except PerpetuneError as fault:
        print(fault, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
