"""MLflow tracking: a run for each refresh and each check."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path, PurePosixPath

import mlflow
import pandas as pd
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from mlflow.utils.rest_utils import http_request
from mlflow.utils.time import get_current_time_millis

from perpetune.errors import PerpetuneError
from perpetune.proxies import spare_this_machine
from perpetune.settings import Settings

# MLflow retries a dead server for minutes by default. Its progress bars and URLs would mix with a command's output.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

_SEARCH = "/api/2.0/mlflow/experiments/search"
# MLflow's other view, the default, is for agents and their traces.
_TRAINING_VIEW = "?workflowType=machine_learning"

MlflowError = MlflowException  # for modules that may not import MLflow
ACTIVE, YES = "perpetune.active", "yes"  # tag of a run that MLflow marks as finished while it goes on
ERROR = "error"  # tag of a run: what it failed with
_MAX_ERROR = 1000  # characters
_KIND = "perpetune.kind"  # tag: refresh, watch, first or tune
_MOST_UNFINISHED = 50


@dataclass(frozen=True)
class Run:
    """An MLflow run and its URL."""

    id: str
    experiment_id: str
    url: str


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that did not finish: it failed, was killed, or is marked as running. `finished` if MLflow marks it so."""

    run: Run
    running: bool
    tags: Mapping[str, str]
    params: Mapping[str, str]
    finished: bool = False


@dataclass(frozen=True)
class RunRecord:
    """A run without its artifacts; `metrics` are the last values."""

    run: Run
    started: datetime
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]

    @property
    def day(self) -> date:
        """The day on which it started, in UTC; a resumed run keeps it."""
        return self.started.astimezone(UTC).date()


@dataclass(frozen=True)
class EndedRun:
    """A run that finished or failed, with times in Unix seconds and the last value of each metric."""

    run_id: str
    began: float
    ended: float
    succeeded: bool
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Point:
    """The metrics of a step; `time` in Unix milliseconds."""

    step: int
    time: int
    metrics: Mapping[str, float]


