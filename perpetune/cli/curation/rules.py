"""`perpetune rules`: labels from rules, for rows without any."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perpetune.cli.console import Json, console, errors, for_people, print_json, say, shown
from perpetune.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from perpetune.curation.readers.options import ReadOptions
    from perpetune.curation.readers.unlabelled import UnlabelledRows
    from perpetune.records import Example
    from perpetune.rules.apply import RulesResult

commands = typer.Typer(help="Labels from rules, for rows without any.", no_args_is_help=True)


@commands.callback(epilog="Example: `perpetune rules apply tickets.csv --dry-run`")
def _group() -> None:
    """Labels from rules, for rows without any."""


@commands.command("apply", epilog="Example: `perpetune rules apply tickets.csv --gold checked.csv --dry-run`")
def apply_command(
    data: Annotated[
        str, typer.Argument(help="A file or address of rows without an output, in any format of `perpetune ingest`.")
    ],
    rules: Annotated[Path, typer.Option(help="The Python file with the rules.")] = Path("rules.py"),
    gold: Annotated[
        Path | None, typer.Option(help="A file of rows with the right output, to measure the rules on.")
    ] = None,
    columns: Annotated[list[str] | None, typer.Option("--map", help="Which column is which: input=question.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of text, if it is found wrongly, such as cp1252.")] = None,
    separator: Annotated[str | None, typer.Option(help="Of columns, if it is found wrongly; \\t is a tab.")] = None,
    name: Annotated[str | None, typer.Option(help="The name of the results, instead of the file's.")] = None,
    min_confidence: Annotated[
        float, typer.Option(help="Rows whose likeliest label is less probable stay without.", min=0, max=1)
    ] = 0.6,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what the rules are worth; add no row.")] = False,
    estimate_only: Annotated[
        bool, typer.Option("--estimate", help="Say what the prompts of the rules would cost; ask nothing.")
    ] = False,
    json_: Json = False,
) -> None:
    """Label rows by the rules of a Python file, and add them to the inbox, for training only.

    A rule is a function `def refund(text: str) -> str | None` that returns a label or abstains, or a
    `perpetune.rules.Prompt` to a larger model. Votes are combined by how accurate each rule is found to be (Dawid-Skene).
    """
    from perpetune.curation.inbox.files import given_source, source_name
    from perpetune.curation.readers.addresses.address import local_copies
    from perpetune.curation.readers.options import read_options
    from perpetune.curation.readers.unlabelled import read_unlabelled
    from perpetune.errors import PerpetuneError
    from perpetune.rules.store import not_labelled_yet, store

    with for_people():
        workspace = open_workspace()
        if workspace.params.task.kind == "generation":
            raise PerpetuneError(
                "rules give labels, and task.kind is generation",
                where="params.yaml",
                do="send rows to people instead: perpetune annotate push --rows FILE",
            )
        options = read_options(columns or (), encoding, separator)
        with local_copies(data) as files:
            if len(files) != 1:
                raise PerpetuneError(f"these are {len(files)} files", where=data, do="apply the rules to one at a time")
            called = source_name(files[0].path) if name is None else given_source(name)
            read = read_unlabelled(files[0].path, called, options, Path(files[0].address))
        new = not_labelled_yet(read.rows, workspace.root, called)
        if not new:
            raise PerpetuneError(
                _nothing(read, len(new)), where=data, do="rows with an output are for `perpetune ingest`"
            )
        result = _applied(workspace, rules, new, _gold(gold, options), min_confidence, estimate_only=estimate_only)
        if result is None:
            return
        stored = store(result.rows, workspace.root, called, add=not dry_run)
        if json_:
            print_json(_as_json(result, read, stored.labelled, stored.abstained))
            return
        _show(result, read, len(read.rows) - len(new))
        say(f"{len(result.abstained):,} rows without a label in {shown(stored.abstained)}")
        if stored.ingestion:
            say(f"{len(result.labelled):,} rows with labels in {shown(stored.ingestion.path)}, for training only")
        else:
            say(f"{len(result.labelled):,} rows with labels in {shown(stored.labelled)}; none was added to the inbox")


def _applied(
    workspace: Workspace,
    rules: Path,
    rows: list[Example],
    gold: tuple[Example, ...],
    min_confidence: float,
    *,
    estimate_only: bool,
) -> RulesResult | None:
    """The result of the rules; None if only the cost was to be said."""
    from contextlib import ExitStack

    from perpetune.rules.apply import apply_rules, prompt_questions
    from perpetune.rules.ask import estimate
    from perpetune.rules.load import load_rules
    from perpetune.rules.replies import REPLIES, reply_cache
    from perpetune.rules.votes import spelling

    file = load_rules(rules)
    labels = _labels(workspace, gold)
    asked = prompt_questions(file, [*rows, *gold], labels, workspace.params.task.instruction, rules)
    with ExitStack() as stack:
        cache = stack.enter_context(reply_cache(workspace.home / REPLIES)) if asked else None
        for name, (prompt, each) in asked.items():
            assert cache is not None
            errors.print(str(estimate(name, prompt, each, cache)), markup=False, soft_wrap=True)
        if estimate_only:
            return None
        return apply_rules(
            file,
            rows,
            gold,
            spelling(labels),
            rules,
            labels=labels,
            asked=asked,
            cache=cache,
            min_confidence=min_confidence,
        )


def _labels(workspace: Workspace, gold: tuple[Example, ...]) -> list[str] | None:
    """The task's labels; None if any text may be one."""
    from perpetune.loop.label_rule import label_rule_at_hand

    known = label_rule_at_hand(workspace).labels
    return list(known) if known else sorted({row.output for row in gold}) or None


