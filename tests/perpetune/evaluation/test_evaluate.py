from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from perpetune.errors import PerpetuneError
from perpetune.evaluation.evaluate import Evaluation, evaluate
from perpetune.evaluation.report.mistakes import worst_mistakes
from perpetune.generation.answer import Answer
from perpetune.params import EvaluateParams
from perpetune.records import Example
from perpetune.statistics.paired import newcombe
from perpetune.statistics.power import rows_to_tell

Examples = Callable[[Sequence[tuple[str, str]]], list[Example]]
Say = Callable[..., Answer]

WORDS = {"good": "lovely", "bad": "awful"}


@pytest.fixture
def train(examples: Examples) -> list[Example]:
    return examples([(f"{WORDS[label]} thing {number}", label) for number in range(12) for label in WORDS])


@pytest.fixture
def puzzling(examples: Examples, train: list[Example], say: Say, params: EvaluateParams) -> Evaluation:
    """Rows whose words mislead the linear model, a champion that knows two of three labels, a perfect challenger."""
    rows = examples(
        [("lovely, not", "bad")] * 14 + [("awful? never", "good")] * 12 + [("lovely but awful", "mixed")] * 14
    )
    challenger = [say(row.output, {"bad": 0.0, "good": 0.0, "mixed": 0.0} | {row.output: 1.0}) for row in rows]
    champion = [say("good", {"good": 0.8, "bad": 0.2}, seconds=0.3) for _ in rows]
    base = [say("bad") for _ in rows]
    systems = {"challenger": challenger, "champion": champion, "base": base}
    return evaluate(rows, systems, train, "classification", params)


def test_every_system_is_evaluated_on_the_same_rows(puzzling: Evaluation) -> None:
    assert list(puzzling.scored) == ["majority", "linear", "base", "champion", "challenger"]
    assert {len(scored.scores) for scored in puzzling.scored.values()} == {40}
    assert puzzling.metrics["challenger"]["accuracy"].value == 1
    assert puzzling.metrics["champion"]["accuracy"].value == pytest.approx(12 / 40)
    assert puzzling.comparisons["champion"].difference == pytest.approx(28 / 40)
    assert puzzling.calibrations["challenger"].error == 0
    assert "base" not in puzzling.calibrations


def test_the_finding_says_what_was_found(puzzling: Evaluation) -> None:
    assert puzzling.summary[0].startswith("The challenger is right on 100.0% of 40 rows")
    assert "It is 70.0 points better than the champion" in puzzling.summary[1]
    assert any("The champion cannot answer “mixed” (14)" in sentence for sentence in puzzling.summary)
    assert not any("No language model" in sentence for sentence in puzzling.summary)


def test_no_language_model_is_needed_if_the_linear_one_is_shown_to_be_not_worse(
    examples: Examples, train: list[Example], say: Say, params: EvaluateParams
) -> None:
    rows = examples([(f"{WORDS[label]} item", label) for _ in range(61) for label in WORDS])
    as_good = evaluate(rows, {"challenger": [say(row.output) for row in rows]}, train, "classification", params)
    assert as_good.summary[0].startswith(
        "No language model is needed: TF-IDF with logistic regression is right on 100.0% of these 122 rows"
    )
    assert as_good.summary[0].endswith("a gain of 3.0 points at most, less than the margin of 3.")
    worse = evaluate(rows, {"challenger": [say("bad") for _ in rows]}, train, "classification", params)
    assert "significantly worse" in worse.summary[0]


def test_as_many_right_of_few_rows_show_no_equality(
    examples: Examples, train: list[Example], say: Say, params: EvaluateParams
) -> None:
    """0 of 30 rows differ: up to 11.6% of all rows may, so a gain beyond the margin is not excluded."""
    rows = examples([(f"{WORDS[label]} item", label) for _ in range(15) for label in WORDS])
    found = evaluate(rows, {"challenger": [say(row.output) for row in rows]}, train, "classification", params)
    assert not any("No language model" in sentence for sentence in found.summary)
    assert found.summary[1] == (
        "The challenger is not yet shown to be better than TF-IDF with logistic regression: 100.0% against 100.0% of 30 "
        "rows (difference \N{MINUS SIGN}11.6 to 11.6 points, p = 1.00); about 215 more labels would tell."
    )


