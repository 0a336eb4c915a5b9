"""Step 3, evaluate: base, champion, challenger and its rivals answer the same held-out rows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sklearn.pipeline import Pipeline

from perpetune.classifiers.temperature import fit_temperature
from perpetune.classifiers.temperature_scaling import scale_temperature
from perpetune.curation.hosted.matching import load_answers
from perpetune.curation.running.layout import HOSTED_ANSWERS
from perpetune.evaluation.baselines import answers_of
from perpetune.evaluation.costs import RefreshEconomics
from perpetune.evaluation.evaluate import Evaluation, evaluate, score_answers
from perpetune.evaluation.recorded_answers import hosted_answers
from perpetune.evaluation.recorded_answers import recorded_answers as read_recorded_answers
from perpetune.evaluation.report.report import figures, write_report
from perpetune.evaluation.report.style import write_png
from perpetune.evaluation.scores.mistake_costs import cost_scoring, mistake_costs
from perpetune.evaluation.scores.scoring import scoring_of
from perpetune.evaluation.scores.text_metrics import tidy
from perpetune.evaluation.systems import LINEAR
from perpetune.evaluation.vetoes import as_metrics
from perpetune.generation.answer import Answer
from perpetune.inference.predictor import load_predictor
from perpetune.loop.assess.answering import IsBehind, Log, predict_until_clear, with_progress
from perpetune.loop.assess.costs import log_economics
from perpetune.loop.assess.golden_prompts import serving_facts
from perpetune.loop.assess.holdout_uses import uses_before, uses_of
from perpetune.loop.assess.systems import LinearModel, Systems, adapters, held_out_rows, load_systems, prompted_systems
from perpetune.loop.assess.vetoes import measured_limits
from perpetune.loop.curate import read_split
from perpetune.loop.run_context import REPORT
from perpetune.loop.training.fine_tune import Challenger
from perpetune.model.release import EVALUATED, ModelCard, ServingFacts, System
from perpetune.policy.promotion.evidence import HoldoutUse, Limit
from perpetune.records import Example, RecordedAnswer, to_json, write_jsonl
from perpetune.statistics.balanced_accuracy import compare_balanced
from perpetune.statistics.calibration import calibration
from perpetune.statistics.imbalance import is_imbalanced
from perpetune.statistics.paired import compare
from perpetune.tracking.runs import Run, log_file, log_metrics, log_table, log_text
from perpetune.workspace import Workspace

TRAINED = (*LINEAR, "champion", "challenger")  # a prompted system is compared with the best of these

Answers = dict[str, Sequence[Answer | None]]


@dataclass(frozen=True)
class Candidate:
    """An untuned system as it would be registered; `model` only if it is linear, `evaluated` as serving checks it."""

    card: ModelCard
    model: Pipeline | None
    evaluated: ServingFacts


@dataclass(frozen=True)
class Assessment:
    """The evaluations by holdout, the champion compared with (None: the base), and measured limits that can veto.

    `balanced`: the gate's metric is balanced accuracy. `candidates` are the other systems that could serve, by name.
    `economics` is what the answers and the refresh cost; None if no held-out row was answered.
    `uses`: how often the rows of each holdout decided before.
    """

    evaluations: dict[str, Evaluation]
    champion: str | None
    limits: Mapping[str, Limit] = field(default_factory=dict)
    champion_system: System = "tuned"
    balanced: bool = False
    candidates: Mapping[str, Candidate] = field(default_factory=dict)
    economics: RefreshEconomics | None = None
    uses: Mapping[str, HoldoutUse] = field(default_factory=dict)


def assess(workspace: Workspace, run: Run, challenger: Challenger, version: str, log: Log) -> Assessment:
    """Evaluate on the frozen and the recent holdout, and log metrics, tables, plots and the report to the run."""
    began = time.monotonic()
    train = read_split(workspace, "train")
    params, card = workspace.params.evaluate, challenger.card
    predictor = load_predictor(card.base, workspace.assets, card.precision, params.batch_tokens)
    held_out = held_out_rows(workspace, predictor, challenger, log)
    systems = load_systems(workspace, predictor, challenger, train, held_out, log)
    balanced = is_balanced(workspace, card, train)
    answers = _all_answers(workspace, systems, held_out, balanced, log)
    candidates = _candidates(workspace, systems, held_out, answers)
    if "frozen" in held_out:
        _log_for_serving(workspace, run, systems, held_out["frozen"], answers["frozen"])
    evaluations = {
        holdout: evaluate(
            rows,
            _calibrated(answers[holdout], systems, candidates),
            train,
            card.kind,
            params,
            card.output_schema,
            workspace.params.promote,
        )
        for holdout, rows in held_out.items()
    }
    limits = measured_limits(workspace, systems, held_out, train, log)
    champion = systems.champion
    assessment = Assessment(
        evaluations,
        champion.version if champion else None,
        limits,
        champion.system if champion else "tuned",
        balanced,
        candidates,
        uses=uses_of(held_out, uses_before(workspace, run)),
    )
    found = log_economics(workspace, run, challenger, evaluations, time.monotonic() - began)
    assessment = replace(assessment, economics=found)
    _log_assessment(workspace, run, challenger, version, assessment)
    return assessment


def is_balanced(workspace: Workspace, card: ModelCard, train: Sequence[Example]) -> bool:
    """Whether the gate uses balanced accuracy: `promote.metric`, or for "auto" if a label is rare and no costs are set."""
    metric = workspace.params.promote.metric
    if card.kind != "classification" or metric == "accuracy" or workspace.params.promote.costs is not None:
        return False
    return metric == "balanced_accuracy" or is_imbalanced(Counter(tidy(row.output) for row in train))


def _all_answers(
    workspace: Workspace, systems: Systems, held_out: Mapping[str, Sequence[Example]], balanced: bool, log: Log
) -> dict[str, Answers]:
    """Each system's uncalibrated answers by holdout. Prompted systems come last and may stop early."""
    answers: dict[str, Answers] = {holdout: _trained(workspace, systems, rows) for holdout, rows in held_out.items()}
    untrained = prompted_systems(workspace, systems, log)
    with adapters(systems) as predictors:
        for holdout, rows in held_out.items():
            for name in (each for each in predictors if each not in untrained):
                log(f"{name}: answering the {len(rows)} rows of the {holdout} holdout")
                answers[holdout][name] = with_progress(name, predictors[name], log)(rows)
    for name, predict in untrained.items():
        for holdout, rows in held_out.items():
            log(f"{name}: answering rows of the {holdout} holdout, fewer if it is clearly behind")
            is_behind = _is_behind(workspace, systems.challenger.card, rows, answers[holdout], balanced)
            params = workspace.params.evaluate
            found = predict_until_clear(predict, rows, is_behind, params.confidence, params.seed)
            answers[holdout][name] = found
            answered = sum(answer is not None for answer in found)
            if answered < len(rows):
                log(f"{name}: clearly behind after {answered} of {len(rows)} rows")
    return answers


