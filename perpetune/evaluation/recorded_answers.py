"""Answers that a hosted or larger model gave elsewhere, beside which the others are judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from perpetune.errors import PerpetuneError
from perpetune.generation.answer import Answer
from perpetune.records import Example


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str | None = None
    input: str | None = None
    output: str


def recorded_answers(path: Path, rows: Sequence[Example]) -> list[Answer | None]:
    """The recorded answer to each row, found by its id or else by its input; None for a row that has none.

    Raises PerpetuneError naming the file and the line that is not like {"id" or "input": ..., "output": ...}.
    """
    lines = _read(path)
    by_id = {line.id: line.output for line in lines if line.id is not None}
    by_input = {line.input: line.output for line in lines if line.input is not None}
    found = [by_id.get(row.id, by_input.get(row.input)) for row in rows]
    return [None if output is None else Answer(output, None, None, 0, 0, "stop", 0.0) for output in found]


def _read(path: Path) -> list[_Line]:
    if not path.is_file():
        raise PerpetuneError(
            "there is no such file", where=str(path), do="correct evaluate.recorded, or set it to null"
        )
    texts = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    return [_line(text, f"{path}:{number}") for number, text in texts if text.strip()]


def _line(text: str, where: str) -> _Line:
    try:
        line = _Line.model_validate_json(text)
    except ValidationError as fault:
        raise PerpetuneError(
            f"this is no recorded answer: {fault.errors()[0]['msg']}",
            where=where,
            do='write {"id": ..., "output": ...} or {"input": ..., "output": ...}',
        ) from None
    if line.id is None and line.input is None:
        raise PerpetuneError("this answer says neither id nor input", where=where, do="name the row that it answers")
    return line