def test_any_language_model_that_may_be_better_is_a_need(
    examples: Examples, train: list[Example], say: Say, params: EvaluateParams
) -> None:
    """111 rows: the tuned model is right on as many as TF-IDF, 39.6%; the prompted base on 51.4%, with p = 0.07."""
    rows = examples([("lovely item", "good" if number < 44 else "bad") for number in range(111)])
    tuned = [say("good") for _ in rows]
    base = [say(row.output if 24 <= number < 44 or number >= 74 else "neither") for number, row in enumerate(rows)]
    found = evaluate(rows, {"challenger": tuned, "base": base}, train, "classification", params)
    scores = {name: f"{found.metrics[name]['accuracy'].value:.1%}" for name in ("linear", "challenger", "base")}
    assert scores == {"linear": "39.6%", "challenger": "39.6%", "base": "51.4%"}
    assert not any("No language model" in sentence for sentence in found.summary)
    sentence = next(each for each in found.summary if "not yet shown to be better" in each)
    assert sentence.startswith(
        "The base model is not yet shown to be better than TF-IDF with logistic regression: 51.4%"
    )
    assert "more labels would tell" in sentence


def test_more_labels_as_many_as_it_says_do_tell(
    examples: Examples, train: list[Example], say: Say, params: EvaluateParams
) -> None:
    """Of models that differ on 10% of the rows and are equally good, nine of ten are then shown to be no worse."""
    needed = rows_to_tell(0.1, gain=0.05, margin=0.03, alpha=0.025, power=0.9)
    draws = np.random.default_rng(1).multinomial(needed, [0.05, 0.05, 0.9], size=400)
    shown = [newcombe(0, up, down, same, 0.95)[1] < 0.03 for up, down, same in draws]
    assert np.mean(shown) > 0.87


def test_too_few_rows_claim_nothing(examples: Examples, train: list[Example], say: Say, params: EvaluateParams) -> None:
    rows = examples([("lovely item", "good")] * 5)
    found = evaluate(rows, {"challenger": [say("good")] * 5}, train, "classification", params)
    assert found.summary[0].startswith("The challenger is right on 100.0% of 5 rows")


def test_metrics_have_names_that_mlflow_takes(puzzling: Evaluation) -> None:
    flat = puzzling.flat_metrics("frozen")
    assert flat["frozen/challenger/accuracy"] == 1
    assert flat["frozen/rows"] == 40
    assert flat["frozen/challenger-vs-champion/difference"] == pytest.approx(0.7)
    assert flat["frozen/champion/dollars_per_1000"] == pytest.approx(0.3)
    assert all(re.fullmatch(r"[\w\-. /]+", name) for name in flat)
    assert all(isinstance(value, float) and math.isfinite(value) for value in flat.values())


def test_tables_hold_every_label_and_row(puzzling: Evaluation) -> None:
    tables = puzzling.tables()
    assert set(tables) == {"comparison", "economics", "predictions", "per_label", "confusions"}
    labels = tables["per_label"]
    unknown = labels[(labels["system"] == "champion") & ~labels["known"]]
    assert unknown["label"].tolist() == ["mixed"]
    predictions = tables["predictions"]
    assert len(predictions) == 40
    assert {"expected", "challenger_answer", "challenger_confidence", "linear_score"} <= set(predictions)
    confusions = tables["confusions"]
    assert confusions[confusions["system"] == "base"]["rows"].tolist() == [14, 12]
    assert confusions[confusions["system"] == "challenger"].empty


def test_the_order_of_rows_is_irrelevant(
    examples: Examples, train: list[Example], say: Say, params: EvaluateParams
) -> None:
    rows = examples([("lovely day", "good")] * 9 + [("awful day", "bad")] * 8)
    challenger = [say("good" if number % 3 else "bad") for number in range(17)]
    order = random.Random(1).sample(range(17), 17)
    shuffled = [rows[i] for i in order], {"challenger": [challenger[i] for i in order]}
    one = evaluate(rows, {"challenger": challenger}, train, "classification", params)
    other = evaluate(*shuffled, train, "classification", params)
    assert one.metrics == other.metrics
    assert one.comparisons == other.comparisons


def test_free_text_is_scored_by_token_f1(examples: Examples, say: Say, params: EvaluateParams) -> None:
    rows = examples([("when?", "in two days"), ("where?", "at the shop"), ("who?", "")])
    answers = [say("in two days"), say("in a shop"), say("")]
    found = evaluate(rows, {"challenger": answers, "base": [say("")] * 3}, rows, "generation", params)
    assert found.scored["challenger"].scores == pytest.approx((1, 0.5, 1))
    assert set(found.metrics["challenger"]) == {"token_f1", "exact_match", "rouge_l"}
    assert "linear" not in found.scored
    assert set(found.tables()) == {"comparison", "economics", "predictions"}
    assert [mistake.id for mistake in worst_mistakes(found, "challenger", 5)] == ["row-1"]


