"""What `perpetune ingest` says, in a few lines a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from perpetune.cli.console import shown
from perpetune.curation.ingest import Ingestion, Preview
from perpetune.curation.quarantine import Rejected
from perpetune.errors import PerpetuneError
from perpetune.params import TaskParams
from perpetune.records import Message, conversation

_LIMIT = 400


def show(done: Ingestion, say: Callable[[str], None]) -> None:
    note = " (this very file was ingested before: nothing to do)" if done.repeated else ""
    say(f"{_count(done.examples, 'example')} in {shown(done.path)}{note}")
    _show_reading(done.schemas, done.used, done.ignored, done.notes, say)
    if done.replaced:
        say(f"  {_rows(done.replaced)} of earlier files replaced by a newer version")
    if done.preferences:
        say(f"  {_rows(done.preferences)} kept as preference data too; answers that are rejected there are not learned")
    if done.rejected:
        say(f"{_rows(len(done.rejected))} quarantined, with reasons, in {shown(done.rejected_path)}; the first:")
        _show_rejected(done.rejected, say)


def show_preview(found: Preview, task: TaskParams, say: Callable[[str], None]) -> None:
    summary = found.summary
    for number, row in enumerate(found.first, start=1):
        say(f"--- {number}: id {row.id}, group {row.group}, source {row.source}")
        for turn in conversation(task.instruction, row):
            say(f"{turn.role}: {_short(_said(turn))}")
        say(f"=> {_short(row.output)}")
    say(f"{_count(summary.examples, 'example')}, {len(summary.rejected):,} to be quarantined; nothing was added")
    _show_reading(summary.schemas, summary.used, summary.ignored, summary.notes, say)
    _show_rejected(summary.rejected, say)


def show_unread(names: Sequence[str], say: Callable[[str], None]) -> None:
    if names:
        say(f"{_count(len(names), 'file')} of the folder not read, for the suffix: {_some(names)}")


def one_error(failed: Sequence[PerpetuneError], done: int) -> PerpetuneError:
    """The error of one file, or one for several files; what was read is in the inbox all the same."""
    if len(failed) == 1 and not done:
        return failed[0]
    lines = "\n".join(map(str, failed))
    return PerpetuneError(f"{_count(len(failed), 'file')} could not be read, {done} could:\n{lines}")


def as_json(done: Ingestion) -> dict[str, Any]:
    return {**asdict(done), "rejected": len(done.rejected)}


def _show_reading(
    schemas: dict[str, int],
    used: Sequence[str],
    ignored: Sequence[str],
    notes: Sequence[str],
    say: Callable[[str], None],
) -> None:
    line = f"  read as {', '.join(schemas)}; columns used: {', '.join(used)}"
    say(line + (f"; ignored: {_some(ignored)}" if ignored else ""))
    for note in notes:
        say(f"  {note}")


def _show_rejected(rejected: Sequence[Rejected], say: Callable[[str], None]) -> None:
    for row in rejected[:3]:
        say(": ".join(["  line " + str(row.line), *([row.field] if row.field else []), row.reason]))


def _rows(count: int) -> str:
    return _count(count, "row")


def _count(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count:,} {what}s"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _said(turn: Message) -> str:
    calls = json.dumps(turn.tool_calls, ensure_ascii=False) if turn.tool_calls else ""
    return "\n".join(filter(None, (turn.content, calls)))


def _short(text: str) -> str:
    return text if len(text) <= _LIMIT else f"{text[:_LIMIT]} ... ({len(text):,} characters)"
