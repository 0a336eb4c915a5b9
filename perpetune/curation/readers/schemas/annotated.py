"""What annotation tools share: the votes of annotators, and the text that they saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from perpetune.curation.readers.row import InvalidRow, is_absent
from perpetune.curation.readers.schemas.messages import as_text, conversation_of
from perpetune.curation.readers.schemas.schema import INPUT_NAMES


def majority(answers: Sequence[object], field: str) -> object:
    """The answer that most annotators gave. Raises InvalidRow if there is none, or a tie."""
    if not answers:
        raise InvalidRow(field, "nobody has annotated it")
    votes = Counter(str(as_text(answer)) for answer in answers).most_common()
    if len(votes) > 1 and votes[0][1] == votes[1][1]:
        shown = ", ".join(f"{answer:.40} ({count})" for answer, count in votes[:4])
        raise InvalidRow(field, f"the annotators disagree: {shown}")
    return next(answer for answer in answers if str(as_text(answer)) == votes[0][0])


def shown_text(fields: Mapping[str, object], field: str) -> tuple[str, object]:
    """The text or conversation that annotators saw, with its name. Raises InvalidRow if it cannot be told."""
    texts = {
        name: value
        for name, value in fields.items()
        if not is_absent(value) and (isinstance(value, str) or conversation_of(value))
    }
    name = next((name for name in INPUT_NAMES if name in texts), None) or (
        next(iter(texts)) if len(texts) == 1 else None
    )
    if name is None:
        names = ", ".join(list(texts)[:5]) or "none"
        raise InvalidRow(field, f"which text is the input? There are: {names}; say --map input={field}.NAME")
    return name, texts[name]


def answer_to(questions: Mapping[str, object]) -> object:
    """The answer to one question, or an object with the answers to several."""
    return next(iter(questions.values())) if len(questions) == 1 else dict(questions)