def _trained(workspace: Workspace, systems: Systems, rows: Sequence[Example]) -> Answers:
    """Answers of the systems without the base: the linear models, and recorded answers."""
    found: Answers = {}
    for name, fitted in systems.linear.items():
        found[name] = answers_of(fitted.model, rows)
    recorded = workspace.params.evaluate.recorded
    if recorded is not None:
        found["recorded"] = read_recorded_answers(workspace.root / recorded, rows)
    if workspace.params.evaluate.hosted and (hosted := load_answers(workspace.root / HOSTED_ANSWERS)):
        found["hosted"] = hosted_answers(hosted, rows)
    return found


def _is_behind(
    workspace: Workspace, card: ModelCard, rows: Sequence[Example], answers: Answers, balanced: bool
) -> IsBehind:
    """A test of whether a system is behind the best trained one by more than `promote.simpler_margin`."""
    params, simpler = workspace.params.evaluate, workspace.params.promote.simpler_margin
    costs = mistake_costs(workspace.params.promote.costs)
    scoring = cost_scoring(costs) if costs else scoring_of(card.kind, card.output_schema)
    whole = [name for name in answers if name in TRAINED and None not in answers[name]]
    trained = [score_answers(name, rows, answers[name], card.kind, scoring) for name in whole]
    best = max(trained, key=lambda scored: sum(scored.scores))

    def is_behind(positions: Sequence[int], given: Sequence[Answer], confidence: float) -> bool:
        some = [rows[position] for position in positions]
        theirs, ours = score_answers("rival", some, given, card.kind, scoring).scores, best.at(positions)
        samples, seed = params.bootstrap_samples, params.seed
        if not balanced:
            return compare(theirs, ours, confidence=confidence, samples=samples, seed=seed).low > simpler
        labels = [tidy(row.output) for row in some]
        found = compare_balanced(labels, theirs, ours, confidence=confidence, samples=samples, seed=seed)
        return found.low > simpler

    return is_behind


def _candidates(
    workspace: Workspace, systems: Systems, held_out: Mapping[str, Sequence[Example]], answers: Mapping[str, Answers]
) -> dict[str, Candidate]:
    """The other systems that could serve. A prompted one's temperature is fitted on its held-out answers."""
    if "frozen" not in held_out:
        return {}
    card = systems.challenger.card
    cards = {
        **{name: _linear_card(card, fitted) for name, fitted in systems.linear.items()},
        "base": card.model_copy(update={"system": "prompted"}),
        "few-shot": card.model_copy(update={"system": "prompted", "shots": systems.shots}),
    }
    found = {}
    for name, own_card in cards.items():
        if name in answers["frozen"]:
            fitted = systems.linear.get(name)
            temperature = fitted.temperature if fitted else _fitted(name, held_out, answers)
            kept = _answered(held_out["frozen"], answers["frozen"][name])
            facts = serving_facts(
                [row for row, _ in kept],
                [scale_temperature(answer, temperature) for _, answer in kept],
                temperature,
                own_card.max_new_tokens,
                workspace.params.release,
            )
            found[name] = Candidate(own_card, fitted.model if fitted else None, facts)
    return found


