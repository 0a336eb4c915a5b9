"""What the evaluations say to the gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from perpetune.answer import Answer
from perpetune.evaluation.evaluate import Evaluation, evaluate
from perpetune.loop.assess import Assessment
from perpetune.loop.decide import promotion_evidence
from perpetune.params import load_params
from perpetune.policy.promotion import Limit, should_promote
from perpetune.records import Example

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")
RULES = PARAMS.promote.model_copy(update={"min_rows": 20})


def evaluation(source: str, wrong: dict[str, set[int]]) -> Evaluation:
    """Sixty rows, every third labelled bad; each system is right but on the rows named."""
    rows = [
        Example(
            input=f"row {n}", output="bad" if n % 3 == 0 else "good", id=f"{source}-{n}", group=str(n), source=source
        )
        for n in range(60)
    ]
    answers = {
        system: [
            Answer("neither" if n in missed else row.output, None, None, 9, 1, "stop", 0.1)
            for n, row in enumerate(rows)
        ]
        for system, missed in wrong.items()
    }
    return evaluate(rows, answers, [], "classification", PARAMS.evaluate)


@pytest.fixture(scope="module")
def assessment() -> Assessment:
    """The challenger is better in the mean and has lost the rows labelled bad."""
    good, bad = [n for n in range(60) if n % 3], {n for n in range(60) if n % 3 == 0}
    wrong = {"champion": set(good[:30]), "challenger": bad}
    found = {"frozen": evaluation("files", wrong), "recent": evaluation("traffic", wrong)}
    return Assessment(found, "4", {"leakage": Limit(0, None, 0, 120, "rows")})


def test_holdouts_slices_and_limits_are_the_evidence(assessment: Assessment) -> None:
    evidence = promotion_evidence(assessment, RULES)
    assert evidence.against == "champion"
    assert evidence.frozen.discordance == pytest.approx(50 / 60)
    assert list(evidence.slices) == ["label bad", "label good", "source files", "source traffic"]
    assert (evidence.slices["label bad"].difference, evidence.slices["label bad"].rows) == (-1, 40)
    assert evidence.slices["label bad"].p_worse < 1e-6 < evidence.slices["label good"].p_worse
    assert evidence.limits == assessment.limits


def test_a_lost_label_rejects_a_challenger_that_is_better_in_the_mean(assessment: Assessment) -> None:
    verdict = should_promote(promotion_evidence(assessment, RULES), RULES)
    assert verdict.outcome == "reject"
    assert verdict.reasons[0].startswith("On label bad the challenger is worse")


def test_slices_with_fewer_rows_are_not_looked_at(assessment: Assessment) -> None:
    evidence = promotion_evidence(assessment, RULES.model_copy(update={"slice_rows": 41}))
    assert list(evidence.slices) == ["label good", "source files", "source traffic"]
