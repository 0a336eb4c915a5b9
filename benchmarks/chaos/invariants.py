"""What must hold whatever broke, read from the databases and services themselves; each check returns what is wrong."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient
from sqlalchemy import Engine, select

from chaos import task
from chaos.load import FailedRequest, Load
from chaos.world import ENGINES, GATEWAYS, World
from perpetune.audit.entry import verify
from perpetune.audit.store import entries
from perpetune.errors import PerpetuneError
from perpetune.loop.run_context import LATER, RECORD
from perpetune.prediction_log.database import open_log
from perpetune.prediction_log.tables import feedback, predictions
from perpetune.runtime.prefect_api import Prefect
from perpetune.tracking.alias_moves import MOVE
from perpetune.tracking.runs import artifact, artifact_names

DRAIN_SECONDS, AGREE_SECONDS, ZOMBIE_SECONDS = 120.0, 120.0, 420.0
LONGEST_RUN_SECONDS = 1800.0  # of a run that is alive, on a busy machine
_CHUNK = 5000


def note_lost(world: World, load: Load) -> None:
    """Note which acknowledged answers and labels are missing, which were not noted before."""
    answered, labelled = load.acknowledged()
    labels = {name: label for name, label in labelled.items() if name not in load.lost_labels}
    answers, unlabelled = _missing(world, answered - load.lost_answers, labels)
    load.lost_answers |= answers
    load.lost_labels |= unlabelled


def all_lost(world: World, load: Load) -> list[str]:
    """Whatever a client was told is looked for once more."""
    answers, labels = _missing(world, *load.acknowledged())
    return [f"answer {name} is lost" for name in answers] + [f"the label of {name} is lost" for name in labels]


def _missing(world: World, answered: set[str], labels: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """The answers, and the answers whose labels, are not in the prediction log, once it is written."""
    deadline = time.monotonic() + DRAIN_SECONDS
    log = open_log(world.workspace.settings.prediction_log)
    try:
        while True:
            without, stored = answered - _stored(log), _labelled(log)
            unlabelled = {name for name, label in labels.items() if (name, label) not in stored}
            if not (without or unlabelled) or time.monotonic() > deadline:
                return without, unlabelled
            time.sleep(1)
    finally:
        log.dispose()


def _stored(log: Engine) -> set[str]:
    with log.connect() as connection:
        return set(connection.execute(select(predictions.c.id)).scalars())


def _labelled(log: Engine) -> set[tuple[str, str]]:
    with log.connect() as connection:
        return {(row[0], row[1]) for row in connection.execute(select(feedback.c.request_id, feedback.c.label))}


def failed_while_served(world: World, failed: Sequence[FailedRequest]) -> list[str]:
    """Why requests failed although an engine and a gateway were unbroken all the time."""
    return [
        each.why
        for each in failed
        if world.lived(ENGINES, each.since, each.until) and world.lived(GATEWAYS, each.since, each.until)
    ]


def audit_log(world: World) -> list[str]:
    log = open_log(world.workspace.settings.prediction_log)
    try:
        verify(entries(log))
    except PerpetuneError as fault:
        return [str(fault)]
    finally:
        log.dispose()
    return []


def one_champion(world: World) -> list[str]:
    """Both gateways serve the version with the alias, and no move of the aliases is left half done."""
    problems: list[str] = []

    def agree() -> bool:
        problems[:] = list(_disagreements(world))
        return not problems

    deadline = time.monotonic() + AGREE_SECONDS
    while not agree() and time.monotonic() < deadline:
        time.sleep(1)
    return problems


def _disagreements(world: World) -> Iterator[str]:
    model = MlflowClient().get_registered_model(task.NAME)
    champion = model.aliases.get("champion")
    if champion is None:
        yield "there is no champion"
    if MOVE in model.tags:
        yield "a move of the aliases is not completed"
    if champion is not None and model.aliases.get("previous") == champion:
        yield f"version {champion} is champion and previous"
    for name in GATEWAYS:
        state = httpx.get(f"http://127.0.0.1:{world.direct[name]}/readyz", timeout=20).json()
        if state.get("serving") != str(champion):
            yield f"{name} serves {state.get('serving')}, champion is {champion}"


def decisions_once(world: World) -> list[str]:
    """Every decision record is in the audit log once; every decision in the audit log has its record, and its tag.

    Retention deletes the runs of old checks with their records, so only runs that are there are compared.
    """
    log = open_log(world.workspace.settings.prediction_log)
    try:
        decided = [each.event for each in entries(log) if each.event.action.startswith("decided")]
    finally:
        log.dispose()
    runs = _runs()
    records = {digest: where for run in runs for digest, where in _records(run.info.run_id)}
    known = {run.info.run_id for run in runs}
    audited = Counter(each.details["record"] for each in decided)
    problems = [
        f"{where} is in the audit log {audited[digest]} times"
        for digest, where in records.items()
        if audited[digest] != 1
    ]
    problems += [
        f"{each.action} on {each.subject} ({each.details['outcome']}) is in the audit log without a record"
        for each in decided
        if each.details["record"] not in records and each.details["run"] in known
    ]
    untagged = [
        run for run in runs if RECORD in artifact_names(run.info.run_id, "") and "decision" not in run.data.tags
    ]
    return problems + [f"run {run.info.run_id} has a decision record and no tag of it" for run in untagged]


def _runs() -> list[Run]:
    experiment = MlflowClient().get_experiment_by_name(task.NAME)
    if experiment is None:
        return []
    found: list[Run] = []
    token: str | None = None
    while True:
        page = MlflowClient().search_runs(
            [experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY, max_results=500, page_token=token
        )
        found += page
        token = page.token
        if not token:
            return found


def _records(run_id: str) -> Iterator[tuple[str, str]]:
    """The digest and place of each decision record of a run."""
    with TemporaryDirectory() as folder:
        for name in [RECORD, *artifact_names(run_id, LATER)]:
            path = artifact(run_id, name, Path(folder))
            if path is not None:
                yield hashlib.sha256(path.read_bytes()).hexdigest(), f"{name} of run {run_id}"


def none_running(world: World) -> list[str]:
    """Flow runs that are not suspended for a person and have not ended, once heartbeats have been missed for long.

    Those whose processes live are waited for first.
    """
    until = time.monotonic() + LONGEST_RUN_SECONDS
    while world.processes["worker"].children() and time.monotonic() < until:
        time.sleep(3)
    return _until_none(lambda: _unfinished(world.prefect), ZOMBIE_SECONDS)


def _unfinished(prefect: Prefect) -> list[str]:
    body = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}, "limit": 200}
    found = httpx.post(f"{prefect.url}/flow_runs/filter", json=body, timeout=30).raise_for_status().json()
    return [f"flow run {each['name']} is {each['state']['type']}" for each in found]


def no_open_mlflow_run(_world: World) -> list[str]:
    """After the last check and refresh, which end what killed ones left."""
    return [f"MLflow run {run.info.run_name} is RUNNING" for run in _runs() if run.info.status == "RUNNING"]


def _until_none(find: Callable[[], list[str]], seconds: float) -> list[str]:
    deadline = time.monotonic() + seconds
    while (found := find()) and time.monotonic() < deadline:
        time.sleep(3)
    return found


AFTER_A_ROUND: Sequence[Callable[[World], list[str]]] = (audit_log, one_champion)
IN_THE_END: Mapping[str, Callable[[World], list[str]]] = {
    "no flow run is left as running": none_running,
    "one champion, served by both gateways": one_champion,
    "the audit log is intact": audit_log,
    "decisions are recorded once": decisions_once,
    "no MLflow run is left as running": no_open_mlflow_run,
}