def _gold(path: Path | None, options: ReadOptions) -> tuple[Example, ...]:
    from perpetune.curation.readers.reader import read_examples
    from perpetune.errors import PerpetuneError

    if path is None:
        return ()
    found = read_examples(path, "gold", options)
    if not found.examples:
        raise PerpetuneError("it has no row with an output", where=str(path))
    return found.examples


def _nothing(read: UnlabelledRows, new: int) -> str:
    known = len(read.rows) - new
    first = f"; the first: {read.rejected[0]}" if read.rejected else ""
    return (
        f"there is no row to label: {read.labelled:,} have an output, {known:,} are labelled in the inbox, "
        f"{len(read.rejected):,} are invalid{first}"
    )


def _show(result: RulesResult, read: UnlabelledRows, known: int) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("rule", "coverage", "overlap", "conflict", "estimated", "accuracy on gold", "exceptions")
    for each in result.rules:
        faults = result.faults.get(each.name)
        table.add_row(
            Text(each.name),
            f"{each.coverage:.1%}",
            f"{each.overlap:.1%}",
            f"{each.conflict:.1%}",
            "" if each.estimated is None else f"{each.estimated:.1%}",
            _interval(each.accuracy),
            f"{faults.count:,}" if faults else "",
        )
    console.print(table)
    for name, found in result.faults.items():
        say(f"`{name}` raised {found.count:,} exceptions, each an abstention; the first: {found.first}")
    if result.alike:
        say(f"{', '.join(result.alike)} vote alike: together they count as one rule")
    if result.gold and result.gold_covered:
        covered = result.gold_covered
        say(
            f"all rules together: right in {_interval(result.gold)} of the gold rows that they label ({covered.value:.1%})"
        )
    if read.labelled or known or read.rejected:
        say(
            f"left out: {read.labelled:,} rows with an output, {known:,} that are labelled in the inbox, "
            f"{len(read.rejected):,} invalid" + (f", the first: {read.rejected[0]}" if read.rejected else "")
        )


def _interval(found: Any) -> str:
    return "" if found is None else f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%}, n = {found.n:,})"


def _as_json(result: RulesResult, read: UnlabelledRows, labelled: Path, abstained: Path) -> dict[str, Any]:
    return {
        "rules": [asdict(each) for each in result.rules],
        "exceptions": {name: asdict(found) for name, found in result.faults.items()},
        "alike": list(result.alike),
        "gold": asdict(result.gold) if result.gold else None,
        "labelled": len(result.labelled),
        "abstained": len(result.abstained),
        "with_output": read.labelled,
        "rejected": len(read.rejected),
        "labelled_file": str(labelled),
        "abstained_file": str(abstained),
    }
