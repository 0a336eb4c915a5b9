"""Erase rows: from the inbox, data/, DVC's cache and remotes, the prediction log, MLflow, the home folder, Label Studio."""

from __future__ import annotations

import getpass
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import Engine

from perpetune.curation.erased import Tombstone, load_tombstones, save_tombstones, tombstone
from perpetune.curation.inbox.store import locked
from perpetune.curation.running.layout import INBOX
from perpetune.erasure import data_store, files
from perpetune.erasure.annotation_server import clean_annotation_server, examples_in_tasks
from perpetune.erasure.caches import forget_embeddings, forget_replies
from perpetune.erasure.contents import Cleaned, cleaned
from perpetune.erasure.database import scrub_database
from perpetune.erasure.elsewhere import examples_of, files_with_rows, out_of_reach, own_files
from perpetune.erasure.journal import Journal, close_journal, journal_file, read_journal, write_journal
from perpetune.erasure.requests import logged_examples, remove_requests, requests_about
from perpetune.erasure.scrubber import Scrubber
from perpetune.erasure.selection import Selector, Targets, texts_of
from perpetune.erasure.trained import TrainedVersion, mark, trained_versions
from perpetune.errors import PerpetuneError
from perpetune.prediction_log.database import open_log
from perpetune.records import Example
from perpetune.tracking.erasing import clean_mlflow
from perpetune.workspace import Workspace

Say = Callable[[str], None]


@dataclass(frozen=True)
class Removed:
    """What was removed from a place: a number of rows or texts, and of files, objects or tables."""

    place: str
    rows: int
    parts: int
    unit: str


@dataclass(frozen=True)
class Erasure:
    """The result: `rows` were found; `removed` says where; `trained` are the model versions that learned from one.

    `elsewhere` names files that hold a row and are not perpetune's to change, `notes` what else may hold one. `completed` says
    that an interrupted erasure was completed, not a new one made.
    """

    id: str
    rows: int
    removed: tuple[Removed, ...]
    versions: dict[str, tuple[str, ...]]
    trained: tuple[TrainedVersion, ...]
    elsewhere: tuple[str, ...]
    notes: tuple[str, ...]
    dry_run: bool
    completed: bool


def pending(workspace: Workspace) -> bool:
    """Whether an erasure was interrupted."""
    return read_journal(workspace.home) is not None


def erase(workspace: Workspace, selector: Selector, why: str, say: Say, *, dry_run: bool = False) -> Erasure:
    """Erase all rows that the selector names, and their copies; or show what that would be.

    Call it with MLflow connected. Raises PerpetuneError if no row is found, an erasure was interrupted before, or a place
    cannot be reached; then what is left is erased by `complete`.
    """
    if pending(workspace):
        raise PerpetuneError(
            "an erasure was interrupted and must be completed first",
            where=str(journal_file(workspace.home)),
            do="run `perpetune data remove` without a selection",
        )
    with _log(workspace) as log:
        say("looking for the rows")
        journal = _begun(workspace, selector, why, log)
        planned = None
        if dry_run or not journal.rows:
            planned = _carried_out(workspace, journal, log, say if dry_run else _say_nothing, dry_run=True)
        # A text may be in files of no row; an id or a group names rows, and as a word it may be anywhere.
        is_elsewhere = selector.kind == "match" and planned and (planned.removed or planned.elsewhere)
        if not journal.rows and not is_elsewhere:
            raise PerpetuneError(
                "no row is selected: not in the inbox, data/, DVC's cache and remotes, the prediction log, MLflow, "
                f"{workspace.home.name} or Label Studio",
                do="check the spelling; ids are those of `data/raw/examples.jsonl`",
            )
        if dry_run and planned:
            return planned
        write_journal(workspace.home, journal)
        return _carried_out(workspace, journal, log, say)


