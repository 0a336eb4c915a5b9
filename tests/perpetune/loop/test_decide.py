"""What the evaluations say to the gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from workspaces import write_params

from perpetune.evaluation.evaluate import Evaluation, evaluate
from perpetune.generation.answer import Answer
from perpetune.loop.assess.assess import Assessment
from perpetune.loop.decide import after_decay, gate_evidence, promotion_evidence
from perpetune.loop.disagreements.answer import wants_traffic
from perpetune.loop.run_context import TRIGGER
from perpetune.params import load_params
from perpetune.policy.promotion.choice import choose
from perpetune.policy.promotion.evidence import Limit
from perpetune.policy.promotion.gate import should_promote
from perpetune.records import Example
from perpetune.tracking.runs import connect, open_run
from perpetune.workspace import open_workspace

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")
RULES = PARAMS.promote.model_copy(update={"min_rows": 20})


def evaluation(source: str, wrong: dict[str, set[int]]) -> Evaluation:
    """Sixty rows, every third labelled bad; each system is right but on the rows named."""
    rows = [
        Example(
            input=f"row {n}",
            output="bad" if n % 3 == 0 else "good",
            id=f"{source}-{n}",
            group=f"{source}-{n}",
            source=source,
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


def test_slices_with_fewer_rows_are_not_tested_and_named(assessment: Assessment) -> None:
    evidence = promotion_evidence(assessment, RULES.model_copy(update={"slice_rows": 41}))
    assert list(evidence.slices) == ["label good", "source files", "source traffic"]
    assert evidence.small == {"label bad": 40}


def test_with_rare_labels_the_gain_is_balanced_and_recalls_have_a_floor(assessment: Assessment) -> None:
    evidence = promotion_evidence(replace(assessment, balanced=True), RULES)
    assert evidence.metric == "balanced accuracy"
    assert evidence.balanced is not None and evidence.balanced.difference == pytest.approx((0.75 - 1) / 2)
    assert (evidence.recalls["bad"].value, evidence.recalls["bad"].serving) == (0, 1)
    assert (
        should_promote(evidence, RULES).reasons[1].startswith("The challenger finds 0.0% of the 40 rows labelled bad")
    )


def test_rivals_are_weighed_on_the_rows_that_both_have_answered() -> None:
    bad, few = {n for n in range(60) if n % 3 == 0}, set(range(6))
    wrong = {"base": set(range(40)), "linear": few, "challenger": few | {7}}
    found = Assessment({"frozen": evaluation("files", wrong)}, None, candidates={"linear": None, "base": None})  # type: ignore[dict-item]
    evidence = promotion_evidence(found, RULES)
    assert list(evidence.rivals) == ["linear", "base"]
    linear = evidence.rivals["linear"]
    assert (linear.score, linear.challenger) == pytest.approx((0.9, 53 / 60))
    assert linear.gate is not None and linear.gate.subject == "the linear model" and linear.gate.against == "base"
    assert evidence.rivals["base"].gate is None and evidence.untrained
    assert len(bad) == 20 and choose(evidence, RULES).system == "linear"


def test_spam_that_is_not_found_is_not_promoted() -> None:
    """The issue's own figures: 74 rows, 11 of them spam, of which the tuned model finds one and TF-IDF three."""
    rows = [
        Example(input=f"row {n}", output="spam" if n < 11 else "ham", id=str(n), group=str(n), source="files")
        for n in range(74)
    ]
    said = {
        "base": ["spam" if n < 9 or n >= 33 else "ham" for n in range(74)],
        "linear": ["spam" if n < 3 else "ham" for n in range(74)],
        "challenger": ["spam" if n < 1 else "ham" for n in range(74)],
    }
    answers = {name: [Answer(text, None, None, 9, 1, "stop", 0.1) for text in texts] for name, texts in said.items()}
    found = evaluate(rows, answers, rows, "classification", PARAMS.evaluate)
    candidates = {"linear": None, "base": None}
    evidence = promotion_evidence(Assessment({"frozen": found}, None, balanced=True, candidates=candidates), RULES)  # type: ignore[arg-type]
    choice = choose(evidence, RULES)
    assert choice.system != "challenger"
    assert any("finds 9.1% of the 11 rows labelled spam" in reason for reason in choice.verdict.reasons)
    assert "label spam (11 rows)" in " ".join(choice.verdict.reasons)