def _linear_card(card: ModelCard, fitted: LinearModel) -> ModelCard:
    labels = tuple(str(label) for label in fitted.model.classes_)
    return card.model_copy(update={"system": "linear", "labels": labels})


def _fitted(name: str, held_out: Mapping[str, Sequence[Example]], answers: Mapping[str, Answers]) -> float:
    kept = [pair for holdout, rows in held_out.items() for pair in _answered(rows, answers[holdout][name])]
    return fit_temperature([answer for _, answer in kept], [row.output for row, _ in kept])


def _answered(rows: Sequence[Example], answers: Sequence[Answer | None]) -> list[tuple[Example, Answer]]:
    return [(row, answer) for row, answer in zip(rows, answers, strict=True) if answer is not None]


def _calibrated(answers: Answers, systems: Systems, candidates: Mapping[str, Candidate]) -> Answers:
    """The answers with each system's confidence calibrated, as it is or would be served."""
    temperatures = {name: candidate.evaluated.temperature for name, candidate in candidates.items()}
    temperatures["challenger"] = systems.temperature
    if systems.champion is not None:
        temperatures["champion"] = systems.champion.evaluated.temperature
    return {
        name: [answer and scale_temperature(answer, temperatures.get(name, 1.0)) for answer in given]
        for name, given in answers.items()
    }


def _log_for_serving(workspace: Workspace, run: Run, systems: Systems, rows: Sequence[Example], given: Answers) -> None:
    """Log the golden prompts, and the calibration error before and after temperature scaling on the frozen holdout."""
    temperature, card = systems.temperature, systems.challenger.card
    answers = [answer for answer in given["challenger"] if answer is not None]
    scaled = [scale_temperature(answer, temperature) for answer in answers]
    facts = serving_facts(rows, scaled, temperature, card.max_new_tokens, workspace.params.release)
    log_text(run, to_json(facts.model_dump(mode="json")), EVALUATED)
    before, after = (calibration_error(rows, some) for some in (answers, scaled))
    if before is not None and after is not None:
        log_metrics(
            run,
            {
                "calibration/temperature": temperature,
                "calibration/error_before": before,
                "calibration/error_after": after,
                "calibration/rows": float(len(rows)),
            },
        )


def calibration_error(rows: Sequence[Example], answers: Sequence[Answer]) -> float | None:
    """The expected calibration error (0 to 1); None for free text."""
    found = calibration(
        [row.output for row in rows],
        [answer.text for answer in answers],
        [answer.probabilities for answer in answers],
        confidence=0.95,
        samples=1,
        seed=0,
    )
    return found.error if found else None


def _log_assessment(
    workspace: Workspace,
    run: Run,
    challenger: Challenger,
    version: str,
    assessment: Assessment,
) -> None:
    folder = workspace.run_folder(run.id)
    log_metrics(run, as_metrics(assessment.limits))
    for holdout, evaluation in assessment.evaluations.items():
        log_metrics(run, evaluation.flat_metrics(holdout))
        for name, table in evaluation.tables().items():
            if name != "predictions":  # rows with their texts stay in DVC; answers are logged by id
                log_table(run, table, f"tables/{holdout}-{name}.json")
        for name, figure in figures(evaluation).items():
            picture = folder / "plots" / f"{holdout}-{name}.png"
            write_png(figure, picture)
            log_file(run, picture, "plots")
    for system in ("champion", "challenger", *assessment.candidates):
        recorded = recorded_answers(assessment, system)
        if recorded:
            path = folder / f"{system}.jsonl"
            write_jsonl(path, recorded)
            log_file(run, path, "answers")
    report = folder / REPORT
    facts = {
        "base": f"{challenger.card.base.model} {challenger.card.base.revision or ''}".strip(),
        "adapter": challenger.trained.digest[:12],
        "compared with": f"champion {assessment.champion}"
        if assessment.champion
        else "the base, because there is no champion yet",
        **{f"{name} holdout": str(use) for name, use in assessment.uses.items()},
        "MLflow run": run.url,
    }
    task = workspace.params.task.name
    write_report(
        report, assessment.evaluations, task=task, version=f"version {version}", facts=facts, worth=assessment.economics
    )
    log_file(run, report)


def recorded_answers(assessment: Assessment, system: str) -> list[RecordedAnswer]:
    """A system's answers to all held-out rows; [] if it answered none."""
    return [
        RecordedAnswer(id=id_, holdout=holdout, output=text, confidence=confidence, score=score, likelihood=likelihood)
        for holdout, evaluation in assessment.evaluations.items()
        if (scored := evaluation.scored.get(system))
        for id_, text, confidence, score, likelihood in zip(
            scored.ids,
            scored.texts,
            scored.confidences,
            scored.scores,
            scored.likelihoods or (None,) * len(scored.ids),
            strict=True,
        )
    ]
