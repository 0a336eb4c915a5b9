"""The frozen holdout keeps its members through whatever teams do to their files, and no twin of one is trained on."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from near_duplicate_kinds import KINDS, NEVER_STRADDLE

from perpetune.curation.duplicates.near import near_duplicates
from perpetune.curation.quarantine import in_order
from perpetune.curation.readers.row import example_of
from perpetune.curation.splitting.assignment_record import AssignmentRecord
from perpetune.curation.splitting.splits import Splits
from perpetune.curation.steps.clean import clean
from perpetune.curation.steps.split import split
from perpetune.curation.steps.validate import validate
from perpetune.params import CleanParams, SplitParams, TaskParams
from perpetune.records import Example

TASK = TaskParams(name="words", kind="classification", instruction="")
START = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = (
    "add", "twin", "edit", "relabel", "remove", "restore", "group", "time", "rename", "ratios", "by", "shuffle", "copy",
)  # fmt: skip
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass
class Row:
    """A row as a team has it. `key` follows it through all changes, `line` is what is in the file."""

    key: str
    line: dict[str, object]


@dataclass
class Team:
    """Files, settings and what was recorded, changed by a list of steps."""

    draw: random.Random
    with_ids: bool
    rows: list[Row] = field(default_factory=list)
    removed: list[Row] = field(default_factory=list)
    params: SplitParams = field(default_factory=lambda: SplitParams(frozen=0.3, validation=0.2, min_train_rows=1))
    record: AssignmentRecord = field(default_factory=lambda: AssignmentRecord(SplitParams().seed))
    source: str = "file"
    known: set[tuple[str, str]] = field(default_factory=set)
    made: int = 0

    def text(self) -> str:
        self.made += 1
        words = [f"{self.draw.choice(NUMBERS)}{self.made}" for _ in range(self.draw.randint(3, 6))]
        return " ".join(words)

    def added(self, text: str, label: str, like: Row | None = None) -> None:
        self.made += 1
        line: dict[str, object] = {"input": text, "output": label}
        if self.with_ids:
            line["id"] = f"k{self.made}"
        if like and "group" in like.line and self.draw.random() < 0.5:
            line["group"] = like.line["group"]
        self.rows.append(Row(f"k{self.made}", line))

    def do(self, step: str) -> None:
        if step == "add" or (not self.rows and step not in ("restore", "ratios", "by")):
            self.added(self.text(), self.draw.choice("ab"))
            return
        row = self.draw.choice(self.rows) if self.rows else None
        if step == "restore":
            self.rows += [self.removed.pop()] if self.removed else []
        elif step == "ratios":
            frozen, validation = self.draw.choice([(0.3, 0.2), (0.1, 0.1), (0.5, 0.1), (0.05, 0.3)])
            self.params = self.params.model_copy(update={"frozen": frozen, "validation": validation})
        elif step == "by":
            self.params = self.params.model_copy(update={"by": self.draw.choice(["hash", "time"])})
        elif row is not None:
            self._of_row(step, row)

    def _of_row(self, step: str, row: Row) -> None:
        place = self.rows.index(row)
        text, label = str(row.line["input"]), str(row.line["output"])
        if step in ("twin", "copy"):
            kind = self.draw.choice(NEVER_STRADDLE)
            self.added(KINDS[kind](text, self.draw) if step == "twin" else text, label, row)
        elif step == "remove":
            self.removed.append(self.rows.pop(place))
        elif step == "rename":
            self.source = f"file {self.draw.randint(1, 3)}"
        elif step == "shuffle":
            self.draw.shuffle(self.rows)
        elif step != "edit" or not self.with_ids or (row.key, self.source) in self.known:
            changes: dict[str, dict[str, object]] = {
                "edit": {"input": self.text() if self.with_ids else f"{text}."},
                "relabel": {"output": "b" if label == "a" else "a"},
                "group": {"group": self.draw.choice(["g1", "g2", "g3"])},
                "time": {"time": (START + timedelta(days=self.draw.randint(0, 99))).isoformat()},
            }
            self.rows[place] = replace(row, line={**row.line, **changes[step]})

    def curate(self) -> tuple[Splits, dict[str, set[str]], list[Example]]:
        """The splits, the rows of each by key, and all rows that reached the split."""
        examples = [example_of(row.line, self.source) for row in self.rows]
        cleaned = clean(validate(examples).kept, CleanParams(min_label_rows=1), TASK, self.record).kept
        splits = split(cleaned, self.params, self.record, labelled=True)
        self.record = self.record.with_rows(splits.parts())
        self.known |= {(row.id, self.source) for part in splits.parts().values() for row in part}
        by_key = {name: set(map(self.key_of, part)) for name, part in splits.parts().items()}
        return splits, by_key, list(cleaned)

    def key_of(self, row: Example) -> str:
        """What a row is known by: its id, or its text if it has none."""
        return row.id if self.with_ids else row.input


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(STEPS), min_size=1, max_size=10), min_size=2, max_size=7),
    st.integers(),
    st.booleans(),
)
def test_members_stay_and_no_twin_of_one_is_trained_on(history: list[list[str]], seed: int, with_ids: bool) -> None:
    team = Team(random.Random(seed), with_ids)
    for _ in range(12):
        team.do("add")
    frozen: set[str] = set()
    used: set[str] = set()
    for steps in history:
        # Without ids, or in a file of another name, a row is known by its text: it is not edited in the same breath.
        for step in steps if "rename" not in steps else [step for step in steps if step not in ("edit", "group")]:
            team.do(step)
        splits, keys, cleaned = team.curate()
        reached = set(map(team.key_of, cleaned))

        left = (frozen & reached) - keys["frozen"]
        assert not left or not with_ids, "a member that is still there is frozen"
        assert not left & (keys["train"] | keys["validation"])
        assert not keys["frozen"] & used, "no row that was trained on becomes one"
        near = near_duplicates(in_order(cleaned))
        held = {near.text_of(row) for row in splits.frozen}
        assert not [row.input for row in (*splits.train, *splits.validation) if near.text_of(row) in held]
        frozen |= keys["frozen"]
        used |= keys["train"] | keys["validation"]
        assert not frozen & used
