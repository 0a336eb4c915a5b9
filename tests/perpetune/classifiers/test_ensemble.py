from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from perpetune.classifiers.ensemble import POWERS, Pool, Powers, fit_powers, load_pool, read_powers, save_pool
from perpetune.classifiers.temperature import fit_temperature
from perpetune.evaluation.baselines import fitted_linear
from perpetune.generation.answer import Answer
from perpetune.model.release import POOL
from perpetune.records import Example

LABELS = ("blue", "green", "red")


def answers(scores: np.ndarray) -> list[Answer]:
    """Of scores (rows, labels), as a model would give them."""
    shares = np.exp(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True))
    return [answer(row) for row in shares]


def answer(shares: Sequence[float]) -> Answer:
    given = {label: float(share) for label, share in zip(LABELS, shares, strict=True)}
    best = max(given, key=given.__getitem__)
    return Answer(best, given[best], given, 3, 1, "stop", 0.5)


def rows_of(seed: int, own: float, linear: float, n: int = 300) -> tuple[list[Answer], list[Answer], list[str]]:
    """Scores that point to the right label by so much, in noise of size 1."""
    noise = np.random.default_rng(seed)
    positions = noise.integers(3, size=n)
    right = np.eye(3)[positions]
    both = [right * by + noise.normal(size=(n, 3)) for by in (own, linear)]
    return answers(both[0]), answers(both[1]), [LABELS[position] for position in positions]


def test_two_that_err_on_different_rows_are_better_together() -> None:
    own, linear, wanted = rows_of(1, 1.5, 1.5)
    powers = fit_powers(own, linear, wanted)
    assert powers.tuned > 0.5
    assert powers.linear > 0.5

    others, beside, truth = rows_of(2, 1.5, 1.5, n=2000)
    pooled = [_product(one, two, powers) for one, two in zip(others, beside, strict=True)]
    right = [sum(given == label for given, label in zip(some, truth, strict=True)) for some in (
        [each.text for each in others], [each.text for each in beside], pooled)]  # fmt: skip
    assert right[2] > max(right[:2]) + 100


def _product(one: Answer, two: Answer, powers: Powers) -> str:
    assert one.probabilities
    assert two.probabilities
    scores = {
        label: powers.tuned * math.log(share) + powers.linear * math.log(two.probabilities[label])
        for label, share in one.probabilities.items()
    }
    return max(scores, key=scores.__getitem__)


def test_one_that_knows_nothing_is_left_out_and_the_other_calibrated() -> None:
    own, linear, wanted = rows_of(3, 2.0, 0.0)
    powers = fit_powers(own, linear, wanted)
    assert powers.linear == 0
    assert powers.tuned == pytest.approx(1 / fit_temperature(own, wanted), rel=1e-3)


def test_too_few_rows_change_nothing() -> None:
    own, linear, wanted = rows_of(4, 1.5, 1.5, n=19)
    assert fit_powers(own, linear, wanted) == Powers()


@pytest.fixture
def things() -> list[Example]:
    return [
        Example(input=f"the {thing}", output=colour, id=thing, group=thing, source="test")
        for thing, colour in {"sky": "blue", "grass": "green", "blood": "red"}.items()
    ]


def test_a_saved_pool_answers_with_the_product_of_both(things: list[Example], tmp_path: Path) -> None:
    model = fitted_linear(things, 0)
    assert model is not None
    save_pool(tmp_path, Pool(Powers(tuned=0.5, linear=2.0), model))
    pool = load_pool(tmp_path, tmp_path)

    pooled = pool.combine([answer([0.5, 0.3, 0.2])], ["the blood"])[0]
    beside = dict(zip(model.classes_, model.predict_proba(["the blood"])[0], strict=True))
    products = {label: own**0.5 * beside[label] ** 2 for label, own in zip(LABELS, [0.5, 0.3, 0.2], strict=True)}
    assert pooled.probabilities == pytest.approx(
        {label: product / sum(products.values()) for label, product in products.items()}
    )
    assert pooled.probabilities
    assert pooled.text == max(products, key=products.__getitem__)
    assert pooled.confidence == pooled.probabilities[pooled.text]
    assert pooled.seconds > 0.5


def test_alone_it_is_only_calibrated(tmp_path: Path) -> None:
    save_pool(tmp_path, Pool(Powers(tuned=2.0), None))
    pool = load_pool(tmp_path, tmp_path)
    assert pool.combine([answer([0.5, 0.25, 0.25])], ["the sky"])[0].probabilities == pytest.approx(
        {"blue": 4 / 6, "green": 1 / 6, "red": 1 / 6}
    )


def test_free_text_stays_as_it_is() -> None:
    free = Answer("some text", None, None, 3, 2, "stop", 0.5)
    assert Pool(Powers(tuned=2.0), None).combine([free], ["the sky"]) == [free]


def test_powers_of_earlier_versions_are_read(tmp_path: Path) -> None:
    (tmp_path / POOL).mkdir()
    (tmp_path / POOL / POWERS).write_text('{"own": 0.5, "linear": 2.0}')
    assert read_powers(tmp_path) == Powers(tuned=0.5, linear=2.0)