def test_answers_that_were_cut_off_are_counted(examples: Examples, say: Say, params: EvaluateParams) -> None:
    rows = examples([("a", "one two"), ("b", "three"), ("c", "four")])
    whole = [say(row.output) for row in rows]
    cut = [replace(whole[0], finish_reason="length"), *whole[1:]]
    found = evaluate(rows, {"challenger": cut, "champion": whole}, rows, "generation", params)
    flat = found.flat_metrics("frozen")
    assert (flat["frozen/challenger/cut_off"], flat["frozen/champion/cut_off"]) == (1, 0)
    table = found.tables()["comparison"].set_index("system")
    assert table.loc["challenger", "cut_off"] == 1
    said = [sentence for sentence in found.summary if "cut off" in sentence]
    assert said == [
        f"The challenger was cut off in 1 of 3 answers, at {params.max_new_tokens} tokens (evaluate.max_new_tokens)."
    ]


def test_the_worst_mistakes_are_the_surest(
    examples: Examples, train: list[Example], say: Say, params: EvaluateParams
) -> None:
    rows = examples([("a", "good"), ("b", "good"), ("c", "bad"), ("d", "good")])
    sure = [say("bad", {"bad": share, "good": 1 - share}) for share in (0.6, 0.99, 0.9, 0.7)]
    found = evaluate(rows, {"challenger": sure}, train, "classification", params)
    assert [mistake.id for mistake in worst_mistakes(found, "challenger", 2)] == ["row-1", "row-3"]


def test_without_training_rows_there_are_no_baselines(examples: Examples, say: Say, params: EvaluateParams) -> None:
    found = evaluate(examples([("x", "good")]), {"champion": [say("good")]}, [], "classification", params)
    assert (list(found.scored), found.subject, dict(found.comparisons)) == (["champion"], "champion", {})


def test_labels_are_compared_up_to_whitespace(examples: Examples, say: Say, params: EvaluateParams) -> None:
    found = evaluate(examples([("x", "very  good")]), {"base": [say(" very good\n")]}, [], "classification", params)
    assert found.metrics["base"]["accuracy"].value == 1


def test_a_holdout_without_rows_is_refused(say: Say, params: EvaluateParams) -> None:
    with pytest.raises(PerpetuneError, match="no rows"):
        evaluate([], {"base": []}, [], "classification", params)


def test_missing_answers_are_refused(examples: Examples, say: Say, params: EvaluateParams) -> None:
    with pytest.raises(ValueError, match="base gave 1 answers to 2 rows"):
        evaluate(examples([("x", "a"), ("y", "b")]), {"base": [say("a")]}, [], "classification", params)


def test_a_system_may_answer_some_of_the_rows_and_is_compared_on_those(
    examples: Examples, say: Say, params: EvaluateParams
) -> None:
    rows = examples([("a", "good"), ("b", "bad"), ("c", "good"), ("d", "bad")])
    some = [None, say("bad"), None, say("good")]
    systems: dict[str, list[Answer | None]] = {"challenger": [say("good")] * 4, "base": some, "few-shot": [None] * 4}
    found = evaluate(rows, systems, [], "classification", params)
    assert list(found.scored) == ["base", "challenger"], "who was asked nothing is left out"
    assert (found.scored["base"].ids, found.scored["base"].scores) == (("row-1", "row-3"), (1.0, 0.0))
    assert found.metrics["base"]["accuracy"].n == 2 and found.sampled == ("base",)
    assert (found.comparisons["base"].difference, found.comparisons["base"].n) == (-0.5, 2)
    assert found.label_table("base")["support"].tolist() == [2, 0]
    assert found.flat_metrics("frozen")["frozen/base/rows"] == 2
    assert [mistake.id for mistake in worst_mistakes(found, "base", 5)] == ["row-3"]


def test_the_subject_must_have_answered_all_rows(examples: Examples, say: Say, params: EvaluateParams) -> None:
    with pytest.raises(ValueError, match="challenger has answered 1 of 2 rows"):
        evaluate(examples([("x", "a"), ("y", "b")]), {"challenger": [say("a"), None]}, [], "classification", params)


def test_tables_are_plain_data_frames(puzzling: Evaluation) -> None:
    for table in puzzling.tables().values():
        assert isinstance(table, pd.DataFrame)
        assert table.columns.is_unique


def test_a_gain_that_few_rows_do_not_prove_is_not_called_needless(
    examples: Examples, train: list[Example], say: Say, params: EvaluateParams
) -> None:
    """One right answer of 40 ahead may be chance, yet it is no sign that the linear model is as good."""
    rows = examples([(f"{WORDS[label]} item", label) for _ in range(20) for label in ("good", "bad")])
    rows = [*rows[:-1], rows[-1].model_copy(update={"output": "good"})]  # which misleads the linear model
    found = evaluate(rows, {"challenger": [say(row.output) for row in rows]}, train, "classification", params)
    assert found.comparisons["linear"].difference == 1 / 40
    assert not any("No language model" in sentence for sentence in found.summary)