COSTS = {"fraud": {"*": 50.0}}


def answered(
    expected: list[str], given: dict[str, list[str]], source: str, costs: dict[str, dict[str, float]] | None
) -> Evaluation:
    rows = [
        Example(input=f"row {n}", output=label, id=f"{source}-{n}", group=f"{source}-{n}", source=source)
        for n, label in enumerate(expected)
    ]
    answers = {name: [Answer(text, None, None, 9, 1, "stop", 0.1) for text in some] for name, some in given.items()}
    rules = RULES.model_copy(update={"costs": costs})
    return evaluate(rows, answers, [], "classification", PARAMS.evaluate, None, rules)


def frauds(costs: dict[str, dict[str, float]] | None, *, champion_finds: int, challenger_finds: int) -> Assessment:
    """Of 400 rows 80 are frauds. What finds more frauds calls more of the legitimate rows frauds: one for each two."""
    expected = ["fraud"] * 80 + ["legitimate"] * 320

    def finding(frauds: int) -> list[str]:
        wrong = 20 + frauds // 2
        return ["fraud"] * frauds + ["legitimate"] * (80 - frauds) + ["fraud"] * wrong + ["legitimate"] * (320 - wrong)

    given = {"champion": finding(champion_finds), "challenger": finding(challenger_finds)}
    found = {holdout: answered(expected, given, holdout, costs) for holdout in ("frozen", "recent")}
    return Assessment(found, "1", {})


def test_with_costs_a_gate_promotes_what_misses_fewer_dear_mistakes() -> None:
    rules = RULES.model_copy(update={"costs": COSTS})
    evidence = promotion_evidence(frauds(COSTS, champion_finds=40, challenger_finds=70), rules)
    verdict = should_promote(evidence, rules)
    assert verdict.outcome == "promote"
    assert evidence.frozen.difference == pytest.approx((30 * 50 - 15) / 400 / 50)
    assert evidence.metric == "cost score"
    said = "On the frozen holdout mistakes cost 1.39 for each answer of the challenger and 5.1 for each of the champion"
    assert any(reason.startswith(said) for reason in verdict.reasons)


def test_with_costs_a_gate_rejects_what_is_right_more_often_and_misses_frauds() -> None:
    expected = ["fraud"] * 80 + ["legitimate"] * 320
    champion = ["fraud"] * 76 + ["legitimate"] * 4 + ["fraud"] * 60 + ["legitimate"] * 260
    challenger = ["fraud"] * 62 + ["legitimate"] * 18 + ["fraud"] * 6 + ["legitimate"] * 314
    cases: list[tuple[dict[str, dict[str, float]] | None, str]] = [(None, "promote"), (COSTS, "reject")]
    for costs, outcome in cases:
        rules = RULES.model_copy(update={"costs": costs, "slice_margin": 0.3})
        given = {"champion": champion, "challenger": challenger}
        found = {name: answered(expected, given, name, costs) for name in ("frozen", "recent")}
        evidence = promotion_evidence(Assessment(found, "1", {}), rules)
        assert should_promote(evidence, rules).outcome == outcome


def test_costs_of_one_are_as_none(assessment: Assessment) -> None:
    plain = frauds(None, champion_finds=40, challenger_finds=70)
    alike = frauds({}, champion_finds=40, challenger_finds=70)
    one, other = promotion_evidence(plain, RULES), promotion_evidence(alike, RULES.model_copy(update={"costs": {}}))
    assert (one.frozen, one.recent, one.slices) == (other.frozen, other.recent, other.slices)


def test_on_a_slice_costs_are_part_of_what_there_is_to_lose() -> None:
    """Fifty times as cheap, and still a third of the legitimate rows lost."""
    rules = RULES.model_copy(update={"costs": COSTS})
    expected = ["fraud"] * 80 + ["legitimate"] * 320
    given = {"champion": list(expected), "challenger": ["fraud"] * 180 + ["legitimate"] * 220}
    found = {name: answered(expected, given, name, COSTS) for name in ("frozen", "recent")}
    evidence = promotion_evidence(Assessment(found, "1", {}), rules)
    assert evidence.slices["label legitimate"].difference == pytest.approx(-100 / 320)
    verdict = should_promote(evidence, rules)
    assert any(reason.startswith("On label legitimate the challenger is worse") for reason in verdict.reasons)


