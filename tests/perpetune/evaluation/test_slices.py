from __future__ import annotations

from perpetune.evaluation.evaluate import evaluate
from perpetune.evaluation.slices import Slice, slices, together

PAIRS = [("fine", "good"), ("great", "good"), ("awful", "bad")]


def test_a_slice_pools_the_holdouts(params, examples, say) -> None:
    rows = examples(PAIRS)
    traffic = [row.model_copy(update={"source": "traffic"}) for row in rows]
    champion, challenger = [say("good")] * 3, [say("bad")] * 3
    answers = {"champion": champion, "challenger": challenger}
    evaluations = [evaluate(some, answers, [], "classification", params) for some in (rows, traffic)]
    found = slices(evaluations, "champion")
    assert list(found) == ["label bad", "label good", "source test", "source traffic"]
    assert (found["label good"].theirs, found["label good"].ours) == ((1, 1, 1, 1), (0, 0, 0, 0))
    assert (found["source traffic"].theirs, found["source traffic"].ours) == ((1, 1, 0), (0, 0, 1))


def test_a_slice_holds_the_rows_that_both_have_answered(params, examples, say) -> None:
    rows = examples(PAIRS)
    answers = {"base": [say("good"), None, say("bad")], "challenger": [say("bad")] * 3}
    evaluation = evaluate(rows, answers, [], "classification", params)
    assert {name: len(found.ours) for name, found in slices([evaluation], "base").items()} == {
        "label bad": 1,
        "label good": 1,
    }
    assert together(evaluation, "base", "challenger") == Slice((1, 1), (0, 1))


def test_free_text_has_no_labels_and_a_single_source_is_no_slice(params, examples, say) -> None:
    answers = {"base": [say("good")] * 3, "challenger": [say("bad")] * 3}
    evaluation = evaluate(examples(PAIRS), answers, [], "generation", params)
    assert slices([evaluation], "base") == {}
