"""`perpetune replay` and `perpetune calibrate`: from what a person typed to what is replayed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import yaml
from pydantic import ValidationError
from rich.console import Console

from perpetune.curation.readers.reader import read_examples
from perpetune.errors import PerpetuneError
from perpetune.evaluation.report.style import write_png
from perpetune.files import write_atomic
from perpetune.params import Params
from perpetune.records import parse_time
from perpetune.replay.calibrate import Calibration, calibrate
from perpetune.replay.histories.history import History, between, divided, read_history
from perpetune.replay.histories.recorded import recorded_history
from perpetune.replay.histories.reviews import STREAMS, review_history
from perpetune.replay.models.learner import Learner
from perpetune.replay.models.surrogate import Surrogate
from perpetune.replay.replay import Replay, policies, replay
from perpetune.replay.report.plot import scores_over_time
from perpetune.replay.report.progress import bars
from perpetune.replay.stable_period import stable_scores
from perpetune.workspace import Workspace

MODELS = ("stand-in", "base")


@dataclass(frozen=True)
class Source:
    """What is replayed: a file, a bundled stream, or (None) the prediction log; `start` is the share that is taught."""

    history: str | None
    label_delay: timedelta
    changes: tuple[datetime, ...] = ()
    examples: Path | None = None
    start: float = 0.3


def source_of(
    history: str | None, label_delay: float, changes: Sequence[str], examples: Path | None, start: float
) -> Source:
    """What somebody typed: hours, and times in ISO 8601."""
    times = tuple(moment(text) for text in changes)
    return Source(history, timedelta(hours=label_delay), times, examples, start)


def read_source(source: Source, workspace: Workspace) -> History:
    """The history, not divided yet. Raises PerpetuneError where it cannot be read."""
    if source.history is None:
        history = recorded_history(workspace)
    elif stream := next((name for name in STREAMS if name == source.history), None):
        history = review_history(stream, workspace.assets, source.label_delay)
    else:
        history = read_history(Path(source.history), source.label_delay)
    changes = tuple(sorted({*history.changes, *source.changes}))
    taught = history.taught
    if source.examples is not None:
        found = read_examples(source.examples, "taught")
        taught = tuple(row.model_copy(update={"source": "taught"}) for row in found.examples)
    return replace(history, changes=changes, taught=taught)


def learner_of(
    model: str, workspace: Workspace, folder: Path, minutes: float | None, tell: Callable[[str], None]
) -> Learner:
    params = workspace.params
    if model not in MODELS:
        raise PerpetuneError(f"there is no model {model!r} to replay with", do=f"name one of: {', '.join(MODELS)}")
    if model == "stand-in":
        standing = Surrogate(params.task.kind, params.evaluate.seed)
        return standing if minutes is None else replace(standing, minutes=minutes)
    from perpetune.replay.models.base_model import BaseModel

    return BaseModel(workspace, folder / "models", tell)


def replayed(
    source: Source,
    workspace: Workspace,
    model: str,
    folder: Path,
    minutes: float | None,
    only: Sequence[str],
    console: Console,
) -> Replay:
    """Replay with a bar for each policy, and write replay.json and replay.png into the folder."""
    history = divided(read_source(source, workspace), source.start)
    names = [policy.name for policy in policies(workspace.params)]
    strange = [name for name in only if name not in names]
    if strange:
        raise PerpetuneError(f"there is no policy {strange[0]!r}", do=f"name one of: {', '.join(names)}")
    with bars(console, len(history.requests)) as (tell, step):
        learner = learner_of(model, workspace, folder, minutes, tell)
        found = replay(history, learner, workspace.params, tell, step, only)
    write_atomic(folder / "replay.json", json.dumps(asdict(found), indent=2, ensure_ascii=False, default=str) + "\n")
    write_png(scores_over_time(found, history.changes), folder / "replay.png")
    return found


def with_settings(workspace: Workspace, settings: Sequence[str]) -> Workspace:
    """The workspace with settings changed for this command, each like `watch.margin=0.03`.

    Raises PerpetuneError where there is no such setting, or the value does not fit it.
    """
    values = workspace.params.model_dump(mode="json")
    for setting in settings:
        field, _, value = setting.partition("=")
        section, _, name = field.partition(".")
        if name not in values.get(section, {}):
            raise PerpetuneError(f"{setting}: there is no such setting", do="write it like watch.margin=0.03")
        values[section][name] = yaml.safe_load(value)
    try:
        return replace(workspace, params=Params.model_validate(values))
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise PerpetuneError(f"{where}: {first['msg']}, got {first['input']!r}") from None


def moment(text: str) -> datetime:
    """An ISO 8601 time that somebody typed. Raises PerpetuneError where it is none."""
    try:
        return parse_time(text)
    except ValueError:
        raise PerpetuneError(f"{text!r} is no ISO 8601 time", do="write it like 2024-05-01T12:00:00Z") from None


def calibrated(
    source: Source, workspace: Workspace, start: str | None, end: str | None, budget: float, console: Console
) -> tuple[Calibration, str]:
    """What the stretch suggests, and whose answers it was measured on."""
    stretch = between(read_source(source, workspace), moment(start) if start else None, moment(end) if end else None)
    learner = Surrogate(workspace.params.task.kind, workspace.params.evaluate.seed)
    with console.status("answering the stretch") as status:
        stable = stable_scores(stretch, learner, workspace.params, source.start, status.update)
        found = calibrate(stable.scores, stable.days, stable.holdout, budget, workspace.params, status.update)
    return found, stable.answered_by
