"""`perpetune annotate`: rows out to people, in Label Studio or by files, and their labels home."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from perpetune.cli.console import Json, for_people, prediction_log, print_json, say, shown
from perpetune.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from perpetune.annotation.agreement import Agreement
    from perpetune.annotation.bring import Brought
    from perpetune.annotation.records import AnnotationTask
    from perpetune.annotation.server import LabelStudio
    from perpetune.prediction_log.labels.rule import LabelRule

commands = typer.Typer(
    help="Rows out to people, in Label Studio or by files, and their labels home.",
    epilog="Example: `perpetune annotate push`, then `perpetune annotate pull`",
    no_args_is_help=True,
)

Project = Annotated[str | None, typer.Option(help="The title of the project; else `perpetune TASK`.")]
Url = Annotated[
    str | None,
    typer.Option(
        help="Label Studio's address; else the environment's LABEL_STUDIO_URL. The key is LABEL_STUDIO_API_KEY."
    ),
]
SHOWN = 10


@commands.command(epilog="Example: `perpetune annotate push`, or `perpetune annotate push --out tasks.json`")
def push(
    errors: Annotated[int, typer.Option(help="Most rows whose label is probably wrong.", min=0)] = 50,
    requests: Annotated[
        int | None, typer.Option(help="Most open label requests; 0 asks for none. Else watch.label_requests.", min=0)
    ] = None,
    drift: Annotated[
        float, typer.Option(help="Ratio of new requests that are most unlike the training data.", min=0, max=1)
    ] = 0.2,
    rows: Annotated[str | None, typer.Option(help="A file of rows without an output, to be labelled.")] = None,
    annotators: Annotated[int | None, typer.Option(help="How many people annotate each task.", min=1)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a file to import instead, for those without a server.")
    ] = None,
    format: Annotated[Literal["label-studio", "argilla"], typer.Option(help="The format of --out.")] = "label-studio",
    project: Project = None,
    url: Url = None,
    json_: Json = False,
) -> None:
    """Send the rows most worth a look to people: probable label errors, doubtful, unlike and random requests.

    What the project has already is not sent again. Suggestions are shown as predictions, except for random requests.
    """
    from perpetune.annotation import exchange
    from perpetune.annotation.projects import default_title, note_project
    from perpetune.loop.label_rule import label_rule_at_hand

    with for_people():
        workspace = open_workspace()
        rule = label_rule_at_hand(workspace)
        labels = _labels(workspace, rule)
        with prediction_log() as log:
            tasks = _tasks(workspace, log, rule, errors, requests, drift, rows)
        counts = _counts(tasks)
        if out:
            exchange.write_tasks(out, tasks, format, labelled=labels is not None)
            if json_:
                print_json({"file": str(out), "tasks": counts})
            else:
                say(f"{len(tasks):,} tasks in {shown(out)} ({_listed(counts)})")
                if format == "label-studio":
                    config = out.with_suffix(".xml")
                    say(f"the labelling configuration of the project: {shown(_config(config, labels))}")
                say("bring the export home with `perpetune annotate pull --bring FILE`")
            return
        with _server(workspace, url) as server:
            title = project or default_title(workspace.params.task.name)
            note_project(workspace.root, server.address, title)
            done = exchange.push(server, title, tasks, labels, annotators)
        if json_:
            print_json({**asdict(done), "tasks": counts})
            return
        say(f"{done.added:,} tasks added, {done.known:,} were there already ({_listed(counts)})")
        say(done.url)


@commands.command(epilog="Example: `perpetune annotate pull`, or `perpetune annotate pull --bring export.json`")
def pull(
    bring: Annotated[
        Path | None, typer.Option(help="Read an export of Label Studio (JSON) or Argilla instead.")
    ] = None,
    project: Project = None,
    url: Url = None,
    json_: Json = False,
) -> None:
    """Bring annotations home: those of requests as feedback, those of rows as newer versions in the inbox."""
    from perpetune.annotation import exchange
    from perpetune.annotation.agreement import agreement
    from perpetune.annotation.bring import bring as bring_home
    from perpetune.annotation.bring import record
    from perpetune.annotation.decide import decide
    from perpetune.annotation.projects import default_title
    from perpetune.loop.label_rule import label_rule_at_hand
    from perpetune.prediction_log.redaction import Redactor, group_key

    with for_people():
        workspace = open_workspace()
        if bring:
            annotations = exchange.read_annotations(bring)
        else:
            with _server(workspace, url) as server:
                annotations = exchange.pull(server, project or default_title(workspace.params.task.name))
        recorded = record(annotations, workspace.root)
        decided, undecided = decide(recorded.every, label_rule_at_hand(workspace))
        redactor = Redactor(group_key(None)) if workspace.params.log.redact else None
        with prediction_log() as log:
            brought = bring_home(decided, undecided, recorded.new, workspace.root, log, redactor)
        found = agreement(recorded.every)
        if json_:
            print_json(_as_json(brought, found, len(annotations), len(recorded.new)))
        else:
            _show(brought, found, len(annotations), len(recorded.new))


def _tasks(
    workspace: Workspace,
    log: Engine,
    rule: LabelRule,
    errors: int,
    requests: int | None,
    drift: float,
    rows: str | None,
) -> list[AnnotationTask]:
    from perpetune.annotation import choose
    from perpetune.records import Example, read_jsonl

    params = workspace.params
    train = workspace.split("train")
    sampling = choose.Sampling(
        requests=params.watch.label_requests if requests is None else requests,
        window=params.watch.window,
        random_ratio=params.watch.random_label_ratio,
        drift_ratio=drift,
        seed=params.split.seed,
        kind=params.task.kind,
    )
    known = read_jsonl(train, Example) if train.is_file() else []
    unlike = choose.ask(log, params.task.name, known, sampling, rule)
    return [
        *choose.requests(log, params.task.name, rule, unlike),
        *choose.suspects(workspace.root, errors),
        *(_new_rows(rows) if rows else ()),
    ]


def _new_rows(address: str) -> list[AnnotationTask]:
    from perpetune.annotation.choose import new_rows
    from perpetune.curation.inbox.files import source_name
    from perpetune.curation.readers.addresses.address import local_copies
    from perpetune.curation.readers.unlabelled import read_unlabelled

    with local_copies(address) as files:
        read = [read_unlabelled(file.path, source_name(file.path), shown=Path(file.address)) for file in files]
    return [task for each in read for task in new_rows(each)]


def _labels(workspace: Workspace, rule: LabelRule) -> list[str] | None:
    """The labels to choose from; None for free text. Raises PerpetuneError if they are not known."""
    from perpetune.errors import PerpetuneError

    if workspace.params.task.kind == "generation":
        return None
    if not rule.labels:
        raise PerpetuneError(
            "the task's labels are not known", where="params.yaml", do="set task.labels, or ingest examples"
        )
    return sorted(rule.labels)


def _server(workspace: Workspace, url: str | None) -> AbstractContextManager[LabelStudio]:
    from perpetune.annotation.server import KEY_VARIABLE, URL_VARIABLE, label_studio
    from perpetune.errors import PerpetuneError

    address, key = url or workspace.settings.label_studio_url, workspace.settings.label_studio_api_key
    if not address or not key:
        missing, what = (KEY_VARIABLE, "an access token") if address else (URL_VARIABLE, "the address")
        raise PerpetuneError(
            f"the environment variable {missing} is not set",
            do=f"set it to {what} of your Label Studio, or use --out and --bring without one",
        )
    return label_studio(address, key.get_secret_value())


def _config(path: Path, labels: list[str] | None) -> Path:
    from perpetune.annotation.label_studio import labelling_config
    from perpetune.files import write_atomic

    return write_atomic(path, labelling_config(labels))


def _counts(tasks: list[AnnotationTask]) -> dict[str, int]:
    kinds = {"request": "requests", "row": "probable label errors", "new": "rows without a label"}
    return {name: sum(task.subject.kind == kind for task in tasks) for kind, name in kinds.items()}


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _show(brought: Brought, found: Agreement, annotations: int, new: int) -> None:
    say(f"{annotations:,} annotations, {new:,} of them new")
    say(
        f"{brought.feedback:,} labels of requests, {brought.corrected:,} rows corrected, {brought.added:,} rows added, "
        f"{brought.confirmed:,} labels confirmed"
    )
    if brought.file:
        say(f"the rows are in {shown(brought.file)}, and newer than those of earlier files")
    if brought.undecided:
        say(f"{len(brought.undecided):,} are left as they were:")
    for each in brought.undecided[:SHOWN]:
        say(f"  {each.subject.id}: {each.reason}")
    if found.rows:
        say(f"agreement on {found.rows:,} rows with several annotators: Krippendorff's alpha {_number(found.alpha)}")
    for pair in found.pairs:
        say(f"  {pair.one} and {pair.other}: Cohen's kappa {_number(pair.kappa)} on {pair.rows:,} rows")


def _number(value: float | None) -> str:
    return "undefined, because all labels are the same" if value is None else f"{value:.2f}"


def _as_json(brought: Brought, found: Agreement, annotations: int, new: int) -> dict[str, object]:
    undecided = [{**each.subject.model_dump(exclude={"row"}), "reason": each.reason} for each in brought.undecided]
    return {
        "annotations": annotations,
        "new": new,
        **asdict(brought),
        "undecided": undecided,
        "agreement": asdict(found),
    }