def complete(workspace: Workspace, say: Say) -> Erasure:
    """Complete the erasure that was interrupted. Raises PerpetuneError if there is none."""
    journal = read_journal(workspace.home)
    if journal is None:
        raise PerpetuneError(
            "nothing was selected, and no erasure was interrupted",
            do="say which rows: --match TEXT, --id ID or --group GROUP",
        )
    with _log(workspace) as log:
        return replace(_carried_out(workspace, journal, log, say), completed=True)


@contextmanager
def _log(workspace: Workspace) -> Iterator[Engine]:
    log = open_log(workspace.settings.prediction_log)
    try:
        yield log
    finally:
        log.dispose()


def _begun(workspace: Workspace, selector: Selector, why: str, log: Engine) -> Journal:
    targets = Targets(selector.selects, selector.pattern())
    for found in _everywhere(workspace, log):
        targets.add_if_selected(found)
    targets.add_private_forms()
    rows = tuple(targets.found.values())
    strings = sorted({found for row in rows for found in _matched(targets, row)} | _named(selector))
    return Journal(
        id=secrets.token_hex(8),
        time=datetime.now(UTC),
        by=getpass.getuser(),
        why=why,
        selector=selector,
        strings=tuple(strings),
        rows=rows,
    )


def _everywhere(workspace: Workspace, log: Engine) -> Iterator[Iterator[Example]]:
    for path in files.data_files(workspace.root):
        yield files.examples_of(path)
    with data_store.stores(workspace.root) as found:
        for store in found:
            yield data_store.examples_of(store)
    yield logged_examples(log)
    yield examples_in_tasks(workspace)
    for path in own_files(workspace):  # so that the next curation does not bring them
        yield iter(examples_of(path))


def _named(selector: Selector) -> set[str]:
    """The text as the user spells it."""
    return {selector.match} if selector.match is not None and not selector.regex else set()


def _matched(targets: Targets, row: Example) -> Iterator[str]:
    """The texts that the pattern found in a row, as they are spelled there."""
    if targets.pattern is not None:
        for text in texts_of(row):
            yield from (found.group() for found in targets.pattern.finditer(text))


def _carried_out(workspace: Workspace, journal: Journal, log: Engine, say: Say, *, dry_run: bool = False) -> Erasure:
    """Every step can be repeated. The tombstone comes first: what is removed cannot come back meanwhile."""
    targets = Targets(journal.selector.selects, journal.selector.pattern())
    for row in journal.rows:
        targets.add(row)
    scrubber = Scrubber(targets.pattern, {*targets.texts, *journal.strings}, journal.strings)
    clean = partial(cleaned, targets=targets, scrubber=scrubber)
    stone = _tombstone(workspace, journal)
    if not dry_run:
        save_tombstones(workspace.root, load_tombstones(workspace.root).with_removal(stone))
    removed = _from_files(workspace, clean, say, dry_run=dry_run)
    say("the prediction log")
    if not dry_run:
        files.wait_for_spool(workspace.home / "spool", clean)
    removed += [
        Removed(f"prediction log: {name}", count, count, "rows")
        for name, count in remove_requests(log, targets, dry_run=dry_run).items()
    ]
    versions = dict(journal.versions)
    with data_store.stores(workspace.root) as stores:
        for store in stores:
            if not store.is_legacy:
                say(store.name)
            result = data_store.clean_store(store, clean, dry_run=dry_run)
            removed.append(Removed(result.name, result.rows, result.objects, "objects"))
            versions = _merged(versions, result.versions)
            if not dry_run:
                write_journal(workspace.home, journal.model_copy(update={"versions": versions}))
    say("MLflow")
    removed.append(_from_mlflow(workspace, clean, scrubber, dry_run=dry_run))
    removed += _from_caches(workspace, targets, dry_run=dry_run)
    removed.append(_from_home(workspace, clean, scrubber, dry_run=dry_run))
    say("Label Studio")
    annotation = clean_annotation_server(workspace, targets, scrubber, dry_run=dry_run)
    removed += [
        Removed(f"Label Studio: project {title}", tasks, tasks, "tasks") for title, tasks in annotation.deleted.items()
    ]
    if not dry_run and requests_about(log, targets):  # that a gateway has logged meanwhile
        remove_requests(log, targets, dry_run=False)
    trained = trained_versions(workspace.params.task.name, versions)
    elsewhere = files_with_rows(workspace, targets, scrubber)
    if not dry_run:
        mark(workspace.params.task.name, trained, stone)
        models = tuple(each.version for each in trained)
        whole = stone.model_copy(update={"versions": versions, "models": models})
        save_tombstones(workspace.root, load_tombstones(workspace.root).with_removal(whole))
        close_journal(workspace.home)
    return Erasure(
        journal.id,
        len(targets.originals),
        tuple(each for each in removed if each.rows or each.parts),
        versions,
        tuple(trained),
        tuple(elsewhere),
        (*annotation.notes, *out_of_reach(workspace)),
        dry_run,
        completed=False,
    )


