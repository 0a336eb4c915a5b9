"""Recorded answers for comparison: of a larger model (evaluate.recorded), of a hosted one (evaluate.hosted)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from perpetune.curation.hosted.matching import StoredAnswer, index_of
from perpetune.errors import PerpetuneError
from perpetune.generation.answer import Answer
from perpetune.records import Example


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str | None = None
    input: str | None = None
    output: str


def recorded_answers(path: Path, rows: Sequence[Example]) -> list[Answer | None]:
    """The recorded answer to each row, by id or else by input; None if there is none.

    Raises PerpetuneError with file and line if a line is not {"id" or "input": ..., "output": ...}.
    """
    lines = _read(path)
    by_id = {line.id: line.output for line in lines if line.id is not None}
    by_input = {line.input: line.output for line in lines if line.input is not None}
    found = [by_id.get(row.id, by_input.get(row.input)) for row in rows]
    return [None if output is None else _answer(output) for output in found]


def hosted_answers(stored: Sequence[StoredAnswer], rows: Sequence[Example]) -> list[Answer | None]:
    """The hosted model's answer to each row; None if none is recorded."""
    index = index_of(stored)
    found = [index.answer_to(row) for row in rows]
    return [None if answer is None else _answer(answer.output) for answer in found]


def _answer(output: str) -> Answer:
    return Answer(output, None, None, 0, 0, "stop", 0.0)


def _read(path: Path) -> list[_Line]:
    if not path.is_file():
        raise PerpetuneError(
            "the file does not exist", where=str(path), do="correct evaluate.recorded, or set it to null"
        )
    texts = enumerate(path.read_text(encoding="utf-8").split("\n"), start=1)  # U+2028 is part of a text
    return [_line(text, f"{path}:{number}") for number, text in texts if text.strip()]


def _line(text: str, where: str) -> _Line:
    try:
        line = _Line.model_validate_json(text)
    except ValidationError as fault:
        raise PerpetuneError(
            f"the line is no recorded answer: {fault.errors()[0]['msg']}",
            where=where,
            do='write {"id": ..., "output": ...} or {"input": ..., "output": ...}',
        ) from None
    if line.id is None and line.input is None:
        raise PerpetuneError("the answer has neither id nor input", where=where, do="add the row's id or input")
    return line
