"""The units that are assigned to a split as a whole: groups, and groups that are near duplicates of each other."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from perpetune.curation.duplicates.canonical import canonical_turns
from perpetune.curation.duplicates.near import NearDuplicates, stars
from perpetune.curation.quarantine import EARLIEST
from perpetune.curation.rows.sources import is_traffic
from perpetune.curation.splitting.assignment_record import PRECEDENCE, AssignmentRecord, given_name
from perpetune.curation.text import fingerprint
from perpetune.params import SplitParams
from perpetune.records import Example


@dataclass(frozen=True, slots=True)
class Unit:
    """Groups that are assigned together. `name` decides by its hash; `recorded` is the split that they were in before.

    `is_text` says that each group has one text, by which its rows are known too.
    """

    name: str
    groups: tuple[str, ...]
    rows: tuple[Example, ...]
    recorded: str | None
    is_text: bool


def newest(rows: Iterable[Example]) -> datetime:
    return max(row.time or EARLIEST for row in rows)


def groups_of(rows: Iterable[Example]) -> dict[str, list[Example]]:
    by_group: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        by_group[row.group].append(row)
    return by_group


def curated_units(
    by_group: Mapping[str, Sequence[Example]],
    near: NearDuplicates,
    record: AssignmentRecord,
    frozen_sources: Collection[str] = (),
) -> list[Unit]:
    """Groups with curated rows, near duplicates together; those with a row of a frozen source are as if recorded frozen.

    Only groups with one text each are joined: the rows of a customer or a document would join whatever they quote. Nor
    are groups that the record has in different splits; a new one joins those of the first split.
    """
    texts = {group: {near.text_of(row) for row in rows} for group, rows in by_group.items()} if near.numbers else {}
    single = {group: next(iter(found)) for group, found in texts.items() if len(found) == 1}
    centres = stars(single.values(), near)
    stars_of: dict[object, list[Unit]] = defaultdict(list)
    for group, rows in by_group.items():
        stars_of[centres[single[group]] if group in single else group].append(
            _unit(group, rows, record, frozen_sources)
        )
    return [unit for units in stars_of.values() for unit in _joined(units)]


def _unit(group: str, rows: Sequence[Example], record: AssignmentRecord, frozen_sources: Collection[str] = ()) -> Unit:
    name = min((given_name(row) for row in rows if not is_traffic(row)), key=fingerprint)
    is_text = len(rows) == 1 or len({canonical_turns(row) for row in rows}) == 1
    recorded = _first(record.of_row(row, by_text=is_text) for row in rows)
    is_frozen = any(row.source in frozen_sources for row in rows)
    return Unit(name, (group,), tuple(rows), "frozen" if is_frozen else recorded, is_text)


def _joined(units: Sequence[Unit]) -> list[Unit]:
    first = _first(unit.recorded for unit in units)
    by_split: dict[str | None, list[Unit]] = defaultdict(list)
    for unit in units:
        by_split[unit.recorded or first].append(unit)
    return [
        Unit(
            min((unit.name for unit in members), key=fingerprint),
            tuple(group for unit in members for group in unit.groups),
            tuple(row for unit in members for row in unit.rows),
            split,
            all(unit.is_text for unit in members),
        )
        for split, members in by_split.items()
    ]


def _first(splits: Iterable[str | None]) -> str | None:
    known = set(splits)
    return next((split for split in PRECEDENCE if split in known), None)


def hash_position(name: str, seed: int) -> float:
    """The hash of a name in [0, 1): uniform over names, and fixed for a seed."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assigned(units: Sequence[Unit], params: SplitParams, *, labelled: bool) -> dict[str, str]:
    """The split of each group: the recorded one, or one that brings each label's ratios nearest to the settings.

    Among units that are new, the smallest hashes go to the frozen holdout and the next ones to validation; with
    `split.by: time` the newest ones, of all labels together.
    """
    strata: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        strata[_label(unit) if labelled and params.by == "hash" else ""].append(unit)
    split_of = {unit.groups: unit.recorded for unit in units if unit.recorded}
    for split, ratio in (("frozen", params.frozen), ("validation", params.validation)):
        quotas = _quotas(strata, split, ratio, split_of)
        for label, members in strata.items():
            new = sorted((unit for unit in members if unit.groups not in split_of), key=_order(params))
            split_of |= {unit.groups: split for unit in new[: quotas[label]]}
    return {group: split_of.get(unit.groups, "train") for unit in units for group in unit.groups}


def _order(params: SplitParams) -> Callable[[Unit], tuple[float, float]]:
    def key(unit: Unit) -> tuple[float, float]:
        age = -(newest(unit.rows) - EARLIEST).total_seconds() if params.by == "time" else 0.0
        return age, hash_position(unit.name, params.seed)

    return key


def _quotas(
    strata: Mapping[str, Sequence[Unit]], split: str, ratio: float, split_of: Mapping[tuple[str, ...], str]
) -> dict[str, int]:
    """How many new units of each stratum go to the split: the ratio rounded down, then by the largest remainders.

    One unit of each stratum is left for training.
    """
    wanted = {label: ratio * len(units) for label, units in strata.items()}
    held = {label: sum(split_of.get(unit.groups) == split for unit in units) for label, units in strata.items()}
    room = {label: _room(units, split_of) for label, units in strata.items()}
    quotas = {label: max(0, min(math.floor(wanted[label] + 1e-9) - held[label], room[label])) for label in strata}
    short = math.floor(sum(wanted.values()) + 0.5) - sum(held.values()) - sum(quotas.values())
    by_remainder = sorted(strata, key=lambda label: (held[label] + quotas[label] - wanted[label], fingerprint(label)))
    open_strata = [
        label for label in by_remainder if quotas[label] < room[label] and held[label] + quotas[label] < wanted[label]
    ]
    return quotas | {label: quotas[label] + 1 for label in open_strata[: max(0, short)]}


def _room(units: Sequence[Unit], split_of: Mapping[tuple[str, ...], str]) -> int:
    new = sum(unit.groups not in split_of for unit in units)
    return new if any(split_of.get(unit.groups) == "train" for unit in units) else max(0, new - 1)


def _label(unit: Unit) -> str:
    counts = Counter(row.output for row in unit.rows)
    return min(counts, key=lambda output: (-counts[output], output))
