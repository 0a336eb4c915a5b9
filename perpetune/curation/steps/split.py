"""Step 4: training, validation and holdout splits, which keep their rows when data is added, edited or removed.

See docs/decisions/0014-holdouts-that-labels-can-fill.md and 0022-a-record-of-split-assignments.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from perpetune.curation.duplicates.by_meaning import load_pairs, with_pairs
from perpetune.curation.duplicates.near import NearDuplicates, near_duplicates
from perpetune.curation.duplicates.shared_passages import PassageIndex, passages_of
from perpetune.curation.duplicates.summary import near_summary
from perpetune.curation.duplicates.word_hashes import WordNumbers
from perpetune.curation.quarantine import Quarantined, StepResult, in_order
from perpetune.curation.rows.dedup_key import DedupKey, input_key
from perpetune.curation.rows.sources import is_by_rules, is_in_doubt, is_traffic
from perpetune.curation.running.engine import IN_PROCESS, Engine
from perpetune.curation.running.layout import LEAKAGE
from perpetune.curation.running.pipeline import input_of, output_of_split
from perpetune.curation.splitting.assignment_record import (
    PRECEDENCE,
    AssignmentRecord,
    given_name,
    load_record,
    save_record,
)
from perpetune.curation.splitting.splits import DOUBTED, HELD, LEAKED, MOVED, NEAR, RULED, SUPERSEDED, Splits
from perpetune.curation.splitting.units import Unit, assigned, curated_units, groups_of, hash_position, newest
from perpetune.curation.steps.enough import dropped_before, require_enough
from perpetune.curation.steps.mix import mix
from perpetune.curation.steps.step_files import write_quarantine
from perpetune.params import MixParams, SplitParams, TaskParams
from perpetune.records import Example, read_jsonl, write_jsonl


def split(
    examples: Sequence[Example],
    params: SplitParams,
    record: AssignmentRecord | None = None,
    *,
    labelled: bool = False,
    near: NearDuplicates | None = None,
) -> Splits:
    """Split examples by whole groups.

    With a record, groups keep the split that it names. New curated groups are joined if they are near duplicates, and
    assigned so that each label has its ratios if the rows are `labelled`. Without a record, a curated group is assigned
    by a hash of seed and name alone.

    A hash sample of traffic groups (`frozen_traffic` of them) joins the frozen holdout permanently. Every second group,
    by hash, of the newest other traffic is the recent holdout, so that new inputs are both trained and evaluated on.
    The remaining traffic is assigned by hash. Traffic labelled because the model was unsure is trained on, or
    quarantined if its group is in another split. So are rows that rules have labelled.

    No input and no near duplicate of one is in two splits: holdouts keep it, and rows elsewhere are quarantined. Of
    labelled rows, those one word apart with different labels are no near duplicates. `near` is found if it is not given.
    """
    rows = in_order(examples)
    near = near or compared(rows, params)
    assigner = _Assigner(rows, params, near, record, labelled=labelled)
    held_out = _HeldOut(near, labelled=labelled)
    passages = _HeldOutPassages()
    parts: dict[str, tuple[Example, ...]] = {}
    quarantined: list[Quarantined] = []
    for name in (*LEAKED, "train"):
        members = [row for row in rows if assigner.split_of[row.group] == name]
        relabelled = {input_key(row) for row in members if is_traffic(row)}
        faults = {
            position: fault
            for position, row in enumerate(members)
            if (
                fault := assigner.fault(row, name)
                or held_out.fault(row, name)
                or _superseded(row, name, relabelled)
                or assigner.was_frozen(row, name)
            )
        }
        faults |= passages.faults(members, faults) if params.near_duplicates else {}
        parts[name] = tuple(row for position, row in enumerate(members) if position not in faults)
        quarantined += [Quarantined(reason=faults[position], example=members[position]) for position in sorted(faults)]
        if name in LEAKED:
            held_out.add(parts[name], name)
            passages.add(parts[name], name)
    return Splits(**parts, quarantined=tuple(quarantined))


def compared(rows: Sequence[Example], params: SplitParams, engine: Engine = IN_PROCESS) -> NearDuplicates:
    """The near duplicates of the rows, which must be in canonical order; none if `near_duplicates` is off."""
    return near_duplicates(rows, engine) if params.near_duplicates else NearDuplicates()


def _superseded(row: Example, name: str, relabelled: set[DedupKey]) -> str | None:
    return SUPERSEDED if name != "frozen" and not is_traffic(row) and input_key(row) in relabelled else None


class _HeldOutPassages:
    """The passages of the splits so far, and the rows that the leakage check of an evaluation would find."""

    def __init__(self) -> None:
        self._numbers = WordNumbers()
        self._parts: dict[str, PassageIndex] = {}

    def add(self, rows: Sequence[Example], name: str) -> None:
        if rows:
            self._parts[name] = PassageIndex(passages_of(rows, self._numbers))

    def faults(self, members: Sequence[Example], known: Mapping[int, str]) -> dict[int, str]:
        """Of rows without a known fault, those that share their passages with an earlier split, by position."""
        left = [position for position in range(len(members)) if position not in known]
        if not self._parts:
            return {}
        passages = passages_of((members[position] for position in left), self._numbers)
        found: dict[int, str] = {}
        for name, index in self._parts.items():
            found |= {left[place]: NEAR[name] for place in index.like(passages) if left[place] not in found}
        return found


class _HeldOut:
    """The inputs of the splits so far, and why a row like them is in no later one."""

    def __init__(self, near: NearDuplicates, *, labelled: bool) -> None:
        self._near = near
        self._labelled = labelled
        self._inputs: dict[DedupKey, str] = {}
        self._texts: dict[int, tuple[str, set[str]]] = {}

    def add(self, rows: Sequence[Example], name: str) -> None:
        for row in rows:
            self._inputs[input_key(row)] = name
            if self._near.numbers:
                self._texts.setdefault(self._near.text_of(row), (name, set()))[1].add(row.output)

    def fault(self, row: Example, name: str) -> str | None:
        if name == "frozen":
            return None
        if input_key(row) in self._inputs:
            return LEAKED[self._inputs[input_key(row)]]
        if not self._near.numbers:
            return None
        text = self._near.text_of(row)
        if text in self._texts:
            return NEAR[self._texts[text][0]]
        held = (self._texts[other] for other in self._near.like(text) if other in self._texts)
        names = [name for name, outputs in held if not self._labelled or row.output in outputs]
        return NEAR[min(names, key=list(NEAR).index)] if names else None


class _Assigner:
    """The split of each group. A group with curated rows follows them.

    Membership in the frozen sample of traffic is decided first, so that no group moves between the holdouts, and none
    that was trained on joins the frozen one.
    """

    def __init__(
        self,
        rows: Sequence[Example],
        params: SplitParams,
        near: NearDuplicates,
        record: AssignmentRecord | None,
        *,
        labelled: bool,
    ) -> None:
        self._params = params
        self._record = record or AssignmentRecord(params.seed)
        by_group = groups_of(rows)
        curated = {group: found for group, found in by_group.items() if not all(is_traffic(row) for row in found)}
        units = curated_units(curated, near, self._record, params.frozen_sources)
        if record is None:
            self.split_of = {group: _assignment(_names(found), params, "frozen") for group, found in curated.items()}
            self.split_of |= {group: "frozen" for unit in units if unit.recorded == "frozen" for group in unit.groups}
        else:
            self.split_of = assigned([unit for unit in units if not _is_for_training(unit)], params, labelled=labelled)
        self.split_of |= {group: "train" for unit in units if _is_for_training(unit) for group in unit.groups}
        self.split_of |= self._of_traffic([row for row in rows if row.group not in curated])

    def _of_traffic(self, rows: Sequence[Example]) -> dict[str, str]:
        left = [row for row in rows if not self._is_drawn(row)]
        evaluable = [row for row in left if not is_in_doubt(row)]
        splits = dict.fromkeys((row.group for row in rows), "frozen")
        splits |= dict.fromkeys((row.group for row in left), "train")
        splits |= {row.group: _assignment([row.group], self._params, "train") for row in evaluable}
        return splits | dict.fromkeys(_recent_groups(evaluable, self._params), "recent")

    def fault(self, row: Example, name: str) -> str | None:
        """Why the row is not in the split of its group, if it is not."""
        if name != "train" and is_in_doubt(row):
            return DOUBTED
        if name != "train" and is_by_rules(row):
            return RULED
        if name == "frozen" and is_traffic(row) and not self._is_drawn(row):
            return LEAKED["frozen"]
        if name in ("frozen", "validation") and self._was_behind(row, name):
            return MOVED
        return None

    def was_frozen(self, row: Example, name: str) -> str | None:
        """The fault of a row with the text of a frozen row that is not here any more under its id and group."""
        return HELD if name != "frozen" and self._record.of_text(row) == "frozen" else None

    def _is_drawn(self, row: Example) -> bool:
        """Whether this row of traffic is in the sample for the frozen holdout."""
        return hash_position(row.group, self._params.seed) < self._params.frozen_traffic

    def _was_behind(self, row: Example, name: str) -> bool:
        """Whether the row, or one with its text, is recorded in a split of lower precedence."""
        recorded = self._record.first_use(row)
        return recorded is not None and PRECEDENCE.index(recorded) > PRECEDENCE.index(name)


def _is_for_training(unit: Unit) -> bool:
    """Whether only rules have labelled its rows, and none like them was in a holdout before."""
    return unit.recorded in (None, "train") and all(is_by_rules(row) for row in unit.rows)


def _names(rows: Sequence[Example]) -> list[str]:
    return [given_name(row) for row in rows if not is_traffic(row)]


def _assignment(names: Sequence[str], params: SplitParams, first: str) -> str:
    """By the smallest hash, so that a name that is added moves no frozen row."""
    position = min(hash_position(name, params.seed) for name in names)
    if position < params.frozen:
        return first
    return "validation" if position < params.frozen + params.validation else "train"


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
    groups = groups_of(traffic)
    newest_first = sorted(groups, key=lambda group: (newest(groups[group]), group), reverse=True)
    chosen: list[str] = []
    budget = ratio * len(traffic)
    for group in newest_first:
        size = len(groups[group])
        if size > 2 * budget:
            break
        chosen.append(group)
        budget -= size
    return chosen


def mixed(splits: Splits, params: MixParams, min_rows: int) -> Splits:
    """The splits with the training mix; older rows that are not replayed are quarantined."""
    chosen = mix(splits.train, params, min_rows)
    return replace(splits, train=chosen.rows, quarantined=(*splits.quarantined, *chosen.quarantined))


def run(params: SplitParams, mixing: MixParams, task: TaskParams, workspace: Path, engine: Engine = IN_PROCESS) -> str:
    """Write `data/splits/` (`data/divided/` if `select` follows), `data/leakage/` and the record of assignments."""
    record, labelled = load_record(workspace, params.seed), task.kind == "classification"
    rows = in_order(read_jsonl(workspace / input_of("split", workspace) / "examples.jsonl", Example))
    near = with_pairs(compared(rows, params, engine), rows, load_pairs(workspace))
    divided = split(rows, params, record, labelled=labelled, near=near)
    splits = mixed(divided, mixing, params.min_train_rows)
    require_enough(splits, params, task, dropped_before(workspace))
    save_record(workspace, record.with_rows(divided.parts()))
    for name, part in splits.parts().items():
        write_jsonl(workspace / output_of_split(workspace) / f"{name}.jsonl", part)
    kept = tuple(row for part in splits.parts().values() for row in part)
    write_quarantine(workspace, "split", [StepResult(kept, splits.quarantined)])
    summary = near_summary(rows, near, labelled=labelled)
    write_jsonl(workspace / LEAKAGE / "near_duplicates.jsonl", [summary] if summary else [])
    return splits.counts()
