"""Asking a system the held-out rows: told of as it goes on, no longer than it matters, and never the same twice."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from perpetune.generation.answer import Answer
from perpetune.records import Example, Message

Predict = Callable[[Sequence[Example]], list[Answer]]
Log = Callable[[str], None]
# Whether it is clear that a system is behind, from so many of its answers (at their places) at this confidence.
IsBehind = Callable[[Sequence[int], Sequence[Answer], float], bool]

FIRST_ROWS = 8  # asked to learn how long a row takes
PIECE_SECONDS = 8.0  # between two words on how far it is
FIRST_LOOK = 40  # rows after which it is asked whether more are needed


def with_progress(name: str, ask: Predict, tell: Log) -> Predict:
    """The same, in pieces of some seconds each, after which it says how many rows are done and what time is left."""

    def answers(rows: Sequence[Example]) -> list[Answer]:
        found: list[Answer] = []
        began = time.monotonic()
        size = FIRST_ROWS
        while len(found) < len(rows):
            found += ask(rows[len(found) : len(found) + size])
            a_row = (time.monotonic() - began) / len(found)
            size = max(FIRST_ROWS, int(PIECE_SECONDS / max(a_row, 1e-6)))
            left = a_row * (len(rows) - len(found))
            if left >= 1:
                tell(f"{name}: {len(found)} of {len(rows)} rows answered, about {left:.0f} s left")
        return found

    return answers


def with_request_progress(ask: Callable[[int], object], what: str, least: int, tell: Log) -> Callable[[int], object]:
    """The same, asked one at a time, and told of every few seconds."""
    done, told = 0, time.monotonic()

    def asked(position: int) -> object:
        nonlocal done, told
        answer = ask(position)
        done += 1
        if time.monotonic() - told >= PIECE_SECONDS:
            told = time.monotonic()
            tell(f"{what}: {done} of at least {least} requests timed")
        return answer

    return asked


def predict_until_clear(
    ask: Predict, rows: Sequence[Example], behind: IsBehind, confidence: float, seed: int
) -> list[Answer | None]:
    """The answers to all rows, or to a sample drawn by lot (None for the others) once it is clear that it is behind.

    It is looked at after `FIRST_LOOK` rows, after twice as many and so on, each time at such a confidence (Bonferroni)
    that all looks together stop a system that is not behind with a chance of 1 - `confidence` at most.
    """
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    checks = [FIRST_LOOK << turn for turn in range(len(rows).bit_length()) if FIRST_LOOK << turn < len(rows)]
    each = 1 - (1 - confidence) / max(1, len(checks))
    found: dict[int, Answer] = {}
    for end in (*checks, len(rows)):
        positions = order[len(found) : end]
        found |= dict(zip(positions, ask([rows[position] for position in positions]), strict=True))
        if end < len(rows) and behind(list(found), list(found.values()), each):
            break
    return [found.get(position) for position in range(len(rows))]


def cached(folder: Path, settings: object, asked: Callable[[Example], Sequence[Message]], ask: Predict) -> Predict:
    """The same, but what was once answered under these settings is read from `folder` and not asked again."""
    path = folder / f"{_digest(settings)}.jsonl"

    def answers(rows: Sequence[Example]) -> list[Answer]:
        known = _read(path)
        keys = [_digest([message.model_dump() for message in asked(row)]) for row in rows]
        new = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
        if new:
            fresh = dict(zip(new, ask(list(new.values())), strict=True))
            _append(path, fresh)
            known |= fresh
        return [known[key] for key in keys]

    return answers


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, Answer]:
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8") as lines:
        read = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")]
        return {each["asked"]: Answer(**each["answer"]) for each in read}


def _append(path: Path, answers: dict[str, Answer]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A line that was cut off when its writer was killed is ended first, and passed over when they are read.
    lines = ["\n" + json.dumps({"asked": key, "answer": _document(answer)}) + "\n" for key, answer in answers.items()]
    with path.open("a", encoding="utf-8") as file:
        file.writelines(lines)


def _document(answer: Answer) -> dict[str, object]:
    return {name: value for name, value in asdict(answer).items() if name not in ("logprobs", "tool_calls")}
