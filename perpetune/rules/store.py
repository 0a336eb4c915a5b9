"""What rules leave behind: labelled rows in the inbox, each with its confidence and votes, and the other rows in a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from perpetune.curation.inbox.files import inbox_files, origin_file, source_name
from perpetune.curation.inbox.store import locked, plain_errors, write_lines
from perpetune.curation.ingest import Ingestion, ingest
from perpetune.curation.readers.addresses.address import NamedFile
from perpetune.curation.readers.identity import has_content_id
from perpetune.curation.readers.reader import read_examples
from perpetune.curation.readers.unlabelled import labelled_as
from perpetune.curation.rows.dedup_key import DedupKey, input_key
from perpetune.curation.rows.sources import RULES
from perpetune.curation.running.layout import INBOX
from perpetune.records import Example
from perpetune.rules.apply import RuledRow

FOLDER = Path("data/rules")


@dataclass(frozen=True)
class StoredRules:
    """The files of labelled and of other rows; `ingestion` is None if no row has a label."""

    labelled: Path
    abstained: Path
    ingestion: Ingestion | None


def not_labelled_yet(rows: Sequence[Example], workspace: Path, name: str) -> list[Example]:
    """The rows whose conversation has no label in the inbox, but perhaps by an earlier run over a file of this name.

    What people have labelled is not labelled by rules again.
    """
    known: set[DedupKey] = set()
    for file in inbox_files(workspace / INBOX):
        if not _is_of(file, name):
            known |= {input_key(row) for row in read_examples(file, source_name(file)).examples}
    return [row for row in rows if input_key(row) not in known]


def store(rows: Sequence[RuledRow], workspace: Path, name: str, *, add: bool) -> StoredRules:
    """Write `data/rules/NAME.labelled.jsonl` and `NAME.abstained.jsonl`; with `add`, ingest the labelled rows.

    They take the place of those of an earlier run, which may have labelled rows that are now left without.
    """
    labelled, abstained = (workspace / FOLDER / f"{name}.{kind}.jsonl" for kind in ("labelled", "abstained"))
    with plain_errors(labelled):
        write_lines(labelled, (_labelled_line(row) for row in rows if row.label is not None))
        write_lines(abstained, (_abstained_line(row) for row in rows if row.label is None))
    done = None
    if add and any(row.label is not None for row in rows):
        done = ingest(NamedFile(labelled, str(labelled)), workspace / INBOX, source=_source(name))
        _keep_votes(done.path, labelled)
    if add:
        _remove_earlier(workspace / INBOX, name, done.path if done else None)
    return StoredRules(labelled, abstained, done)


def votes_file(examples: Path) -> Path:
    """The path of the votes and confidences of an inbox file that rules have labelled."""
    return examples.parent / "rules" / examples.name


def _source(name: str) -> str:
    return f"rules-{name}"


def _is_of(file: Path, name: str) -> bool:
    return file.stem.rpartition("-")[0] == _source(name)


def _labelled_line(ruled: RuledRow) -> str:
    assert ruled.label is not None
    row = labelled_as(ruled.row, ruled.label).model_copy(update={"source": RULES})
    return _line(row, confidence=round(ruled.confidence, 4), votes=ruled.votes)


def _abstained_line(ruled: RuledRow) -> str:
    return _line(ruled.row, confidence=round(ruled.confidence, 4), votes=ruled.votes, why=ruled.why)


def _line(row: Example, **more: object) -> str:
    left_out = {"output"} if not row.output else set()
    values = row.model_dump(
        mode="json", exclude_defaults=True, exclude=left_out | ({"id"} if has_content_id(row) else set())
    )
    return json.dumps(values | more, ensure_ascii=False)


def _keep_votes(inbox_file: Path, labelled: Path) -> None:
    """Beside the inbox file, each of its rows' id, label, confidence and votes."""
    with labelled.open(encoding="utf-8") as lines, inbox_file.open(encoding="utf-8") as rows:
        pairs = [(json.loads(row), json.loads(line)) for row, line in zip(rows, lines, strict=True)]
    with plain_errors(inbox_file):
        write_lines(votes_file(inbox_file), map(_vote_line, pairs))


def _vote_line(pair: tuple[dict[str, object], dict[str, object]]) -> str:
    row, line = pair
    kept = {"id": row["id"], "label": row["output"], "confidence": line["confidence"], "votes": line["votes"]}
    return json.dumps(kept, ensure_ascii=False)


def _remove_earlier(inbox: Path, name: str, kept: Path | None) -> None:
    with plain_errors(inbox), locked(inbox):
        for file in inbox_files(inbox):
            if _is_of(file, name) and file != kept:
                _unlink([file, origin_file(file), votes_file(file)])


def _unlink(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
