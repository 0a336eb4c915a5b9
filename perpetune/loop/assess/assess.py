"""Step 3: base, champion, challenger and its rivals answer the same held-out rows in the same run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sklearn.pipeline import Pipeline

from perpetune.classifiers.calibrated import calibrated
from perpetune.classifiers.temperature import fit_temperature
from perpetune.evaluation.baselines import answers_of
from perpetune.evaluation.costs import RefreshEconomics
from perpetune.evaluation.evaluate import Evaluation, evaluate, score_answers
from perpetune.evaluation.recorded_answers import recorded_answers as brought_answers
from perpetune.evaluation.report.report import figures, write_report
from perpetune.evaluation.report.style import write_png
from perpetune.evaluation.scores.scoring import scoring_of
from perpetune.evaluation.scores.text_metrics import tidy
from perpetune.evaluation.systems import LINEAR
from perpetune.evaluation.vetoes import as_metrics
from perpetune.generation.answer import Answer
from perpetune.inference.answerer import load_answerer
from perpetune.loop.assess.answering import Behind, Tell, telling, until_clear
from perpetune.loop.assess.costs import log_economics
from perpetune.loop.assess.golden_prompts import evaluated
from perpetune.loop.assess.systems import Fitted, Systems, adapters, held_out_rows, load_systems, prompted
from perpetune.loop.assess.vetoes import measured_limits
from perpetune.loop.curate import read_split
from perpetune.loop.fine_tune import Challenger
from perpetune.loop.run_context import REPORT
from perpetune.model.release import EVALUATED, ModelCard, ServingFacts, System
from perpetune.policy.promotion import Limit
from perpetune.records import Example, Recorded, to_json, write_jsonl
from perpetune.statistics.balanced_accuracy import compare_balanced
from perpetune.statistics.calibration import calibration
from perpetune.statistics.imbalance import is_imbalanced
from perpetune.statistics.paired import compare
from perpetune.tracking.runs import Run, log_file, log_metrics, log_table, log_text
from perpetune.workspace import Workspace

TRAINED = (*LINEAR, "champion", "challenger")  # the best of them is who a prompted one must not be behind

Given = dict[str, Sequence[Answer | None]]


@dataclass(frozen=True)
class Candidate:
    """A system that was not tuned, as it would be registered; `model` where it is linear."""

    card: ModelCard
    model: Pipeline | None
    evaluated: ServingFacts


@dataclass(frozen=True)
class Assessment:
    """The evaluation on each holdout that has rows, who the challenger was compared with, and what else may veto.

    `balanced`: the gate's metric counts each label alike. `candidates` are what else could serve.
    """

    evaluations: dict[str, Evaluation]
    champion: str | None
    limits: Mapping[str, Limit] = field(default_factory=dict)
    champion_system: System = "tuned"
    balanced: bool = False
    candidates: Mapping[str, Candidate] = field(default_factory=dict)


def assess(workspace: Workspace, run: Run, challenger: Challenger, version: str, tell: Tell) -> Assessment:
    """Evaluate on the frozen and the recent holdout, and log metrics, tables, plots and the report."""
    began = time.monotonic()
    train = read_split(workspace, "train")
    params, card = workspace.params.evaluate, challenger.card
    answerer = load_answerer(card.base, workspace.assets, card.precision, params.batch_tokens)
    held_out = held_out_rows(workspace, answerer, challenger, tell)
    systems = load_systems(workspace, answerer, challenger, train, held_out, tell)
    balanced = is_balanced(workspace, card, train)
    answers = _all_answers(workspace, systems, held_out, balanced, tell)
    candidates = _candidates(workspace, systems, held_out, answers)
    if "frozen" in held_out:
        _log_for_serving(workspace, run, systems, held_out["frozen"], answers["frozen"])
    evaluations = {
        holdout: evaluate(
            rows, _calibrated(answers[holdout], systems, candidates), train, card.kind, params, card.output_schema
        )
        for holdout, rows in held_out.items()
    }
    limits = measured_limits(workspace, systems, held_out, train, tell)
    champion = systems.champion
    assessment = Assessment(
        evaluations,
        champion.version if champion else None,
        limits,
        champion.system if champion else "tuned",
        balanced,
        candidates,
    )
    worth = log_economics(workspace, run, challenger, evaluations, time.monotonic() - began)
    _log(workspace, run, challenger, version, assessment, worth)
    return assessment


def is_balanced(workspace: Workspace, card: ModelCard, train: Sequence[Example]) -> bool:
    """Whether the gate counts each label alike: as params say, and for "auto" where a label is rare."""
    metric = workspace.params.promote.metric
    if card.kind != "classification" or metric == "accuracy":
        return False
    return metric == "balanced_accuracy" or is_imbalanced(Counter(tidy(row.output) for row in train))


def _all_answers(
    workspace: Workspace, systems: Systems, held_out: Mapping[str, Sequence[Example]], balanced: bool, tell: Tell
) -> dict[str, Given]:
    """Each system's answers on each holdout, as they came: the prompted ones last, who answer as long as it matters."""
    answers: dict[str, Given] = {holdout: _trained(workspace, systems, rows) for holdout, rows in held_out.items()}
    untrained = prompted(workspace, systems, tell)
    with adapters(systems) as asks:
        for holdout, rows in held_out.items():
            for name in (each for each in asks if each not in untrained):
                tell(f"{name}: answering the {len(rows)} rows of the {holdout} holdout")
                answers[holdout][name] = telling(name, asks[name], tell)(rows)
    for name, ask in untrained.items():
        for holdout, rows in held_out.items():
            tell(f"{name}: answering rows of the {holdout} holdout until its place is clear")
            behind = _behind(workspace, systems.challenger.card, rows, answers[holdout], balanced)
            params = workspace.params.evaluate
            found = until_clear(ask, rows, behind, params.confidence, params.seed)
            answers[holdout][name] = found
            asked = sum(answer is not None for answer in found)
            if asked < len(rows):
                tell(f"{name}: {asked} of {len(rows)} rows are enough to see that it is behind")
    return answers


