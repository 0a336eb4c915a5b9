"""The data card: sources, splits, labels, lengths, and quarantined rows with their reasons."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup

from perpetune.curation.card.pictures import pictures
from perpetune.curation.card.suspects import SuspectedLabels, suspected_labels
from perpetune.curation.duplicates.summary import NearSummary
from perpetune.curation.layout import CARD, LEAKAGE, RAW, SPLITS
from perpetune.curation.pipeline import steps_of
from perpetune.curation.quarantine import Changed, Quarantined, Rejected
from perpetune.curation.steps.mix import NOT_REPLAYED, recent_and_older
from perpetune.curation.steps.private import finder, hidden
from perpetune.curation.steps.step_files import StepFacts, read_facts, seconds_of
from perpetune.curation.suspects import SUMMARY, LabelErrorSummary
from perpetune.curation.text import around_change, shortened
from perpetune.params import MixParams, PrivateParams, TaskParams
from perpetune.records import Example, read_jsonl, to_json

SPLIT_NAMES = ("train", "validation", "frozen", "recent")
SHOWN_ROWS = 3
"""Example rows per quarantine reason."""


@dataclass(frozen=True)
class Lengths:
    """Lengths in characters."""

    median: int
    p95: int
    max: int


@dataclass(frozen=True)
class SplitSummary:
    """A split; `first` and `last` are the dates of its oldest and newest rows, None if no row has a time."""

    name: str
    rows: int
    groups: int
    labels: dict[str, int]
    input: Lengths
    output: Lengths
    first: str | None
    last: str | None


@dataclass(frozen=True)
class ShownChange:
    """What a step made of a text, around the first place at which it changed it."""

    location: str
    before: str
    after: str


@dataclass(frozen=True)
class Step:
    """The rows that a curation step received, kept, and of these changed and reported; and how long it took.

    `changes` and `reports` show some of them.
    """

    name: str
    rows: int
    kept: int
    changed: int = 0
    reported: int = 0
    seconds: float | None = None
    changes: tuple[ShownChange, ...] = ()
    reports: tuple[QuarantineReason, ...] = ()

    @property
    def quarantined(self) -> int:
        return self.rows - self.kept


@dataclass(frozen=True)
class ShownRow:
    """A rejected or quarantined row: its location, content and detail of the reason."""

    location: str
    input: str
    output: str
    detail: str


@dataclass(frozen=True)
class QuarantineReason:
    """The number of rows that a step dropped for one reason, with examples."""

    step: str
    reason: str
    rows: int
    examples: tuple[ShownRow, ...]


@dataclass(frozen=True)
class Source:
    """The number of rows of a source, and how many of them are in a split."""

    name: str
    rows: int
    used: int


@dataclass(frozen=True)
class TrainingMix:
    """The training rows: recent traffic and older rows; `replay` as in params.yaml."""

    recent: int
    older: int
    not_replayed: int
    replay: float | None

    @property
    def sentence(self) -> str:
        parts = f"The training split has {self.recent:,} recent rows of labelled traffic and {self.older:,} older rows"
        if not self.recent:
            return f"The training split has no recent labelled traffic, only {self.older:,} older rows."
        if not self.not_replayed:
            return f"{parts}."
        return f"{parts}; {self.not_replayed:,} more older rows are not replayed (mix.replay: {self.replay:g})."


@dataclass(frozen=True)
class Card:
    """The content of the card. `version` is DVC's data version; `warnings` come first."""

    task: str
    kind: str
    version: str
    steps: tuple[Step, ...]
    sources: tuple[Source, ...]
    splits: tuple[SplitSummary, ...]
    quarantine: tuple[QuarantineReason, ...]
    training_mix: TrainingMix
    warnings: tuple[str, ...]
    near: NearSummary | None = None
    label_errors: LabelErrorSummary | None = None

    @property
    def labels(self) -> list[str]:
        """All labels, most frequent first."""
        names = {label for split in self.splits for label in split.labels}
        return sorted(names, key=lambda label: (-self.total(label), label))

    def total(self, label: str) -> int:
        """The number of rows with the label, over all splits."""
        return sum(split.labels.get(label, 0) for split in self.splits)


def describe(
    task: TaskParams,
    version: str,
    fetched: Sequence[Example],
    rejected: Sequence[Rejected],
    quarantined: Mapping[str, Sequence[Quarantined]],
    splits: Mapping[str, Sequence[Example]],
    mixing: MixParams,
    near: NearSummary | None = None,
    done: Mapping[str, StepFacts] | None = None,
) -> Card:
    """Build the card. `quarantined` has each step's quarantined rows, in the order of the steps; `splits` the rows.

    `done` says what else the steps did.
    """
    labelled = task.kind == "classification"
    facts = tuple(_split_facts(name, rows, labelled) for name, rows in splits.items())
    card = Card(
        task=task.name,
        kind=task.kind,
        version=version,
        steps=_steps(len(fetched), len(rejected), quarantined, done or {}),
        sources=_sources(fetched, splits),
        splits=facts,
        quarantine=(
            *_rejected_reasons(rejected),
            *(part for step, rows in quarantined.items() for part in _reasons(step, rows)),
        ),
        training_mix=_training_mix(splits["train"], quarantined, mixing),
        warnings=(),
        near=near,
    )
    return Card(**{**vars(card), "warnings": tuple(_warnings(card))})