def connect(uri: str) -> None:
    """Use the MLflow server at `uri`. Raises PerpetuneError if it does not answer or refuses the credentials."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    spare_this_machine()
    if uri.startswith("http"):
        _require_answer(uri)
    mlflow.set_tracking_uri(uri)


def _require_answer(uri: str) -> None:
    """Ask for one experiment as MLflow's client does: with its credentials, certificates and headers."""
    creds = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    try:
        answer = http_request(  # type: ignore[no-untyped-call]
            creds, _SEARCH, "GET", params={"max_results": 1}, max_retries=0, raise_on_status=False
        )
    except MlflowException as fault:
        raise PerpetuneError(
            f"the MLflow server does not answer at {uri} ({type(fault.__cause__ or fault).__name__})",
            where="MLFLOW_TRACKING_URI",
            do="start it with `perpetune up`, or correct MLFLOW_TRACKING_URI",
        ) from fault
    if answer.status_code in (401, 403):
        raise PerpetuneError(
            f"the MLflow server refuses these credentials ({answer.status_code})",
            where=uri,
            do="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        )
    if answer.status_code != 200:
        raise PerpetuneError(
            f"the MLflow server answers {answer.status_code}: {answer.text[:200]}",
            where=uri,
            do="correct MLFLOW_TRACKING_URI, or see the server's log",
        )


def open_run(experiment: str, name: str, tags: Mapping[str, str], params: Mapping[str, object]) -> Run:
    """Start a run, which is running until `close_run`."""
    client = MlflowClient()
    experiment_id = _experiment(client, experiment)
    run = client.create_run(experiment_id, run_name=name, tags=dict(tags))
    client.log_batch(run.info.run_id, params=[Param(key, value) for key, value in as_params(params).items()])
    return run_ref(experiment_id, run.info.run_id)


def as_params(values: Mapping[str, object]) -> dict[str, str]:
    """Values as MLflow stores them: strings of at most 6000 characters."""
    return {key: str(value)[:6000] for key, value in values.items()}


def reopen_run(run: Run, tags: Mapping[str, str]) -> Run:
    """Resume a run with new tags."""
    MlflowClient().update_run(run.id, status="RUNNING")
    drop_run_tag(run, ACTIVE)
    tag(run, tags)
    return run


def unfinished_runs(experiment: str, kind: str) -> list[UnfinishedRun]:
    """The newest runs tagged `perpetune.kind`=kind that did not finish, newest first; older ones may be left out.

    A run that was killed inside `active` is marked as finished by MLflow, and did not finish either.
    """
    experiment_id = _experiment_id(experiment)
    if experiment_id is None:
        return []
    found = _few_of_kind(experiment_id, kind, "attributes.status != 'FINISHED'")
    found += _few_of_kind(experiment_id, kind, f"attributes.status = 'FINISHED' and tags.`{ACTIVE}` = '{YES}'")
    newest_first = sorted(found, key=lambda each: each.info.start_time, reverse=True)
    return [_unfinished(each) for each in newest_first]


def _few_of_kind(experiment_id: str, kind: str, condition: str) -> list[MlflowRun]:
    """The newest runs of a kind, by a condition that few runs meet.

    To find a kind, MLflow's database reads the tags of every run there has been. So it is not asked for one, unless other
    kinds fill the answer.
    """
    found = _search(experiment_id, condition, _MOST_UNFINISHED)
    of_kind = _of_kind(found, kind)
    if len(found) < _MOST_UNFINISHED or len(of_kind) >= _MOST_UNFINISHED / 2:
        return of_kind
    return _search(experiment_id, f"{_is_of(kind)} and {condition}", _MOST_UNFINISHED)


def _is_of(kind: str) -> str:
    return f"tags.`{_KIND}` = '{kind}'"


def _of_kind(runs: Sequence[MlflowRun], kind: str) -> list[MlflowRun]:
    return [each for each in runs if each.data.tags.get(_KIND) == kind]


def newest_of_any_status(experiment: str, kind: str) -> UnfinishedRun | None:
    """The run tagged `perpetune.kind`=kind that began last, finished or not."""
    found = _runs(experiment, _is_of(kind), 1)
    return _unfinished(found[0]) if found else None


def _runs(experiment: str, query: str, most: int) -> list[MlflowRun]:
    experiment_id = _experiment_id(experiment)
    return [] if experiment_id is None else _search(experiment_id, query, most)


def _experiment_id(name: str) -> str | None:
    found = MlflowClient().get_experiment_by_name(name)
    return None if found is None else str(found.experiment_id)


def _search(experiment_id: str, query: str, most: int) -> list[MlflowRun]:
    newest_first = ["attributes.start_time DESC"]
    return [*MlflowClient().search_runs([experiment_id], query, ViewType.ACTIVE_ONLY, most, newest_first)]


def _unfinished(run: MlflowRun) -> UnfinishedRun:
    return UnfinishedRun(
        run_ref(run.info.experiment_id, run.info.run_id),
        run.info.status == "RUNNING",
        dict(run.data.tags),
        dict(run.data.params),
        run.info.status == "FINISHED",
    )


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:
        # Another process created it between the two calls.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def open_child(parent: Run, name: str, tags: Mapping[str, str], params: Mapping[str, object]) -> Run:
    """Start a child run of `parent`."""
    client = MlflowClient()
    run = client.create_run(parent.experiment_id, run_name=name, tags={**tags, MLFLOW_PARENT_RUN_ID: parent.id})
    client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in params.items()])
    return run_ref(parent.experiment_id, run.info.run_id)


def run_ref(experiment_id: str, run_id: str) -> Run:
    return Run(run_id, experiment_id, f"{ui_url()}/#/experiments/{experiment_id}/runs/{run_id}{_TRAINING_VIEW}")


def artifact_url(run_url: str, name: str) -> str:
    """The page of a run's artifact, from the page of the run."""
    page, mark, query = run_url.rpartition("?")
    return f"{page}/artifacts/{name}{mark}{query}" if mark else f"{run_url}/artifacts/{name}"


def runs_url(experiment: str) -> str:
    """The URL of an experiment's runs."""
    found = MlflowClient().get_experiment_by_name(experiment)
    position = f"/{found.experiment_id}/runs" if found else ""
    return f"{ui_url()}/#/experiments{position}{_TRAINING_VIEW}"


def ui_url() -> str:
    """The URL of MLflow's UI, which may differ from that of its API, for example in a container."""
    return (Settings().mlflow_ui_url or mlflow.get_tracking_uri()).rstrip("/")


def find_run(run_id: str) -> Run:
    return run_ref(MlflowClient().get_run(run_id).info.experiment_id, run_id)


def close_run(run: Run, *, succeeded: bool) -> None:
    MlflowClient().set_terminated(run.id, "FINISHED" if succeeded else "FAILED")


def tag_error(run: Run, fault: BaseException) -> None:
    """Tag a run with what it failed with, if MLflow still can: the run fails with its own error."""
    try:
        tag(run, {ERROR: str(fault)[:_MAX_ERROR] or type(fault).__name__})
    except (MlflowException, OSError):
        pass