def _tombstone(workspace: Workspace, journal: Journal) -> Tombstone:
    return tombstone(
        load_tombstones(workspace.root),
        journal.rows,
        id=journal.id,
        when=journal.time,
        by=journal.by,
        why=journal.why,
        selected_by=journal.selector.kind,
    )


def _from_files(workspace: Workspace, clean: Callable[[bytes], Cleaned], say: Say, *, dry_run: bool) -> list[Removed]:
    inbox = workspace.root / INBOX
    say("the inbox and data/")
    with locked(inbox):
        paths = list(files.data_files(workspace.root))
        inside = iter([path for path in paths if path.is_relative_to(inbox)])
        outside = iter([path for path in paths if not path.is_relative_to(inbox)])
        found = [
            files.clean_files("data/inbox", inside, clean, dry_run=dry_run),
            files.clean_files("data/, without the inbox", outside, clean, dry_run=dry_run),
        ]
    return [Removed(each.name, each.rows, each.files, "files") for each in found]


def _from_mlflow(
    workspace: Workspace, clean: Callable[[bytes], Cleaned], scrubber: Scrubber, *, dry_run: bool
) -> Removed:
    def new_content(data: bytes) -> bytes | None:
        return clean(data).data

    found = clean_mlflow(workspace.params.task.name, new_content, scrubber.text, dry_run=dry_run)
    return Removed(
        "MLflow: artefacts, tags and descriptions", found.artefacts + found.tags, found.artefacts, "artefacts"
    )


def _from_caches(workspace: Workspace, targets: Targets, *, dry_run: bool) -> list[Removed]:
    replies = forget_replies(workspace.home, targets, dry_run=dry_run)
    vectors = forget_embeddings(workspace.home, targets, dry_run=dry_run)
    name = workspace.home.name
    return [
        Removed(f"{name}: replies of models that rules ask", replies, min(1, replies), "files"),
        Removed(f"{name}: embeddings", vectors, min(1, vectors), "files"),
    ]


def _say_nothing(_line: str) -> None:
    """For a look at what there is to erase."""


def _from_home(
    workspace: Workspace, clean: Callable[[bytes], Cleaned], scrubber: Scrubber, *, dry_run: bool
) -> Removed:
    """Scratch files of runs, downloaded releases, logs, and the databases of MLflow and Prefect."""
    home = workspace.home
    paths = files.home_files(workspace.root, home, journal_file(home))
    found = files.clean_files("home", paths, clean, dry_run=dry_run)
    texts = sum(
        scrub_database(path, scrubber, dry_run=dry_run)
        for path in files.databases(home)
        if not path.name.endswith(("-wal", "-shm", "-journal"))
    )
    return Removed(f"{home.name}: scratch files, logs and databases", found.rows + texts, found.files, "files")


def _merged(one: dict[str, tuple[str, ...]], other: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(sorted({*one.get(key, ()), *other.get(key, ())})) for key in one.keys() | other.keys()}