def _steps(
    fetched: int, rejected: int, quarantined: Mapping[str, Sequence[Quarantined]], facts: Mapping[str, StepFacts]
) -> tuple[Step, ...]:
    steps = [_step("fetch", fetched + rejected, fetched, facts)]
    for name, rows in quarantined.items():
        steps.append(_step(name, steps[-1].kept, steps[-1].kept - len(rows), facts))
    return tuple(steps)


def _step(name: str, rows: int, kept: int, facts: Mapping[str, StepFacts]) -> Step:
    known = facts.get(name, StepFacts())
    return Step(
        name,
        rows,
        kept,
        changed=len({(each.source, each.id) for each in known.changed}),
        reported=len({(row.example.source, row.example.id) for row in known.reported}),
        seconds=known.seconds,
        changes=tuple(map(_shown_change, known.changed[:SHOWN_ROWS])),
        reports=tuple(_reasons(name, known.reported)),
    )


def _shown_change(changed: Changed) -> ShownChange:
    before, after = around_change(changed.before, changed.after)
    return ShownChange(f"{changed.source} · {shortened(changed.id, 40)} · {changed.field}", before, after)


def _training_mix(
    train: Sequence[Example], quarantined: Mapping[str, Sequence[Quarantined]], params: MixParams
) -> TrainingMix:
    recent, older = recent_and_older(train, params)
    quarantine = sum(row.reason == NOT_REPLAYED for rows in quarantined.values() for row in rows)
    return TrainingMix(len(recent), len(older), quarantine, params.replay)


def _sources(fetched: Sequence[Example], splits: Mapping[str, Sequence[Example]]) -> tuple[Source, ...]:
    fetched_rows = Counter(row.source for row in fetched)
    used = Counter(row.source for rows in splits.values() for row in rows)
    return tuple(Source(name, rows, used[name]) for name, rows in fetched_rows.most_common())


def _split_facts(name: str, rows: Sequence[Example], labelled: bool) -> SplitSummary:
    times = sorted(row.time for row in rows if row.time)
    return SplitSummary(
        name=name,
        rows=len(rows),
        groups=len({row.group for row in rows}),
        labels=dict(Counter(row.output for row in rows).most_common()) if labelled else {},
        input=_lengths([sum(len(m.content) for m in row.messages) or len(row.input) for row in rows]),
        output=_lengths([len(row.output) for row in rows]),
        first=times[0].date().isoformat() if times else None,
        last=times[-1].date().isoformat() if times else None,
    )


def _lengths(lengths: Sequence[int]) -> Lengths:
    if not lengths:
        return Lengths(0, 0, 0)
    return Lengths(*(int(value) for value in np.percentile(lengths, [50, 95, 100], method="nearest")))


def _reasons(step: str, quarantined: Sequence[Quarantined]) -> list[QuarantineReason]:
    by_reason: dict[str, list[Quarantined]] = defaultdict(list)
    for row in quarantined:
        by_reason[row.reason].append(row)
    return [
        QuarantineReason(step, reason, len(rows), tuple(_shown(row) for row in rows[:SHOWN_ROWS]))
        for reason, rows in sorted(by_reason.items(), key=lambda pair: -len(pair[1]))
    ]


def _shown(row: Quarantined) -> ShownRow:
    example = row.example
    return ShownRow(
        location=f"{example.source} · {shortened(example.id, 40)}",
        input=shortened(example.input, 160),
        output=shortened(example.output, 60),
        detail=shortened(row.detail, 120),
    )


def _rejected_reasons(rejected: Sequence[Rejected]) -> list[QuarantineReason]:
    """Rejected rows by invalid field, because their reasons quote values and are all different."""
    by_field: dict[str, list[Rejected]] = defaultdict(list)
    for row in rejected:
        by_field[f"invalid {row.field}" if row.field else "unreadable row"].append(row)
    return [
        QuarantineReason(
            "fetch",
            fault,
            len(rows),
            tuple(
                ShownRow(f"{row.file}:{row.line}", shortened(row.raw, 160), "", row.reason) for row in rows[:SHOWN_ROWS]
            ),
        )
        for fault, rows in sorted(by_field.items(), key=lambda pair: -len(pair[1]))
    ]


