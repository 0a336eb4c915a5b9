"""`perpetune ingest` and `labels`: examples and labels from files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from perpetune.cli.console import Json, console, for_people, prediction_log, print_json, say, shown
from perpetune.workspace import open_workspace

commands = typer.Typer()


@commands.command(epilog="Example: `perpetune ingest tickets.csv`, or `perpetune ingest faq.csv --map input=question`")
def ingest(
    data: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders, archives, globs, addresses (s3://, gs://, az://, https://), "
            "Hugging Face data sets (hf:owner/name), or - .",
            metavar="FILE...",
        ),
    ],
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", help="Which column is which: input=question, input=context+question, output=data.label."),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Of text, if it is found wrongly, such as cp1252.")] = None,
    separator: Annotated[str | None, typer.Option(help="Of columns, if it is found wrongly; \\t is a tab.")] = None,
    sheet: Annotated[
        str | None, typer.Option(help="Of an Excel workbook, instead of the first that is filled.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The source of the rows, instead of the file's name.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show ten rows as they will be learned; add none.")
    ] = False,
    json_: Json = False,
) -> None:
    """Add your own examples to the inbox. Invalid rows are quarantined, with their reasons.

    Formats: JSON Lines, JSON, CSV, TSV, Excel, Parquet, also compressed or in a .zip or .tar. Schemas: input/output, OpenAI
    chat, Alpaca, Dolly, ShareGPT, preference pairs, Label Studio, Argilla, Langfuse, OpenTelemetry, and others by --map.
    """
    from perpetune.cli.curation.ingestion_lines import as_json, one_error, show, show_preview, show_unread
    from perpetune.curation.ingest import Ingestion, preview
    from perpetune.curation.ingest import ingest as ingest_file
    from perpetune.curation.readers.addresses.address import local_copies
    from perpetune.curation.readers.addresses.local import unread_below
    from perpetune.curation.readers.options import read_options
    from perpetune.curation.running.layout import INBOX
    from perpetune.errors import PerpetuneError

    with for_people():
        workspace = open_workspace()
        options = read_options(columns or (), encoding, separator, sheet)
        done: list[Ingestion] = []
        failed: list[PerpetuneError] = []
        for address in data:
            with local_copies(address) as files:
                for file in files:
                    try:
                        if dry_run:
                            show_preview(preview(file, options, name), workspace.params.task, say)
                            continue
                        done.append(ingest_file(file, workspace.root / INBOX, options, name))
                    except PerpetuneError as fault:
                        failed.append(fault)
                        continue
                    if not json_:
                        show(done[-1], say)
            if Path(address).is_dir() and not json_:
                show_unread(unread_below(Path(address)), say)
        if json_ and done:
            print_json(as_json(done[0]) if len(done) == 1 else list(map(as_json, done)))
        elif done and "inbox" not in workspace.params.fetch.sources:
            say("fetch.sources in params.yaml does not list the inbox: set `fetch: {sources: [inbox, traffic]}`")
        if failed:
            raise one_error(failed, len(done))


@commands.command(epilog="Example: `perpetune labels --out wanted.jsonl`, then `perpetune labels --bring wanted.jsonl`")
def labels(
    out: Annotated[Path | None, typer.Option(help="Write them here as JSONL, each with an empty label.")] = None,
    bring: Annotated[Path | None, typer.Option(help="Import such a file, with labels filled in.")] = None,
    json_: Json = False,
) -> None:
    """The open label requests of the monitor; labels that are imported count as feedback."""
    from perpetune.cli.curation.label_tables import show_imported, show_requests
    from perpetune.loop.label_rule import label_rule_at_hand
    from perpetune.prediction_log.labels.counts import counted, label_counts
    from perpetune.prediction_log.labels.file import import_labels, write_requests
    from perpetune.prediction_log.labels.requests import open_requests
    from perpetune.prediction_log.redaction import Redactor, group_key

    with for_people():
        workspace = open_workspace()
        params, rule = workspace.params, label_rule_at_hand(workspace)
        with prediction_log() as log:
            redactor = Redactor(group_key(None)) if bring and params.log.redact else None
            brought = import_labels(log, bring, redactor, rule) if bring else None
            wanted = open_requests(log, params.task.name, rule=rule)
            known = label_counts(log, params.task.name, rule)
        if out:
            write_requests(out, wanted)
        if json_:
            found: dict[str, object] = {"wanted": [asdict(each) for each in wanted], "labels": known}
            if brought:
                rejected = [row.model_dump() for row in brought.rejected]
                found |= {"brought": {**asdict(brought), "rejected": rejected}}
            print_json(found)
            return
        if brought:
            show_imported(brought, console)
        elif out:
            say(f"{len(wanted)} requests in {shown(out)}: fill in `label` and import them with --bring")
        else:
            show_requests(wanted, console)
            if known:
                console.print(f"labels so far: {counted(known)}", markup=False)
