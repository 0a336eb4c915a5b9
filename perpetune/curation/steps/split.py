"""Step 4: training, validation and holdout splits, from seed, groups and times but not from the order of rows.

See docs/decisions/0014-holdouts-that-labels-can-fill.md.
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

SUPERSEDED = "relabelled in production"
DOUBTED = "labelled because the model was unsure, so not used for evaluation"
LEAKED = {
    "frozen": "same input as a row of the frozen holdout",
    "recent": "same input as a row of the recent holdout",
    "validation": "same input as a row of the validation split",
}
"""By split, in order of precedence: why a row with the same input is in no later split."""


@dataclass(frozen=True)
class Splits:
    """The four splits, and the quarantined rows.

    `frozen` is never trained on and never re-split; `recent` is sampled from the newest labelled traffic.
    """

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    frozen: tuple[Example, ...]
    recent: tuple[Example, ...]
    quarantined: tuple[Quarantined, ...]

    def parts(self) -> dict[str, tuple[Example, ...]]:
        """The rows by split name."""
        return {"train": self.train, "validation": self.validation, "frozen": self.frozen, "recent": self.recent}


def split(examples: Sequence[Example], params: SplitParams) -> Splits:
    """Split examples by whole groups.

    Curated groups are assigned by a hash of seed and group, so that no group moves when data is added. A hash sample
    of traffic groups (`frozen_traffic` of them) joins the frozen holdout permanently. Every second group, by hash, of
    the newest other traffic is the recent holdout, so that new inputs are both trained and evaluated on. The remaining
    traffic is assigned like curated groups. No input is in two splits: holdouts keep it, and equal inputs elsewhere are
    quarantined. Traffic labelled because the model was unsure is trained on, or quarantined if its group is in another
    split.
    """
    rows = in_order(examples)
    assignments = _assignments(rows, params)
    parts: dict[str, tuple[Example, ...]] = {}
    quarantined: list[Quarantined] = []
    seen_in: dict[DedupKey, str] = {}
    for name in (*LEAKED, "train"):
        faults = _faults([row for row in rows if assignments[row.group] == name], name, seen_in, params)
        parts[name] = tuple(row for row, fault in faults if not fault)
        quarantined += [Quarantined(reason=fault, example=row) for row, fault in faults if fault]
        seen_in |= {input_key(row): LEAKED[name] for row in parts[name] if name in LEAKED}
    return Splits(**parts, quarantined=tuple(quarantined))


def _faults(
    rows: Sequence[Example], name: str, seen_in: dict[DedupKey, str], params: SplitParams
) -> list[tuple[Example, str | None]]:
    """Each row of a split with its reason for quarantine, if any."""
    relabelled = {input_key(row) for row in rows if is_traffic(row)}

    def fault(row: Example) -> str | None:
        if name != "train" and is_in_doubt(row):
            return DOUBTED
        if name == "frozen":
            return LEAKED["frozen"] if is_traffic(row) and not _is_frozen_traffic(row.group, params) else None
        if input_key(row) in seen_in:
            return seen_in[input_key(row)]
        return SUPERSEDED if input_key(row) in relabelled and not is_traffic(row) else None

    return [(row, fault(row)) for row in rows]


def _assignments(rows: Sequence[Example], params: SplitParams) -> dict[str, str]:
    """The split of each group. A group with curated rows follows them.

    Membership in the frozen sample of traffic is decided first, so that no group moves between the holdouts, and none
    that was trained on joins the frozen one.
    """
    curated = {row.group for row in rows if not is_traffic(row)}
    traffic = [row for row in rows if row.group not in curated and not _is_frozen_traffic(row.group, params)]
    evaluable = [row for row in traffic if not is_in_doubt(row)]
    assignments = dict.fromkeys((row.group for row in rows), "frozen")
    assignments |= {group: _assignment(group, params, "frozen") for group in curated}
    assignments |= dict.fromkeys((row.group for row in traffic), "train")
    assignments |= {row.group: _assignment(row.group, params, "train") for row in evaluable}
    return assignments | dict.fromkeys(_recent_groups(evaluable, params), "recent")


def _is_frozen_traffic(group: str, params: SplitParams) -> bool:
    """Whether traffic of this group is in the sample for the frozen holdout."""
    return hash_position(group, params.seed) < params.frozen_traffic


def _assignment(group: str, params: SplitParams, first: str) -> str:
    position = hash_position(group, params.seed)
    if position < params.frozen:
        return first
    return "validation" if position < params.frozen + params.validation else "train"


def hash_position(group: str, seed: int) -> float:
    """The hash of a group in [0, 1): uniform over groups, and fixed for a seed."""
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _recent_groups(traffic: Sequence[Example], params: SplitParams) -> list[str]:
    """Every second group, by hash, of the newest groups with twice `params.recent` of the rows."""
    span = min(1.0, 2 * params.recent)
    return [
        group
        for group in _newest_groups(traffic, span)
        if hash_position(f"recent {group}", params.seed) * span < params.recent
    ]


def _newest_groups(traffic: Sequence[Example], ratio: float) -> list[str]:
    """The groups with the newest rows that together have this ratio of all rows, to the nearest group."""
    groups: dict[str, list[Example]] = defaultdict(list)
    for row in traffic:
        groups[row.group].append(row)
    newest_first = sorted(groups, key=lambda group: (_newest(groups[group]), group), reverse=True)
    chosen: list[str] = []
    budget = ratio * len(traffic)
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
    """Raise PerpetuneError, with counts and advice, if the splits are too small to train and evaluate a model."""
    more = "add more examples with `perpetune ingest FILE`, and `inbox` in fetch.sources of params.yaml"
    if len(splits.train) < params.min_train_rows:
        raise PerpetuneError(
            f"{len(splits.train)} training rows are fewer than split.min_train_rows, {params.min_train_rows} "
            f"({_counts(splits)})",
            do=more,
        )
    if not splits.frozen:
        raise PerpetuneError(
            f"the frozen holdout is empty, so no model can be evaluated ({_counts(splits)})",
            do=f"raise split.frozen in params.yaml, or {more}",
        )
    labels = sorted({row.output for row in splits.train})
    if task.kind == "classification" and len(labels) < 2:
        raise PerpetuneError(
            f"all {len(splits.train)} training rows have the same label, {labels[0]!r}",
            do="add examples of another label, or set task.kind: generation in params.yaml",
        )


def _counts(splits: Splits) -> str:
    held = ", ".join(f"{name} {len(rows):,}" for name, rows in splits.parts().items())
    return f"{held}; quarantined {len(splits.quarantined):,}"


def mixed(splits: Splits, params: MixParams, min_rows: int) -> Splits:
    """The splits with the training mix; older rows that are not replayed are quarantined."""
    chosen = mix(splits.train, params, min_rows)
    return replace(splits, train=chosen.rows, quarantined=(*splits.quarantined, *chosen.quarantined))


def run(params: SplitParams, mixing: MixParams, task: TaskParams, workspace: Path) -> str:
    """Write `data/splits/`, one file per split, and the quarantined rows to `data/leakage/`."""
    divided = split(read_jsonl(workspace / CLEAN / "examples.jsonl", Example), params)
    splits = mixed(divided, mixing, params.min_train_rows)
    require_enough(splits, params, task)
    for name, rows in splits.parts().items():
        write_jsonl(workspace / SPLITS / f"{name}.jsonl", rows)
    kept = tuple(row for rows in splits.parts().values() for row in rows)
    write_quarantine(workspace / LEAKAGE, StepResult(kept, splits.quarantined))
    return _counts(splits)
