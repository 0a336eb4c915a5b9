"""After an evaluation without a verdict: champion and challenger answer stored traffic without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from perpetune.classifiers.linear import load_linear_model
from perpetune.curation.rows.sources import is_traffic
from perpetune.evaluation.evaluate import Evaluation, common_positions
from perpetune.evaluation.scores.scoring import Scoring, scoring_of
from perpetune.evaluation.slices import paired_scores
from perpetune.inference.predictor import load_predictor
from perpetune.loop.assess.answering import Log, Predict, with_progress
from perpetune.loop.assess.assess import Assessment
from perpetune.loop.assess.systems import Systems, adapters
from perpetune.loop.curate import read_split
from perpetune.loop.decide import gate_evidence, promotion_evidence
from perpetune.loop.disagreements.comparison import Disagreement, TrafficComparison, TrafficSample
from perpetune.loop.disagreements.pool import as_example, stored_pool
from perpetune.loop.training.fine_tune import Challenger
from perpetune.policy.promotion.choice import choose
from perpetune.policy.promotion.traffic_comparison import rows_to_answer
from perpetune.records import Example, Prediction
from perpetune.tracking import registry
from perpetune.tracking.runs import Run
from perpetune.workspace import Workspace

Answers = Mapping[str, tuple[str, str]]  # of champion and challenger, by request

FEWEST = 100  # requests that are worth loading the model for


def wants_traffic(workspace: Workspace, run: Run, assessment: Assessment) -> bool:
    """Whether the holdouts are too small for the verdict of this refresh, so that stored traffic is worth answering.

    Not in balanced accuracy, in which the weight of a row depends on its label, and not without a champion.
    """
    rules = workspace.params.promote
    if not rules.disagreement_labels or assessment.champion is None or assessment.balanced:
        return False
    return choose(gate_evidence(run, assessment, rules), rules).verdict.outcome == "collect more labels"


def compare_on_traffic(
    workspace: Workspace, challenger: Challenger, version: str, assessment: Assessment, log: Log
) -> TrafficComparison | None:
    """Both systems' answers to recent and to earlier traffic; None if there is little of it."""
    learned = [row for split in ("train", "validation") for row in read_split(workspace, split)]
    pool = stored_pool(workspace, learned, _age_of_recent_holdout(assessment))
    if len(pool.recent) < FEWEST or assessment.champion is None:
        return None
    rules, task = workspace.params.promote, workspace.params.task
    first, rest = pool.recent[: rules.traffic_rows], pool.recent[rules.traffic_rows :]
    scoring, texts = scoring_of(task.kind, task.output_schema), _texts_of(workspace, challenger, log)
    answers = texts([*first, *pool.earlier])
    recent, earlier = (_sample(some, answers, scoring) for some in (first, pool.earlier))
    evidence = promotion_evidence(assessment, rules)
    more = rest[: rows_to_answer(evidence, len(recent.differing), recent.rows, rules) - recent.rows]
    if more:
        recent = _sample((*first, *more), answers | texts(more), scoring)
    return TrafficComparison(
        champion=assessment.champion,
        challenger=version,
        recent=_with_holdout(recent, assessment.evaluations.get("recent")),
        earlier=_with_holdout(earlier, assessment.evaluations.get("frozen")),
    )


def _sample(rows: Sequence[Prediction], answers: Answers, scoring: Scoring) -> TrafficSample:
    found = [
        Disagreement(request_id=row.id, champion=answers[row.id][0], challenger=answers[row.id][1]) for row in rows
    ]
    return TrafficSample(
        rows=len(rows), differing=tuple(each for each in found if differ(scoring, each.champion, each.challenger))
    )


def _with_holdout(sample: TrafficSample, evaluation: Evaluation | None) -> TrafficSample:
    held_out, differences = _held_out(evaluation)
    return sample.model_copy(update={"held_out": held_out, "held_out_differing": tuple(differences)})


def _texts_of(
    workspace: Workspace, challenger: Challenger, log: Log
) -> Callable[[Sequence[Prediction]], dict[str, tuple[str, str]]]:
    """Answers requests: the texts of champion and challenger, by request."""

    def texts(rows: Sequence[Prediction]) -> dict[str, tuple[str, str]]:
        log(f"champion and challenger answer {len(rows):,} stored requests, to find those worth a label")
        ours, theirs = _answers(workspace, challenger, rows, log)
        return {row.id: (their, our) for row, their, our in zip(rows, theirs, ours, strict=True)}

    return texts


def differ(scoring: Scoring, one: str, other: str) -> bool:
    """Whether two answers may be scored differently: neither is fully right if the other is the correct one."""
    return scoring.score(one, other) < 1 or scoring.score(other, one) < 1


def _age_of_recent_holdout(assessment: Assessment) -> datetime | None:
    recent = assessment.evaluations.get("recent")
    times = [row.time for row in recent.rows if is_traffic(row) and row.time is not None] if recent else []
    return min(times, default=None)


def _held_out(evaluation: Evaluation | None) -> tuple[int, list[float]]:
    """How many held-out rows both have answered, and the differences of scores on those answered differently."""
    if evaluation is None or not {"champion", "challenger"} <= set(evaluation.scored):
        return 0, []
    theirs, ours = evaluation.scored["champion"], evaluation.scored["challenger"]
    positions, scores = common_positions(theirs, ours), paired_scores(evaluation, "champion", "challenger")
    their_texts, our_texts = (dict(zip(each.positions, each.texts, strict=True)) for each in (theirs, ours))
    differences = [
        our - their
        for position, their, our in zip(positions, scores.theirs, scores.ours, strict=True)
        if our != their or differ(evaluation.scoring, their_texts[position], our_texts[position])
    ]
    return len(positions), differences


def _answers(
    workspace: Workspace, challenger: Challenger, rows: Sequence[Prediction], log: Log
) -> tuple[list[str], list[str]]:
    """The answers of challenger and champion; the champion's own stored answers to a classification stand."""
    params, card = workspace.params.evaluate, challenger.card
    predictor = load_predictor(card.base, workspace.assets, card.precision, params.batch_tokens)
    champion = registry.fetch_champion(card.task, workspace.home / "releases")
    assert champion is not None
    model = load_linear_model(champion.adapter, workspace.assets) if champion.system == "linear" else None
    systems = Systems(predictor, challenger, 1.0, champion, model, {}, ())
    with adapters(systems) as predictors:
        ours = _texts(with_progress("challenger", predictors["challenger"], log), rows)
        stored = {
            row.id: row.output for row in rows if card.kind == "classification" and row.version == champion.version
        }
        left = [row for row in rows if row.id not in stored]
        answered = _texts(with_progress("champion", predictors["champion"], log), left)
        stored |= dict(zip((row.id for row in left), answered, strict=True))
    return ours, [stored[row.id] for row in rows]


def _texts(predict: Predict, rows: Sequence[Prediction]) -> list[str]:
    examples: list[Example] = [as_example(row) for row in rows]
    return [answer.text for answer in predict(examples)] if examples else []
