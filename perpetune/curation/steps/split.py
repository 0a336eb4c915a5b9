"""Step 4: who is trained on and who judges. It depends on seed, groups and times, never on the order of rows.

Why the holdouts are drawn as they are: docs/decisions/0014-holdouts-that-labels-can-fill.md.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from perpetune.curation.dedup_key import DedupKey, input_key
from perpetune.curation.layout import CLEAN, LEAKAGE, SPLITS
from perpetune.curation.quarantine import EARLIEST, Quarantined, StepResult, in_order
from perpetune.curation.sources import is_in_doubt, is_traffic
from perpetune.curation.steps.mix import mix
from perpetune.curation.steps.step_files import write_quarantine
from perpetune.errors import PerpetuneError
from perpetune.params import MixParams, SplitParams, TaskParams
from perpetune.records import Example, read_jsonl, write_jsonl

SUPERSEDED = "production labelled this input anew"
DOUBTED = "it was labelled for the model's doubt, which rows that judge must not be chosen by"
LEAKED = {
    "frozen": "its like is in the frozen holdout",
    "recent": "its like is in the recent holdout",
    "validation": "its like is in the validation split",
}
"""Why a row is in no split: one named here, and before its own, keeps a row that asks the same."""


@dataclass(frozen=True)
class Splits:
    """The four splits, and the rows that are in none.

    `frozen` is never trained on and never re-split; `recent` is drawn from the newest labelled traffic.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    frozen: tuple[Example, ...]
    recent: tuple[Example, ...]
    quarantined: tuple[Quarantined, ...]

    def parts(self) -> dict[str, tuple[Example, ...]]:
        """The rows by the name of their split."""
        return {"train": self.train, "validation": self.validation, "frozen": self.frozen, "recent": self.recent}


def split(examples: Sequence[Example], params: SplitParams) -> Splits:
    """Divide examples in whole groups.

    Curated groups fall by a hash of seed and group, so that no group ever moves, whatever is added.
    Of traffic, groups drawn by lot (`frozen_traffic` of them) join the frozen holdout once and for ever, before
    anything else is decided on them. The recent holdout is drawn by lot too, one group in two, from the newest of
    the rest: what is new is learned from and judged by at once. What is left falls like curated groups. No input is left in two splits: the holdouts keep it, and its likes elsewhere are set
    aside. Traffic that was labelled because the model was unsure of its answer is trained on, or set aside if its
    group judges.
    """
    rows = in_order(examples)
    assignments = _assignments(rows, params)
    parts: dict[str, tuple[Example, ...]] = {}
    quarantined: list[Quarantined] = []
    leaks: dict[DedupKey, str] = {}
    for name in (*LEAKED, "train"):
        faults = _faults([row for row in rows if assignments[row.group] == name], name, leaks, params)
        parts[name] = tuple(row for row, fault in faults if not fault)
        quarantined += [Quarantined(reason=fault, example=row) for row, fault in faults if fault]
        leaks |= {input_key(row): LEAKED[name] for row in parts[name] if name in LEAKED}
    return Splits(**parts, quarantined=tuple(quarantined))


def _faults(
    rows: Sequence[Example], name: str, leaks: dict[DedupKey, str], params: SplitParams
) -> list[tuple[Example, str | None]]:
    """Each row of a split with the reason why it may not stay there, if any."""
    relabelled = {input_key(row) for row in rows if is_traffic(row)}

    def fault(row: Example) -> str | None:
        if name != "train" and is_in_doubt(row):
            return DOUBTED
        if name == "frozen":
            return LEAKED["frozen"] if is_traffic(row) and not _is_frozen_traffic(row.group, params) else None
        if input_key(row) in leaks:
            return leaks[input_key(row)]
        return SUPERSEDED if input_key(row) in relabelled and not is_traffic(row) else None

    return [(row, fault(row)) for row in rows]


def _assignments(rows: Sequence[Example], params: SplitParams) -> dict[str, str]:
    """The split in which each group lives. A group that has curated rows lives where those do.

    The lot comes first, whatever else a group of traffic has: so none moves between the holdouts, and none that was
    trained on joins the frozen one.
    """
    curated = {row.group for row in rows if not is_traffic(row)}
    traffic = [row for row in rows if row.group not in curated and not _is_frozen_traffic(row.group, params)]
    judging = [row for row in traffic if not is_in_doubt(row)]
    assignments = dict.fromkeys((row.group for row in rows), "frozen")
    assignments |= {group: _assignment(group, params, "frozen") for group in curated}
    assignments |= dict.fromkeys((row.group for row in traffic), "train")
    assignments |= {row.group: _assignment(row.group, params, "train") for row in judging}
    return assignments | dict.fromkeys(_recent_groups(judging, params), "recent")


