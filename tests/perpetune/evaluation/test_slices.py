from __future__ import annotations

from collections.abc import Callable, Sequence

from perpetune.evaluation.evaluate import evaluate
from perpetune.evaluation.slices import Slice, paired_scores, slices
from perpetune.generation.answer import Answer
from perpetune.params import EvaluateParams
from perpetune.records import Example

Examples = Callable[[Sequence[tuple[str, str]]], list[Example]]
Say = Callable[..., Answer]

PAIRS = [("fine", "good"), ("great", "good"), ("awful", "bad")]


def test_a_slice_pools_the_holdouts(params: EvaluateParams, examples: Examples, say: Say) -> None:
    rows = examples(PAIRS)
    traffic = [row.model_copy(update={"source": "traffic"}) for row in rows]
    champion, challenger = [say("good")] * 3, [say("bad")] * 3
    answers = {"champion": champion, "challenger": challenger}
    evaluations = [evaluate(some, answers, [], "classification", params) for some in (rows, traffic)]
    found = slices(evaluations, "champion")
    assert list(found) == ["label bad", "label good", "source test", "source traffic"]
    assert (found["label good"].theirs, found["label good"].ours) == ((1, 1, 1, 1), (0, 0, 0, 0))
    assert (found["source traffic"].theirs, found["source traffic"].ours) == ((1, 1, 0), (0, 0, 1))


def test_a_slice_holds_the_rows_that_both_have_answered(params: EvaluateParams, examples: Examples, say: Say) -> None:
    rows = examples(PAIRS)
    answers: dict[str, list[Answer | None]] = {
        "base": [say("good"), None, say("bad")],
        "challenger": [say("bad")] * 3,
    }
    evaluation = evaluate(rows, answers, [], "classification", params)
    assert {name: len(found.ours) for name, found in slices([evaluation], "base").items()} == {
        "label bad": 1,
        "label good": 1,
    }
    assert paired_scores(evaluation, "base", "challenger") == Slice((1, 1), (0, 1), ("0", "2"), (1, 1))


def test_free_text_has_no_labels_and_a_single_source_is_no_slice(
    params: EvaluateParams, examples: Examples, say: Say
) -> None:
    answers = {"base": [say("good")] * 3, "challenger": [say("bad")] * 3}
    evaluation = evaluate(examples(PAIRS), answers, [], "generation", params)
    assert slices([evaluation], "base") == {}


def test_a_label_that_the_champion_does_not_know_counts_for_the_challenger(
    params: EvaluateParams, examples: Examples, say: Say
) -> None:
    rows = examples([*PAIRS, ("give it back", "refund"), ("money back", "refund")])
    known = {"good": 0.6, "bad": 0.4}
    champion = [say("good", known), say("good", known), say("bad", known), say("bad", known), say("bad", known)]
    new = known | {"refund": 0.9}
    challenger = [*champion[:3], say("refund", new), say("refund", new)]
    evaluation = evaluate(rows, {"champion": champion, "challenger": challenger}, rows, "classification", params)

    paired = evaluation.comparisons["champion"]
    assert (paired.n, paired.better, paired.worse) == (5, 2, 0)
    assert slices([evaluation], "champion")["label refund"].theirs == (0, 0)
