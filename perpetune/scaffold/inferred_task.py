"""What a task is, told from its rows: the instruction that they share, the kind of answers, and the labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from perpetune.curation.inferred_schema import inferred_schema
from perpetune.curation.text import tidy
from perpetune.records import Example

MOST_LABELS = 200
LONGEST_LABEL = 80
"""Characters; a longer answer is a text."""
ROWS_PER_LABEL = 5
"""At least, on average."""
_COMMON = 0.5


@dataclass(frozen=True)
class InferredTask:
    """Instruction, kind and labels, and for each a sentence that says why."""

    instruction: str
    kind: str
    labels: tuple[str, ...]
    reasons: tuple[str, ...]


def inferred_task(rows: Sequence[Example], instruction: str | None = None, kind: str | None = None) -> InferredTask:
    """The task of the rows, of which there is at least one; what is given is taken as it is."""
    system, why_system = _instruction(rows) if instruction is None else (instruction, "instruction: as given")
    found, labels, why = _answers(rows)
    if kind is not None and kind != found:
        labels, why = (_labels(rows) if kind == "classification" else (), f"kind: {kind}, as given")
    return InferredTask(system, kind or found, labels, (why_system, why, *_rare(rows, labels)))


def _instruction(rows: Sequence[Example]) -> tuple[str, str]:
    """The system message of most rows."""
    found = Counter(row.messages[0].content for row in rows if row.messages and row.messages[0].role == "system")
    if not found:
        return "", "instruction: empty, since no row has a system message"
    text, count = found.most_common(1)[0]
    seen = f"{count:,} of {len(rows):,} rows"
    if count < _COMMON * len(rows):
        return "", f"instruction: empty, since the most common of {len(found):,} system messages is in {seen} only"
    rest = "" if count == len(rows) else "; the others keep their own, or get this one if they have none"
    return text, f"instruction: the system message of {seen}{rest}"


def _answers(rows: Sequence[Example]) -> tuple[str, tuple[str, ...], str]:
    outputs = [tidy(row.output) for row in rows]
    different, longest = len(set(outputs)), max(map(len, outputs))
    seen = f"{different:,} different answers in {len(rows):,} rows"
    calls = sum(row.answers_with == "tool_calls" for row in rows)
    if calls:
        return "generation", (), f"kind: generation, since {calls:,} of {len(rows):,} answers are tool calls"
    if inferred_schema(outputs) is not None:
        return "generation", (), "kind: generation, since all answers are JSON objects"
    few = 2 <= different <= min(MOST_LABELS, len(rows) / ROWS_PER_LABEL)
    if few and longest <= LONGEST_LABEL and not any("\n" in output for output in outputs):
        labels = _labels(rows)
        shown = ", ".join(labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")
        return "classification", labels, f"kind: classification, since there are {seen}: {shown}"
    return "generation", (), f"kind: generation (free text), since there are {seen}, of up to {longest:,} characters"


def _labels(rows: Sequence[Example]) -> tuple[str, ...]:
    return tuple(sorted({tidy(row.output) for row in rows}))


def _rare(rows: Sequence[Example], labels: Sequence[str]) -> tuple[str, ...]:
    """A label that occurs once is often a slip."""
    counts = Counter(tidy(row.output) for row in rows)
    once = [label for label in labels if counts[label] == 1]
    if not once:
        return ()
    return (
        f"labels that occur once: {', '.join(once[:5])}{' ...' if len(once) > 5 else ''}: check that they are meant",
    )
