"""`perpetune ingest` and `labels`: examples and labels from files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from perpetune.cli.console import Json, console, for_people, prediction_log, print_json, say, shown
from perpetune.workspace import open_workspace

commands = typer.Typer()


@commands.command(epilog="Example: `perpetune ingest tickets.jsonl`")
def ingest(
    file: Annotated[Path, typer.Argument(help="JSONL, CSV or Parquet: input and output, or OpenAI's chat format.")],
    json_: Json = False,
) -> None:
    """Add your own examples to the inbox. Invalid rows are quarantined, with their reasons."""
    from perpetune.curation.ingest import ingest as ingest_file
    from perpetune.curation.layout import INBOX

    with for_people():
        workspace = open_workspace()
        done = ingest_file(file, workspace.root / INBOX)
        if json_:
            print_json({**asdict(done), "rejected": len(done.rejected)})
            return
        note = " (this very file was ingested before: nothing to do)" if done.repeated else ""
        say(f"{done.examples} examples in {shown(done.path)}{note}")
        if done.rejected:
            rows = "1 row" if len(done.rejected) == 1 else f"{len(done.rejected)} rows"
            say(f"{rows} quarantined, with reasons, in {shown(done.rejected_path)}; the first:")
            for row in done.rejected[:3]:
                say(": ".join(["  line " + str(row.line), *([row.field] if row.field else []), row.reason]))
        if "inbox" not in workspace.params.fetch.sources:
            say("fetch.sources in params.yaml does not list the inbox: set `fetch: {sources: [inbox, traffic]}`")


@commands.command(epilog="Example: `perpetune labels --out wanted.jsonl`, then `perpetune labels --bring wanted.jsonl`")
def labels(
    out: Annotated[Path | None, typer.Option(help="Write them here as JSONL, each with an empty label.")] = None,
    bring: Annotated[Path | None, typer.Option(help="Import such a file, with labels filled in.")] = None,
    json_: Json = False,
) -> None:
    """The open label requests of the monitor; labels that are imported count as feedback."""
    from perpetune.cli.label_tables import show_imported, show_requests
    from perpetune.loop.label_rule import label_rule_at_hand
    from perpetune.prediction_log.label_file import import_labels, write_requests
    from perpetune.prediction_log.label_requests import open_requests
    from perpetune.prediction_log.redaction import Redactor, group_key

    with for_people():
        workspace = open_workspace()
        params, rule = workspace.params, label_rule_at_hand(workspace)
        with prediction_log() as log:
            redactor = Redactor(group_key(None)) if bring and params.log.redact else None
            brought = import_labels(log, bring, redactor, rule) if bring else None
            wanted = open_requests(log, params.task.name, rule=rule)
        if out:
            write_requests(out, wanted)
        if json_:
            found: dict[str, object] = {"wanted": [asdict(each) for each in wanted]}
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