def delete_run(run: Run) -> None:
    """Delete a run (MLflow keeps it in its trash)."""
    MlflowClient().delete_run(run.id)


def mark_killed(run: Run) -> None:
    """Set the status of a run whose process has ended to KILLED."""
    MlflowClient().set_terminated(run.id, "KILLED")


@contextmanager
def active(run: Run, *, log_system_metrics: bool = False) -> Iterator[None]:
    """Make it MLflow's active run. MLflow ends a run with this block, so it is reopened after it.

    A tag keeps a process that is killed in between from leaving a run that looks finished.
    """
    tag(run, {ACTIVE: YES})
    with mlflow.start_run(run_id=run.id, log_system_metrics=log_system_metrics):
        yield
    MlflowClient().update_run(run.id, status="RUNNING")
    drop_run_tag(run, ACTIVE)


@contextmanager
def system_metrics(run: Run) -> Iterator[None]:
    """Log system metrics (CPU, memory, GPU) to the run while the block runs."""
    mlflow.set_system_metrics_sampling_interval(5)  # type: ignore[no-untyped-call]
    mlflow.set_system_metrics_samples_before_logging(1)  # type: ignore[no-untyped-call]
    with active(run, log_system_metrics=True):
        yield


def log_metrics(run: Run, metrics: Mapping[str, float], step: int = 0) -> None:
    now = get_current_time_millis()  # type: ignore[no-untyped-call]
    MlflowClient().log_batch(run.id, metrics=[Metric(key, value, now, step) for key, value in metrics.items()])


def log_points(run: Run, points: Sequence[Point]) -> None:
    """Log the metrics of many steps in one request, at most 1000 metrics."""
    MlflowClient().log_batch(
        run.id,
        metrics=[
            Metric(key, value, point.time, point.step) for point in points for key, value in point.metrics.items()
        ],
    )


def last_step(run: Run, metric: str) -> int:
    """The last logged step of a metric; 0 if there is none."""
    return max((each.step for each in MlflowClient().get_metric_history(run.id, metric)), default=0)


def log_params(run: Run, params: Mapping[str, object]) -> None:
    """Log params. Raises PerpetuneError if one was logged before with another value."""
    try:
        MlflowClient().log_batch(run.id, params=[Param(key, value) for key, value in as_params(params).items()])
    except MlflowException as fault:
        if fault.error_code != "INVALID_PARAMETER_VALUE":
            raise
        raise PerpetuneError(
            f"the resumed run was started with other values: {fault.message}",
            where=run.url,
            do="delete that run in MLflow; the next one then starts a new run",
        ) from fault


def tag(run: Run, tags: Mapping[str, str]) -> None:
    MlflowClient().log_batch(run.id, tags=[RunTag(key, value) for key, value in tags.items()])


def drop_run_tag(run: Run, key: str) -> None:
    """Remove a tag of a run, if it has it."""
    if key in MlflowClient().get_run(run.id).data.tags:
        MlflowClient().delete_tag(run.id, key)


def log_file(run: Run, path: Path, folder: str | None = None) -> None:
    MlflowClient().log_artifact(run.id, str(path), folder)


def log_text(run: Run, text: str, name: str) -> None:
    MlflowClient().log_text(run.id, text, name)


def log_table(run: Run, table: pd.DataFrame, name: str) -> None:
    """Log a table as an MLflow table artifact, replacing one of the same name; `name` ends in .json."""
    client = MlflowClient()
    if any(each.path == name for each in client.list_artifacts(run.id, str(PurePosixPath(name).parent))):
        # MLflow's log_table would append the rows.
        client.log_text(run.id, table.to_json(orient="split", index=False, date_format="iso"), name)
    else:
        client.log_table(run.id, table, name)


def log_dataset(run: Run, name: str, version: str, source: str, rows: int, context: str) -> None:
    """Log a dataset of the run: name, DVC version and size, not the rows."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag

    dataset = MetaDataset(  # type: ignore[abstract]
        source=CodeDatasetSource(tags={"dvc.output": source, "dvc.md5": version, "rows": str(rows)}),
        name=name,
        digest=version[:36],
    )
    MlflowClient().log_inputs(
        run.id, [DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])]
    )


def artifact(run_id: str, name: str, folder: Path) -> Path | None:
    """A local copy of a run's artifact; None if the run has no such artifact.

    Raises PerpetuneError if MLflow or its artifact store fails, because that says nothing about the artifact.
    """
    client, parent = MlflowClient(), PurePosixPath(name).parent
    try:
        listed = client.list_artifacts(run_id, None if parent == PurePosixPath(".") else str(parent))
        if name not in {each.path for each in listed}:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        return Path(client.download_artifacts(run_id, name, str(folder)))
    except (MlflowException, OSError) as fault:
        raise PerpetuneError(
            f"{name} of the run {run_id} cannot be read: {fault}",
            where=mlflow.get_tracking_uri(),
            do="check that MLflow and its artifact store can be reached",
        ) from fault


def artifact_names(run_id: str, folder: str) -> list[str]:
    """The sorted paths of a run's artifacts in a folder; [] if there is no such folder."""
    return sorted(str(each.path) for each in MlflowClient().list_artifacts(run_id, folder))