def _trained(workspace: Workspace, systems: Systems, rows: Sequence[Example]) -> Given:
    """What answers without the base: the linear models, and a larger one whose answers were recorded."""
    found: Given = {}
    for name, fitted in systems.linear.items():
        found[name] = answers_of(fitted.model, rows)
    recorded = workspace.params.evaluate.recorded
    if recorded is not None:
        found["recorded"] = brought_answers(workspace.root / recorded, rows)
    return found


def _behind(workspace: Workspace, card: ModelCard, rows: Sequence[Example], answers: Given, balanced: bool) -> Behind:
    """Whether a system is behind the best of those that have answered all rows, by more than `promote.simpler_margin`."""
    params, simpler = workspace.params.evaluate, workspace.params.promote.simpler_margin
    scoring = scoring_of(card.kind, card.output_schema)
    whole = [name for name in answers if name in TRAINED and None not in answers[name]]
    trained = [score_answers(name, rows, answers[name], card.kind, scoring) for name in whole]
    best = max(trained, key=lambda scored: sum(scored.scores))

    def behind(positions: Sequence[int], given: Sequence[Answer], confidence: float) -> bool:
        some = [rows[position] for position in positions]
        theirs, ours = score_answers("rival", some, given, card.kind, scoring).scores, best.at(positions)
        samples, seed = params.bootstrap_samples, params.seed
        if not balanced:
            return compare(theirs, ours, confidence=confidence, samples=samples, seed=seed).low > simpler
        labels = [tidy(row.output) for row in some]
        found = compare_balanced(labels, theirs, ours, confidence=confidence, samples=samples, seed=seed)
        return found.low > simpler

    return behind


