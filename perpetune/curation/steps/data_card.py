"""The last step: the data card of this version, from the files of all steps."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

from perpetune.curation.card.content import Card as Card
from perpetune.curation.card.content import describe as describe
from perpetune.curation.card.languages import load_languages
from perpetune.curation.card.pages import render as render
from perpetune.curation.card.pictures.drawn import pictures
from perpetune.curation.card.private import without_private as without_private
from perpetune.curation.duplicates.summary import NearSummary
from perpetune.curation.quarantine import Quarantined, Rejected
from perpetune.curation.running.layout import CARD, LEAKAGE, RAW, SPLITS
from perpetune.curation.running.pipeline import steps_of
from perpetune.curation.steps.private import finder, hidden
from perpetune.curation.steps.step_files import StepFacts, read_facts, seconds_of
from perpetune.curation.suspects import SUMMARY, LabelErrorSummary
from perpetune.params import MixParams, PrivateParams, TaskParams
from perpetune.records import Example, StoredRecords, read_jsonl, to_json

SPLIT_NAMES = ("train", "validation", "frozen", "recent")


def run(task: TaskParams, mixing: MixParams, private: PrivateParams, workspace: Path) -> str:
    """Write `data/card/`: card.md, card.html and card.json. Nothing that `private` replaces is quoted in it."""
    facts = {step: read_facts(workspace, step) for step in steps_of(workspace)}
    splits = {name: StoredRecords(workspace / SPLITS / f"{name}.jsonl", Example) for name in SPLIT_NAMES}
    card = describe(
        task,
        data_version(workspace / SPLITS),
        _fetched(workspace / RAW),
        StoredRecords(workspace / RAW / "rejected.jsonl", Rejected),
        {step: known.quarantined for step, known in facts.items()},
        splits,
        mixing,
        _near(workspace / LEAKAGE / "near_duplicates.jsonl"),
        {"fetch": StepFacts(seconds=seconds_of(workspace, "fetch")), **facts},
    )
    # What an earlier run found is no part of a pipeline that no longer detects languages.
    languages = load_languages(workspace) if "language" in steps_of(workspace) else ()
    card = replace(card, label_errors=_label_errors(workspace / SUMMARY), languages=languages)
    if private.mode == "replace":
        card = without_private(card, hidden(finder(private)))
    folder = workspace / CARD
    folder.mkdir(parents=True, exist_ok=True)
    found = {"near": card.near, "label_errors": card.label_errors}
    values = {**asdict(card), **{name: each.model_dump() if each else None for name, each in found.items()}}
    (folder / "card.json").write_text(to_json(values), encoding="utf-8")
    drawn = pictures(card.steps, card.labels, splits, card.near.sizes if card.near else {}, card.languages)
    (folder / "card.md").write_text(render(card, "data_card.md"), encoding="utf-8")
    (folder / "card.html").write_text(render(card, "data_card.html", drawn), encoding="utf-8")
    return f"{CARD / 'card.html'} and card.md, data version {card.version}"


def data_version(folder: Path) -> str:
    """DVC's MD5 of a folder of plain files, as it will be in `dvc.lock`."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    entries = [{"md5": _md5(file), "relpath": file.name} for file in files]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _fetched(raw: Path) -> Counter[str]:
    """The number of examples by source, with the older versions that `validate` counts as quarantined."""
    counts = Counter(row.source for row in StoredRecords(raw / "examples.jsonl", Example))
    superseded = raw / "superseded.jsonl"
    if superseded.is_file():
        counts.update(row.example.source for row in StoredRecords(superseded, Quarantined))
    return counts


def _label_errors(path: Path) -> LabelErrorSummary | None:
    return next(iter(read_jsonl(path, LabelErrorSummary)), None) if path.is_file() else None


def _near(path: Path) -> NearSummary | None:
    return next(iter(read_jsonl(path, NearSummary)), None) if path.is_file() else None
