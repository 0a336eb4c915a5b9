"""Predictions on held-out rows: progress lines, early stopping, and a cache of answers."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from perpetune.curation.rows.dedup_key import row_hash
from perpetune.generation.answer import Answer
from perpetune.records import Example, Message

Predict = Callable[[Sequence[Example]], list[Answer]]
Log = Callable[[str], None]  # writes a line to the flow's log
# Whether a system is shown to be behind: its positions in the rows, its answers to them, and the confidence.
IsBehind = Callable[[Sequence[int], Sequence[Answer], float], bool]

FIRST_ROWS = 8  # answered first, to learn how long a row takes
LOG_SECONDS = 8.0  # between two progress lines
FIRST_TEST = 40  # rows before the first test for early stopping


def with_progress(name: str, predict: Predict, log: Log) -> Predict:
    """Predict in chunks of some seconds each, and log the rows done and the time left after each."""

    def answers(rows: Sequence[Example]) -> list[Answer]:
        found: list[Answer] = []
        began = time.monotonic()
        size = FIRST_ROWS
        while len(found) < len(rows):
            found += predict(rows[len(found) : len(found) + size])
            per_row = (time.monotonic() - began) / len(found)
            size = max(FIRST_ROWS, int(LOG_SECONDS / max(per_row, 1e-6)))
            left = per_row * (len(rows) - len(found))
            if left >= 1:
                log(f"{name}: {len(found)} of {len(rows)} rows answered, about {left:.0f} s left")
        return found

    return answers


def with_request_progress(request: Callable[[int], object], what: str, least: int, log: Log) -> Callable[[int], object]:
    """Make single requests, and log every few seconds how many were made of at least `least`."""
    done, logged = 0, time.monotonic()

    def answer_one(position: int) -> object:
        nonlocal done, logged
        answer = request(position)
        done += 1
        if time.monotonic() - logged >= LOG_SECONDS:
            logged = time.monotonic()
            log(f"{what}: {done} of at least {least} requests timed")
        return answer

    return answer_one


def predict_until_clear(
    predict: Predict, rows: Sequence[Example], is_behind: IsBehind, confidence: float, seed: int
) -> list[Answer | None]:
    """Answers to all rows, or to a random sample (None for the rest) if the system is shown to be behind earlier.

    The test runs after `FIRST_TEST` rows, after twice as many and so on, each at a confidence (Bonferroni) such that
    all tests together stop a system that is not behind with probability 1 - `confidence` at most.
    """
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    checks = [FIRST_TEST << turn for turn in range(len(rows).bit_length()) if FIRST_TEST << turn < len(rows)]
    each = 1 - (1 - confidence) / max(1, len(checks))
    found: dict[int, Answer] = {}
    for end in (*checks, len(rows)):
        positions = order[len(found) : end]
        found |= dict(zip(positions, predict([rows[position] for position in positions]), strict=True))
        if end < len(rows) and is_behind(list(found), list(found.values()), each):
            break
    return [found.get(position) for position in range(len(rows))]


def cached(
    folder: Path, settings: object, messages_of: Callable[[Example], Sequence[Message]], predict: Predict
) -> Predict:
    """Predict with a cache in `folder`, keyed by the settings and each row's prompt (`messages_of`).

    Each line also has the row's hash, by which an erasure finds it.
    """
    path = folder / f"{_digest(settings)}.jsonl"

    def answers(rows: Sequence[Example]) -> list[Answer]:
        known = _read(path)
        keys = [_digest([message.model_dump() for message in messages_of(row)] + offered_to(row)) for row in rows]
        new = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
        if new:
            fresh = dict(zip(new, predict(list(new.values())), strict=True))
            _append(path, fresh, {key: row_hash(row) for key, row in new.items()})
            known |= fresh
        return [known[key] for key in keys]

    return answers


def offered_to(row: Example) -> list[str]:
    """The tools in the row's prompt; [] if there are none, so that answers of before are found again."""
    return [row.tools] if row.tools else []


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, Answer]:
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8") as lines:
        read = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")]
        return {each["asked"]: Answer(**each["answer"]) for each in read}


def _append(path: Path, answers: dict[str, Answer], rows: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The newline first ends a line that a killed writer left cut off; `_read` skips such lines.
    found = [{"asked": key, "row": rows[key], "answer": _document(answer)} for key, answer in answers.items()]
    lines = ["\n" + json.dumps(each) + "\n" for each in found]
    with path.open("a", encoding="utf-8") as file:
        file.writelines(lines)


def _document(answer: Answer) -> dict[str, object]:
    return {name: value for name, value in asdict(answer).items() if name not in ("logprobs", "tool_calls")}