def _candidates(
    workspace: Workspace, systems: Systems, held_out: Mapping[str, Sequence[Example]], answers: Mapping[str, Given]
) -> dict[str, Candidate]:
    """What else could serve. The temperature of a prompted one is fitted on its held-out answers: one number."""
    if "frozen" not in held_out:
        return {}
    card = systems.challenger.card
    cards = {
        **{name: _linear_card(card, fitted) for name, fitted in systems.linear.items()},
        "base": card.model_copy(update={"system": "prompted"}),
        "few-shot": card.model_copy(update={"system": "prompted", "shots": systems.shots}),
    }
    found = {}
    for name, own in cards.items():
        if name in answers["frozen"]:
            fitted = systems.linear.get(name)
            temperature = fitted.temperature if fitted else _fitted(name, held_out, answers)
            kept = _answered(held_out["frozen"], answers["frozen"][name])
            golden = evaluated(
                [row for row, _ in kept],
                [calibrated(answer, temperature) for _, answer in kept],
                temperature,
                own.max_new_tokens,
                workspace.params.release,
            )
            found[name] = Candidate(own, fitted.model if fitted else None, golden)
    return found


def _linear_card(card: ModelCard, fitted: Fitted) -> ModelCard:
    labels = tuple(str(label) for label in fitted.model.classes_)
    return card.model_copy(update={"system": "linear", "labels": labels})


def _fitted(name: str, held_out: Mapping[str, Sequence[Example]], answers: Mapping[str, Given]) -> float:
    kept = [pair for holdout, rows in held_out.items() for pair in _answered(rows, answers[holdout][name])]
    return fit_temperature([answer for _, answer in kept], [row.output for row, _ in kept])


def _answered(rows: Sequence[Example], answers: Sequence[Answer | None]) -> list[tuple[Example, Answer]]:
    return [(row, answer) for row, answer in zip(rows, answers, strict=True) if answer is not None]


def _calibrated(answers: Given, systems: Systems, candidates: Mapping[str, Candidate]) -> Given:
    """The answers as each system would be served."""
    temperatures = {name: candidate.evaluated.temperature for name, candidate in candidates.items()}
    temperatures["challenger"] = systems.temperature
    if systems.champion is not None:
        temperatures["champion"] = systems.champion.evaluated.temperature
    return {
        name: [answer and calibrated(answer, temperatures.get(name, 1.0)) for answer in given]
        for name, given in answers.items()
    }


def _log_for_serving(workspace: Workspace, run: Run, systems: Systems, rows: Sequence[Example], given: Given) -> None:
    """The golden prompts, and what the temperature does to the calibration error on rows it was not fitted on."""
    temperature, card = systems.temperature, systems.challenger.card
    answers = [answer for answer in given["challenger"] if answer is not None]
    told = [calibrated(answer, temperature) for answer in answers]
    found = evaluated(rows, told, temperature, card.max_new_tokens, workspace.params.release)
    log_text(run, to_json(found.model_dump(mode="json")), EVALUATED)
    before, after = (calibration_error(rows, some) for some in (answers, told))
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
    """The expected calibration error; None for free text."""
    found = calibration(
        [row.output for row in rows],
        [answer.text for answer in answers],
        [answer.probabilities for answer in answers],
        confidence=0.95,
        samples=1,
        seed=0,
    )
    return found.error if found else None


def _log(
    workspace: Workspace,
    run: Run,
    challenger: Challenger,
    version: str,
    assessment: Assessment,
    worth: RefreshEconomics | None,
) -> None:
    folder = workspace.run_folder(run.id)
    log_metrics(run, as_metrics(assessment.limits))
    for holdout, evaluation in assessment.evaluations.items():
        log_metrics(run, evaluation.flat_metrics(holdout))
        for name, table in evaluation.tables().items():
            if name != "predictions":  # rows with their texts stay with DVC; the answers go by id
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
        else "the base: there is no champion yet",
        "MLflow run": run.url,
    }
    task = workspace.params.task.name
    write_report(report, assessment.evaluations, task=task, version=f"version {version}", facts=facts, worth=worth)
    log_file(run, report)


def recorded_answers(assessment: Assessment, system: str) -> list[Recorded]:
    """A system's answers to all held-out rows."""
    return [
        Recorded(id=id_, holdout=holdout, output=text, confidence=confidence, score=score)
        for holdout, evaluation in assessment.evaluations.items()
        if (scored := evaluation.scored.get(system))
        for id_, text, confidence, score in zip(
            scored.ids, scored.texts, scored.confidences, scored.scores, strict=True
        )
    ]