def _is_frozen_traffic(group: str, params: SplitParams) -> bool:
    """Whether traffic of this group is drawn into the frozen holdout."""
    return hash_position(group, params.seed) < params.frozen_traffic


def _assignment(group: str, params: SplitParams, first: str) -> str:
    where = hash_position(group, params.seed)
    if where < params.frozen:
        return first
    return "validation" if where < params.frozen + params.validation else "train"


def hash_position(group: str, seed: int) -> float:
    """Where a group falls between 0 and 1: uniform over groups, and for one seed always the same."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _recent_groups(traffic: Sequence[Example], params: SplitParams) -> list[str]:
    """Every other group, by lot, of the newest ones with twice the rows: together they have the ratio asked for."""
    span = min(1.0, 2 * params.recent)
    return [
        group
        for group in _newest_groups(traffic, span)
        if hash_position(f"recent {group}", params.seed) * span < params.recent
    ]


def _newest_groups(traffic: Sequence[Example], share: float) -> list[str]:
    """The groups with the newest rows that together hold the share of all rows, to the nearest group."""
    groups: dict[str, list[Example]] = defaultdict(list)
    for row in traffic:
        groups[row.group].append(row)
    newest_first = sorted(groups, key=lambda group: (_newest(groups[group]), group), reverse=True)
    chosen: list[str] = []
    budget = share * len(traffic)
    for group in newest_first:
        size = len(groups[group])
        if size > 2 * budget:
            break
        chosen.append(group)
        budget -= size
    return chosen


def _newest(rows: Sequence[Example]) -> datetime:
    return max(row.time or EARLIEST for row in rows)


def require_enough(splits: Splits, params: SplitParams, task: TaskParams) -> None:
    """Raise PerpetuneError where the splits cannot train a model and judge it, with counts and advice."""
    more = "bring more examples: perpetune ingest FILE, with `inbox` in fetch.sources of params.yaml"
    if len(splits.train) < params.min_train_rows:
        raise PerpetuneError(
            f"{len(splits.train)} training rows are too few, split.min_train_rows is {params.min_train_rows} "
            f"({_counts(splits)})",
            do=more,
        )
    if not splits.frozen:
        raise PerpetuneError(
            f"nothing fell into the frozen holdout, so that no model could be judged ({_counts(splits)})",
            do=f"raise split.frozen in params.yaml, or {more}",
        )
    labels = sorted({row.output for row in splits.train})
    if task.kind == "classification" and len(labels) < 2:
        raise PerpetuneError(
            f"all {len(splits.train)} training rows have the same label, {labels[0]!r}",
            do="bring examples of another label, or set task.kind to generation in params.yaml",
        )


def _counts(splits: Splits) -> str:
    held = ", ".join(f"{name} {len(rows):,}" for name, rows in splits.parts().items())
    return f"{held}; set aside {len(splits.quarantined):,}"


def mixed(splits: Splits, params: MixParams, least: int) -> Splits:
    """The splits with no more older training rows than the mix asks for; the rest is set aside."""
    chosen = mix(splits.train, params, least)
    return replace(splits, train=chosen.rows, quarantined=(*splits.quarantined, *chosen.quarantined))


def run(params: SplitParams, mixing: MixParams, task: TaskParams, workspace: Path) -> str:
    """Write `data/splits/`, one file a split, and what leaked or was not replayed to `data/leakage/`."""
    divided = split(read_jsonl(workspace / CLEAN / "examples.jsonl", Example), params)
    splits = mixed(divided, mixing, params.min_train_rows)
    require_enough(splits, params, task)
    for name, rows in splits.parts().items():
        write_jsonl(workspace / SPLITS / f"{name}.jsonl", rows)
    kept = tuple(row for rows in splits.parts().values() for row in rows)
    write_quarantine(workspace / LEAKAGE, StepResult(kept, splits.quarantined))
    return _counts(splits)