def _warnings(card: Card) -> list[str]:
    by_name = {split.name: split for split in card.splits}
    train = by_name["train"]
    warnings = []
    unselected = sum(step.quarantined for step in card.steps if step.name == "select")  # by select.budget, on purpose
    first, last = card.steps[0].rows, card.steps[-1].kept + unselected
    if last < 0.8 * first:
        warnings.append(f"{first - last:,} of {first:,} rows are in no split; see the quarantine below.")
    untrained = [label for label in card.labels if label not in train.labels]
    if untrained:
        warnings.append(
            f"Labels in a holdout but not in the training split: {_listed(untrained)}. The model cannot know them."
        )
    held_out = by_name["frozen"].labels | by_name["recent"].labels
    unevaluated = [label for label in train.labels if label not in held_out]
    if unevaluated:
        warnings.append(
            f"Labels in the training split but in no holdout: {_listed(unevaluated)}. They are not evaluated."
        )
    if train.labels and max(train.labels.values()) > 10 * min(train.labels.values()):
        warnings.append("The most frequent label has more than ten times the training rows of the rarest.")
    if 0 < by_name["frozen"].rows < 100:
        warnings.append(
            f"The frozen holdout is small ({by_name['frozen'].rows}): small differences between models cannot be detected."
        )
    if not by_name["validation"].rows:
        warnings.append("The validation split is empty, so training cannot choose the best checkpoint.")
    return warnings


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(shortened(label, 40) for label in labels[:5])
    return shown if len(labels) <= 5 else f"{shown} and {len(labels) - 5} more"


def data_version(folder: Path) -> str:
    """DVC's MD5 of a folder of plain files, as it will be in `dvc.lock`."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    entries = [{"md5": hashlib.md5(file.read_bytes()).hexdigest(), "relpath": file.name} for file in files]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def render(
    card: Card, template: str, drawn: Mapping[str, Markup] | None = None, suspects: SuspectedLabels | None = None
) -> str:
    """Render the card with a template: `data_card.html`, with the pictures `drawn`, or `data_card.md`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = _cell
    environment.filters["breakable"] = _breakable
    return environment.get_template(template).render(card=card, drawn=drawn or {}, suspects=suspects) + "\n"


def _cell(text: str) -> str:
    """Escape text for a cell of a Markdown table."""
    marks = str.maketrans({mark: f"\\{mark}" for mark in "\\|`*_<>[]"})
    return " ".join(text.translate(marks).split())


def _breakable(text: str) -> Markup:
    """HTML of a name with possible line breaks after underscores, because labels can be long."""
    return Markup("_<wbr>").join(text.split("_"))


def _fetched(raw: Path) -> list[Example]:
    """The examples, with the older versions that `validate` counts as quarantined."""
    superseded = raw / "superseded.jsonl"
    older = read_jsonl(superseded, Quarantined) if superseded.is_file() else []
    return read_jsonl(raw / "examples.jsonl", Example) + [row.example for row in older]


def _label_errors(path: Path) -> LabelErrorSummary | None:
    return next(iter(read_jsonl(path, LabelErrorSummary)), None) if path.is_file() else None


def _near(path: Path) -> NearSummary | None:
    return next(iter(read_jsonl(path, NearSummary)), None) if path.is_file() else None


def without_private(card: Card, hide: Callable[[str], str]) -> Card:
    """The card with every quoted text blackened, because steps before `private` quote rows as they came."""

    def shown(row: ShownRow) -> ShownRow:
        return ShownRow(hide(row.location), hide(row.input), hide(row.output), hide(row.detail))

    def reason(part: QuarantineReason) -> QuarantineReason:
        return replace(part, reason=hide(part.reason), examples=tuple(map(shown, part.examples)))

    def step(done: Step) -> Step:
        quoted = tuple(ShownChange(hide(each.location), hide(each.before), hide(each.after)) for each in done.changes)
        return replace(done, changes=quoted, reports=tuple(map(reason, done.reports)))

    return replace(card, steps=tuple(map(step, card.steps)), quarantine=tuple(map(reason, card.quarantine)))


def run(task: TaskParams, mixing: MixParams, private: PrivateParams, workspace: Path) -> str:
    """Write `data/card/`: card.md, card.html and card.json. Nothing that `private` replaces is quoted in it."""
    facts = {step: read_facts(workspace, step) for step in steps_of(workspace)}
    splits = {name: read_jsonl(workspace / SPLITS / f"{name}.jsonl", Example) for name in SPLIT_NAMES}
    card = describe(
        task,
        data_version(workspace / SPLITS),
        _fetched(workspace / RAW),
        read_jsonl(workspace / RAW / "rejected.jsonl", Rejected),
        {step: known.quarantined for step, known in facts.items()},
        splits,
        mixing,
        _near(workspace / LEAKAGE / "near_duplicates.jsonl"),
        {"fetch": StepFacts(seconds=seconds_of(workspace, "fetch")), **facts},
    )
    card = replace(card, label_errors=_label_errors(workspace / SUMMARY))
    if private.mode == "replace":
        card = without_private(card, hidden(finder(private)))
    folder = workspace / CARD
    folder.mkdir(parents=True, exist_ok=True)
    found = {"near": card.near, "label_errors": card.label_errors}
    values = {**asdict(card), **{name: each.model_dump() if each else None for name, each in found.items()}}
    (folder / "card.json").write_text(to_json(values), encoding="utf-8")
    drawn = pictures(card.steps, card.labels, splits, card.near.sizes if card.near else {})
    suspects = suspected_labels(workspace)
    (folder / "card.md").write_text(render(card, "data_card.md", suspects=suspects), encoding="utf-8")
    (folder / "card.html").write_text(render(card, "data_card.html", drawn, suspects), encoding="utf-8")
    return f"{CARD / 'card.html'} and card.md, data version {card.version}"
