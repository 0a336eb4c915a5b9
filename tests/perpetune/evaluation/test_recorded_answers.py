from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from perpetune.errors import PerpetuneError
from perpetune.evaluation.evaluate import evaluate
from perpetune.evaluation.recorded_answers import recorded_answers
from perpetune.generation.answer import Answer
from perpetune.params import EvaluateParams
from perpetune.records import Example

Examples = Callable[[Sequence[tuple[str, str]]], list[Example]]
Say = Callable[..., Answer]

LINES = '{"id": "row-0", "output": "good"}\n\n{"input": "awful", "output": "good", "model": "large"}\n'


def test_answers_are_found_by_id_or_input_and_rows_without_one_are_left_out(
    tmp_path: Path, examples: Examples, say: Say, params: EvaluateParams
) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(LINES, encoding="utf-8")
    rows = examples([("fine", "good"), ("great", "good"), ("awful", "bad")])
    found = recorded_answers(path, rows)
    assert [answer and answer.text for answer in found] == ["good", None, "good"]
    answers: dict[str, list[Answer | None]] = {
        "challenger": [say("good"), say("bad"), say("bad")],
        "recorded": list(found),
    }
    evaluation = evaluate(rows, answers, [], "classification", params)
    assert (evaluation.comparisons["recorded"].difference, evaluation.comparisons["recorded"].n) == (0.5, 2)
    assert evaluation.tables()["comparison"].set_index("system")["n"].to_dict() == {"recorded": 2, "challenger": 3}
    assert evaluation.tables()["predictions"]["recorded_answer"].tolist() == ["good", None, "good"]


@pytest.mark.parametrize(
    ("line", "fault"), [('{"output": "x"}', "neither id nor input"), ("{oh", "no recorded answer")]
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(f"{LINES}{line}\n", encoding="utf-8")
    with pytest.raises(PerpetuneError, match=fault) as found:
        recorded_answers(path, [])
    assert found.value.where == f"{path}:4"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError, match="does not exist"):
        recorded_answers(tmp_path / "none.jsonl", [])
