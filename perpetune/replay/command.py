"""The commands `perpetune replay` and `perpetune calibrate`: options, input files and output files."""

from __future__ import annotations

import json
import warnings
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
from perpetune.replay.histories.history import History, between, read_history, with_initial_examples
from perpetune.replay.histories.recorded import recorded_history
from perpetune.replay.histories.reviews import review_history, stream_named
from perpetune.replay.models.learner import Learner
from perpetune.replay.models.surrogate import Surrogate
from perpetune.replay.replay import Replay, policies, replay
from perpetune.replay.report.plot import scores_over_time
from perpetune.replay.report.progress import progress_bars
from perpetune.replay.stable_period import stable_scores
from perpetune.workspace import Workspace

MODELS = ("surrogate", "base")


@dataclass(frozen=True)
class Source:
    """The source of a history: a file, a bundled stream, or the prediction log (None).

    `start` is the ratio of requests that the first model is trained on, if there are no `examples` for that.
    """

    history: str | None
    label_delay: timedelta
    changes: tuple[datetime, ...] = ()
    examples: Path | None = None
    start: float = 0.3


def source_of(
    history: str | None, label_delay: float, changes: Sequence[str], examples: Path | None, start: float
) -> Source:
    """The source from command-line options: `label_delay` in hours, `changes` as ISO 8601 times."""
    times = tuple(parse_time_option(text) for text in changes)
    return Source(history, timedelta(hours=label_delay), times, examples, start)


def read_source(source: Source, workspace: Workspace) -> History:
    """Read the whole history. Raises PerpetuneError if it cannot be read."""
    if source.history is None:
        history = recorded_history(workspace)
    elif stream := stream_named(source.history):
        history = review_history(stream, workspace.assets, source.label_delay)
    else:
        history = read_history(Path(source.history), source.label_delay)
    changes = tuple(sorted({*history.changes, *source.changes}))
    initial = history.initial
    if source.examples is not None:
        found = read_examples(source.examples, "initial")
        initial = tuple(row.model_copy(update={"source": "initial"}) for row in found.examples)
    return replace(history, changes=changes, initial=initial)


def learner_of(
    model: str, workspace: Workspace, folder: Path, minutes: float | None, log: Callable[[str], None]
) -> Learner:
    params = workspace.params
    if model == "stand-in":
        warnings.warn("the model `stand-in` is now called `surrogate`", FutureWarning, stacklevel=2)
        model = "surrogate"
    if model not in MODELS:
        raise PerpetuneError(f"unknown model {model!r}", where="--model", do=f"use one of: {', '.join(MODELS)}")
    if model == "surrogate":
        surrogate = Surrogate(params.task.kind, params.evaluate.seed)
        return surrogate if minutes is None else replace(surrogate, minutes=minutes)
    from perpetune.replay.models.base_model import BaseModel

    return BaseModel(workspace, folder / "models", log)


def run_replay(
    source: Source,
    workspace: Workspace,
    model: str,
    folder: Path,
    minutes: float | None,
    only: Sequence[str],
    console: Console,
) -> Replay:
    """Replay with a progress bar for each policy, and write replay.json and replay.png into the folder."""
    history = with_initial_examples(read_source(source, workspace), source.start)
    names = [policy.name for policy in policies(workspace.params)]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise PerpetuneError(f"unknown policy {unknown[0]!r}", where="--policy", do=f"use one of: {', '.join(names)}")
    with progress_bars(console, len(history.requests)) as (log, step):
        learner = learner_of(model, workspace, folder, minutes, log)
        found = replay(history, learner, workspace.params, log, step, only)
    write_atomic(folder / "replay.json", json.dumps(asdict(found), indent=2, ensure_ascii=False, default=str) + "\n")
    write_png(scores_over_time(found, history.changes), folder / "replay.png")
    return found


def with_settings(workspace: Workspace, settings: Sequence[str]) -> Workspace:
    """The workspace with settings overridden, each as in `watch.margin=0.03`.

    Raises PerpetuneError if there is no such setting or the value is invalid.
    """
    values = workspace.params.model_dump(mode="json")
    for setting in settings:
        field, _, value = setting.partition("=")
        section, _, name = field.partition(".")
        if name not in values.get(section, {}):
            raise PerpetuneError(f"unknown setting {setting}", do="write it as in watch.margin=0.03")
        values[section][name] = yaml.safe_load(value)
    try:
        return replace(workspace, params=Params.model_validate(values))
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise PerpetuneError(f"{where}: {first['msg']}, got {first['input']!r}") from None


def parse_time_option(text: str) -> datetime:
    """Parse an ISO 8601 time. Raises PerpetuneError if it is not one."""
    try:
        return parse_time(text)
    except ValueError:
        raise PerpetuneError(f"{text!r} is not an ISO 8601 time", do="write it as in 2024-05-01T12:00:00Z") from None


def run_calibration(
    source: Source, workspace: Workspace, start: str | None, end: str | None, budget: float, console: Console
) -> tuple[Calibration, str]:
    """The calibration on the period from `start` to `end`, and the model whose answers were scored."""
    period = between(
        read_source(source, workspace),
        parse_time_option(start) if start else None,
        parse_time_option(end) if end else None,
    )
    learner = Surrogate(workspace.params.task.kind, workspace.params.evaluate.seed)
    with console.status("answering the requests of the period") as status:
        stable = stable_scores(period, learner, workspace.params, source.start, status.update)
        found = calibrate(stable.scores, stable.days, stable.holdout, budget, workspace.params, status.update)
    return found, stable.answered_by