def newest_run(experiment: str, kind: str) -> tuple[Run, float] | None:
    """The newest finished run tagged `perpetune.kind`=kind, and its end time (Unix seconds)."""
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    runs = client.search_runs(
        [found.experiment_id],
        f"{_is_of(kind)} and attributes.status = 'FINISHED'",
        ViewType.ACTIVE_ONLY,
        max_results=1,
        order_by=["attributes.end_time DESC"],
    )
    if not runs:
        return None
    return run_ref(found.experiment_id, runs[0].info.run_id), (runs[0].info.end_time or 0) / 1000


def newest_tagged(experiment: str, key: str, *, but: str) -> str | None:
    """The id of the newest run that has the tag, but for one run; None if there is none."""
    found = _runs(experiment, f"tags.`{key}` != ''", 2)
    return next((each.info.run_id for each in found if each.info.run_id != but), None)


def newest_finished(experiment: str, kind: str) -> EndedRun | None:
    """The run tagged `perpetune.kind`=kind that began last, of those that finished."""
    found = _runs(experiment, f"{_is_of(kind)} and attributes.status = 'FINISHED'", 1)
    return _ended(found[0]) if found else None


def newest_ended(experiment: str, kind: str) -> EndedRun | None:
    """The newest run tagged `perpetune.kind`=kind that has ended, whether it succeeded, failed or was killed.

    MLflow's database finds those of a day by their start much faster than all of a kind, of which there may be a check an
    hour for years.
    """
    experiment_id, ended = _experiment_id(experiment), "attributes.status != 'RUNNING'"
    if experiment_id is None:
        return None
    day_ago = int(1000 * (datetime.now(UTC) - timedelta(days=1)).timestamp())
    found = _of_kind(_search(experiment_id, f"{ended} and attributes.start_time >= {day_ago}", 5), kind)
    found = found or _search(experiment_id, f"{_is_of(kind)} and {ended}", 1)
    return _ended(found[0]) if found else None


def read_run(run_id: str) -> RunRecord:
    """Read a run."""
    found = MlflowClient().get_run(run_id)
    return RunRecord(
        run_ref(found.info.experiment_id, run_id),
        datetime.fromtimestamp(found.info.start_time / 1000, UTC),
        dict(found.data.tags),
        dict(found.data.params),
        dict(found.data.metrics),
    )


def curve_of(run_id: str, metric: str) -> dict[int, float]:
    """The history of a metric by step; {} if the run has none of that name."""
    return {each.step: each.value for each in MlflowClient().get_metric_history(run_id, metric)}


def ended_runs(experiment: str, kind: str, since: float) -> list[EndedRun]:
    """Runs tagged `perpetune.kind`=kind started since `since` (Unix seconds) that finished or failed, oldest first."""
    experiment_id = _experiment_id(experiment)
    if experiment_id is None:
        return []
    query = f"{_is_of(kind)} and attributes.start_time >= {int(since * 1000)}"
    oldest_first = ["attributes.start_time"]
    search = partial(MlflowClient().search_runs, [experiment_id], query, ViewType.ACTIVE_ONLY, order_by=oldest_first)
    page = search()
    runs = list(page)
    while page.token:
        page = search(page_token=page.token)
        runs += page
    return [_ended(run) for run in runs if run.info.status in ("FINISHED", "FAILED") and run.info.end_time]


def _ended(run: MlflowRun) -> EndedRun:
    return EndedRun(
        run.info.run_id,
        run.info.start_time / 1000,
        (run.info.end_time or run.info.start_time) / 1000,
        run.info.status == "FINISHED",
        dict(run.data.tags),
        dict(run.data.metrics),
    )


def metrics_of(run_id: str) -> dict[str, float]:
    """The last value of each metric of a run."""
    return dict(MlflowClient().get_run(run_id).data.metrics)
