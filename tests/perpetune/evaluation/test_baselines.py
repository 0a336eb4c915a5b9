from __future__ import annotations

from perpetune.evaluation.baselines import fitted_answers, majority_answers
from perpetune.records import Example


def example(text: str, output: str, number: int = 0) -> Example:
    return Example(input=text, output=output, id=f"{text}-{number}", group=text, source="test")


TRAIN = [
    example(f"{word} {noun}", label, number)
    for number, noun in enumerate(("phone", "film", "radio", "lamp"))
    for word, label in (("lovely", "good"), ("awful", "bad"), ("splendid", "good"))
]


def test_the_majority_answer_is_the_most_frequent_output() -> None:
    answers = majority_answers(TRAIN, [example("anything", "bad")] * 2, "classification")
    assert [answer.text for answer in answers] == ["good", "good"]
    assert answers[0].probabilities == {"bad": 1 / 3, "good": 2 / 3}


def test_equally_frequent_outputs_are_settled_by_the_alphabet() -> None:
    train = [example("x", "zebra"), example("y", "ant")]
    assert majority_answers(train, train, "generation")[0].text == "ant"
    assert majority_answers(train, train, "generation")[0].probabilities is None


def test_the_linear_model_learns_words() -> None:
    rows = [example("an awful kettle", "bad"), example("a lovely kettle", "good")]
    answers = fitted_answers(TRAIN, rows, seed=0)
    assert [answer.text for answer in answers] == ["bad", "good"]
    for answer in answers:
        assert answer.probabilities is not None
        assert abs(sum(answer.probabilities.values()) - 1) < 1e-9
        assert answer.confidence == max(answer.probabilities.values())


def test_the_linear_model_reads_scripts_and_signs_without_letters() -> None:
    train = [example("👍👍", "good"), example("👎", "bad"), example("とても良い", "good"), example("ひどい", "bad")] * 3
    assert [a.text for a in fitted_answers(train, [example("👎👎", "bad"), example("良い", "good")], seed=0)] == [
        "bad",
        "good",
    ]


def test_with_nothing_to_learn_from_the_linear_model_is_the_majority_answer() -> None:
    rows = [example("whatever", "good")]
    assert fitted_answers([example("x", "good")], rows, seed=0)[0].text == "good"
    assert (
        fitted_answers([example(" ", "good"), example("", "bad"), example(" ", "good")], rows, seed=0)[0].text == "good"
    )
