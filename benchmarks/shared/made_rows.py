"""Made rows in any number for measurements of speed: sentences of reviews recombined, with duplicates planted in them.

A text is the beginning of one sentence and the end of another, so its words and lengths are those of people. Rows are
made one at a time from a seed: the same rows for the same number, in the memory of one.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["equal", "variant", "one word"]
LABELS = 20
PLANTED: dict[Kind, float] = {"equal": 0.05, "variant": 0.05, "one word": 0.05}
"""Ratios of rows that are copies of an earlier one: unchanged, in other case and punctuation, or with another word."""
RELABELLED = 0.02
"""Ratio of the copies with another label."""
CONVERSATIONS = 0.05
"""Ratio of rows with earlier turns."""
_LATELY = 5_000  # a copy is of one of so many rows before it
_FILLERS = ("really", "still", "quite", "surely", "almost", "again", "indeed", "maybe", "often", "simply")


@dataclass(frozen=True)
class MadeRow:
    """A row as it is written to a file, and of which row it is a copy."""

    number: int
    text: str
    label: str
    earlier: str | None
    copy_of: int | None = None
    kind: Kind | None = None

    def line(self) -> str:
        values: dict[str, object] = {"id": f"row-{self.number:07}", "input": self.text, "output": self.label}
        if self.earlier is not None:
            turns = (("user", self.earlier), ("assistant", self.label), ("user", self.text))
            values["messages"] = [{"role": role, "content": content} for role, content in turns]
        return json.dumps(values, ensure_ascii=False)


def made_rows(count: int, sentences: Sequence[str], seed: int = 7) -> Iterator[MadeRow]:
    """So many rows, of which the `PLANTED` ratios are copies of earlier ones."""
    picks = random.Random(seed)
    words = [sentence.split() for sentence in sentences if len(sentence.split()) >= 8]
    lately: deque[MadeRow] = deque(maxlen=_LATELY)
    for number in range(count):
        kind = _kind(picks) if lately else None
        row = _new(number, words, picks) if kind is None else _copy(number, picks.choice(lately), kind, picks)
        if kind is None and row.earlier is None:
            lately.append(row)
        yield row


def write_rows(path: Path, rows: Iterator[MadeRow]) -> None:
    """Write the rows as JSON Lines, one at a time."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(row.line() + "\n" for row in rows)


def _kind(picks: random.Random) -> Kind | None:
    drawn = picks.random()
    for kind, ratio in PLANTED.items():
        if drawn < ratio:
            return kind
        drawn -= ratio
    return None


def _new(number: int, words: Sequence[list[str]], picks: random.Random) -> MadeRow:
    place = picks.randrange(len(words))
    earlier = _recombined(words, picks.randrange(len(words)), picks) if picks.random() < CONVERSATIONS else None
    return MadeRow(number, _recombined(words, place, picks), f"label {place % LABELS}", earlier)


def _recombined(words: Sequence[list[str]], place: int, picks: random.Random) -> str:
    one, other = words[place], words[picks.randrange(len(words))]
    return " ".join([*one[: picks.randint(4, len(one) - 1)], *other[picks.randint(1, len(other) - 4) :]])


def _copy(number: int, row: MadeRow, kind: Kind, picks: random.Random) -> MadeRow:
    changed: dict[Kind, Callable[[], str]] = {
        "equal": lambda: row.text,
        "variant": lambda: f"{row.text.upper()}!!",
        "one word": lambda: _with_another_word(row.text, picks),
    }
    label = f"label {picks.randrange(LABELS)}" if picks.random() < RELABELLED else row.label
    return MadeRow(number, changed[kind](), label, None, row.number, kind)


def _with_another_word(text: str, picks: random.Random) -> str:
    words = text.split()
    words[picks.randrange(1, len(words) - 1)] = picks.choice(_FILLERS)
    return " ".join(words)