def test_a_floor_of_its_own_holds_a_label_whatever_the_metric() -> None:
    found = frauds(None, champion_finds=60, challenger_finds=50)
    assert promotion_evidence(found, RULES).recalls == {}
    rules = RULES.model_copy(update={"recall_floors": {"Fraud": 0.8}, "min_recall": None})
    evidence = promotion_evidence(found, rules)
    assert list(evidence.recalls) == ["fraud"]
    verdict = should_promote(evidence, rules)
    assert verdict.outcome == "reject"
    assert any("below the floor of 80% (promote.recall_floors)" in reason for reason in verdict.reasons)


def test_small_labels_of_similar_inputs_are_tested_together_and_named() -> None:
    """Twelve labels of five rows each, of which none could be tested alone: the challenger loses those about cards."""
    labels = [f"{thing} {n}" for thing in ("card", "money") for n in range(6)]
    rows = [
        Example(input=f"my {label.split()[0]}", output=label, id=f"{label}-{n}", group=f"{label}-{n}", source="files")
        for label in labels
        for n in range(5)
    ]
    answers = {
        "champion": [Answer(row.output, None, None, 9, 1, "stop", 0.1) for row in rows],
        "challenger": [
            Answer("other" if row.output.startswith("card") else row.output, None, None, 9, 1, "stop", 0.1)
            for row in rows
        ],
    }
    found = {"frozen": evaluate(rows, answers, [], "classification", PARAMS.evaluate)}
    evidence = promotion_evidence(Assessment(found, "1", {}), RULES)
    assert evidence.small == {}
    assert {tuple(sorted({name.split()[1] for name in some})) for some in evidence.pooled.values()} == {
        ("card",),
        ("money",),
    }
    verdict = should_promote(evidence, RULES)
    harmed = [reason for reason in verdict.reasons if reason.startswith("On labels card 0, card 1 and 4 more ")]
    assert verdict.outcome == "reject" and harmed
    assert any(reason.startswith("Tested together, because") for reason in verdict.reasons)


@pytest.mark.slow
def test_after_decay_no_traffic_is_answered_if_the_likelier_better_one_is_known(
    tmp_path: Path, new_mlflow_store: Callable[[Path], str]
) -> None:
    """The gate of a scheduled refresh would ask for labels; the one after decay promotes by what it has."""
    connect(new_mlflow_store(tmp_path))
    MlflowClient().create_experiment("colours", artifact_location=str(tmp_path / "artifacts"))
    write_params(tmp_path, task={"name": "colours"})
    workspace = open_workspace(tmp_path)
    recent = {"champion": set(range(12)), "challenger": set(range(8, 16))}
    frozen = {"champion": set(range(10)), "challenger": set(range(10))}
    found = Assessment({"frozen": evaluation("files", frozen), "recent": evaluation("traffic", recent)}, "1")
    runs = {trigger: open_run("colours", "refresh", {TRIGGER: trigger}, {}) for trigger in ("schedule", "decay")}
    verdicts = {name: should_promote(gate_evidence(run, found, RULES), RULES).outcome for name, run in runs.items()}
    assert verdicts == {"schedule": "collect more labels", "decay": "promote"}
    assert [wants_traffic(workspace, run, found) for run in runs.values()] == [True, False]


def test_after_decay_the_challenger_and_every_system_that_may_serve_are_judged_so() -> None:
    wrong = {"champion": set(range(20)), "challenger": set(range(10)), "linear": set(range(12))}
    found = Assessment({"frozen": evaluation("files", wrong), "recent": evaluation("traffic", wrong)}, "1")
    evidence = promotion_evidence(found, RULES)
    decayed = after_decay(evidence)
    assert decayed.is_after_decay and not evidence.is_after_decay
    gates = [rival.gate for rival in decayed.rivals.values() if rival.gate is not None]
    assert all(gate.is_after_decay for gate in gates)
    assert [rival.gate is None for rival in decayed.rivals.values()] == [
        rival.gate is None for rival in evidence.rivals.values()
    ]
