"""`perpetune import`: from the files of a hosted fine-tuning service to a workspace."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perpetune.cli.console import Json, for_people, print_json, say
from perpetune.cli.host.workspace import Instruction, KindOption, Labels, TaskName, split_labels, task_name

if TYPE_CHECKING:
    from contextlib import ExitStack

    from perpetune.curation.readers.addresses.address import NamedFile
    from perpetune.scaffold.from_openai import Imported

commands = typer.Typer(help="Leave a hosted fine-tuning service.", no_args_is_help=True)


@commands.callback()
def _only_one() -> None:
    """So that the name of the service is part of the command, though there is only one."""


@commands.command(
    epilog="Example: `perpetune import openai training.jsonl --validation validation.jsonl --answers hosted.jsonl`"
)
def openai(
    training: Annotated[
        list[str], typer.Argument(help="Fine-tuning files, preference files or stored completions.", metavar="FILE...")
    ],
    validation: Annotated[
        list[str] | None, typer.Option(help="A validation file: its rows are held out for ever, never trained on.")
    ] = None,
    answers: Annotated[
        list[str] | None,
        typer.Option(help="What the hosted model answered; give a batch's output and, again, its requests."),
    ] = None,
    task: TaskName = None,
    instruction: Instruction = None,
    kind: KindOption = None,
    labels: Labels = None,
    json_: Json = False,
) -> None:
    """Bring OpenAI fine-tuning files, and the hosted model's answers to compare your own model with.

    Makes a workspace of this folder unless it is one: the instruction is the common system message, kind and labels are
    told from the answers. Invalid rows are quarantined, with line, field and reason.
    """
    from contextlib import ExitStack

    from perpetune.cli.curation.import_lines import show_import
    from perpetune.scaffold.from_openai import Wanted, import_openai

    with for_people(), ExitStack() as copies:
        learned, held_out, answered = (_files(each or [], copies) for each in (training, validation, answers))
        given = split_labels(labels) if labels is not None else None
        name = task or task_name(Path.cwd())
        done = import_openai(Path.cwd(), learned, held_out, answered, Wanted(name, instruction, kind, given))
        if json_:
            print_json(_as_json(done))
        else:
            show_import(done, say)


def _files(addresses: list[str], copies: ExitStack) -> list[NamedFile]:
    from perpetune.curation.readers.addresses.address import local_copies

    return [file for address in addresses for file in copies.enter_context(local_copies(address))]


def _as_json(done: Imported) -> dict[str, Any]:
    from perpetune.cli.curation.ingestion_lines import as_json

    return {
        "workspace": asdict(done.created) if done.created else None,
        "task": asdict(done.task) if done.task else None,
        "training": list(map(as_json, done.training)),
        "validation": list(map(as_json, done.validation)),
        "answers": asdict(done.matched) if done.matched else None,
    }
