"""Step 3: base, champion and challenger answer the same held-out rows in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perpetune import registry
from perpetune.answer import Answer
from perpetune.calibration import calibrated
from perpetune.evaluation.calibration import calibration
from perpetune.evaluation.economics import RefreshEconomics
from perpetune.evaluation.evaluate import Evaluation, evaluate
from perpetune.evaluation.forgetting import as_tokens, general_texts
from perpetune.evaluation.leakage import leakage
from perpetune.evaluation.limits import as_metrics, forgetting_limit, leakage_limits, pace_limits
from perpetune.evaluation.pace import Pace, chosen, in_turns
from perpetune.evaluation.report import figures, write_report
from perpetune.evaluation.style import write_png
from perpetune.evaluation.temperature import fit_temperature
from perpetune.inference.answers import Answerer, load_answerer
from perpetune.loop.curate import read_split
from perpetune.loop.economics import log_economics
from perpetune.loop.fine_tune import Challenger
from perpetune.loop.golden import evaluated
from perpetune.loop.passage import REPORT
from perpetune.loop.shots import few_shot
from perpetune.policy.promotion import Limit
from perpetune.records import Example, Message, Recorded, conversation, to_json, with_shots, write_jsonl
from perpetune.release import EVALUATED, ModelCard, Release
from perpetune.tracking import Run, log_file, log_metrics, log_table, log_text
from perpetune.workspace import Workspace

HOLDOUTS = ("frozen", "recent")
PACE_ROWS = 40


@dataclass(frozen=True)
class Assessment:
    """The evaluation on each holdout that has rows, who the challenger was compared with, and what else may veto."""

    evaluations: dict[str, Evaluation]
    champion: str | None
    limits: Mapping[str, Limit] = field(default_factory=dict)


def assess(
    workspace: Workspace, run: Run, challenger: Challenger, version: str, tell: Callable[[str], None]
) -> Assessment:
    """Evaluate on the frozen and the recent holdout, and log metrics, tables, plots and the report."""
    began = time.monotonic()
    train = read_split(workspace, "train")
    params = workspace.params.evaluate
    champion = _champion(workspace)
    answerer = load_answerer(
        challenger.card.base, workspace.assets, challenger.card.precision, workspace.params.evaluate.batch_tokens
    )
    temperature = _temperature(workspace, answerer, challenger)
    evaluations: dict[str, Evaluation] = {}
    held_out: dict[str, list[Example]] = {}
    for holdout in HOLDOUTS:
        rows = _readable(answerer, challenger, read_split(workspace, holdout), holdout, tell)
        if rows:
            held_out[holdout] = rows
            tell(f"answering the {len(rows)} rows of the {holdout} holdout")
            answers = _answers(workspace, answerer, challenger, champion, rows, train)
            if holdout == "frozen":
                _log_for_serving(workspace, run, challenger, rows, answers["challenger"], temperature)
            answers["challenger"] = [calibrated(answer, temperature) for answer in answers["challenger"]]
            evaluations[holdout] = evaluate(
                rows, answers, train, challenger.card.kind, params, challenger.card.output_schema
            )
    limits = _limits(workspace, answerer, challenger, champion, held_out, train)
    assessment = Assessment(evaluations, champion.version if champion else None, limits)
    worth = log_economics(workspace, run, challenger, evaluations, time.monotonic() - began)
    _log(workspace, run, challenger, version, assessment, worth)
    return assessment


def _limits(
    workspace: Workspace,
    answerer: Answerer,
    challenger: Challenger,
    champion: Release | None,
    held_out: Mapping[str, Sequence[Example]],
    train: Sequence[Example],
) -> dict[str, Limit]:
    """What else may veto: forgetting, latency, cost, and held-out rows that were trained on."""
    rules, params = workspace.params.promote, workspace.params.evaluate
    found = leakage(train, [row for rows in held_out.values() for row in rows])
    limits = leakage_limits(found, rules)
    answerer.load_adapter("challenger", challenger.adapter)
    if champion is not None:
        answerer.load_adapter("champion", champion.adapter)
    other = "champion" if champion is not None else "base"
    try:
        if rules.max_forgetting is not None:
            texts = as_tokens(answerer.base.tokenizer, general_texts(), answerer.context)
            before = answerer.losses("champion" if champion is not None else None, texts)
            limits |= forgetting_limit(before, answerer.losses("challenger", texts), rules, params)
        if rules.max_slowdown is not None or rules.max_cost is not None:
            pace = _pace(answerer, challenger, champion, held_out["frozen"], params.seed)
            limits |= pace_limits(pace, other, rules, params)
    finally:
        if champion is not None:
            answerer.unload_adapter("champion")
        answerer.unload_adapter("challenger")
    return limits


def _pace(
    answerer: Answerer, challenger: Challenger, champion: Release | None, rows: Sequence[Example], seed: int
) -> Pace:
    """The seconds that some rows take the challenger, and the champion or else the base, each as it is served."""
    card = challenger.card
    some = [rows[place] for place in chosen(rows, PACE_ROWS, seed)]
    before = champion or card
    other = "champion" if champion else None

    def ask(adapter: str | None, version: ModelCard | Release) -> Callable[[int], object]:
        asked = [conversation(version.instruction, row) for row in some]
        return lambda place: answerer.answer(
            adapter, [asked[place]], version.labels, card.max_new_tokens, version.json_schema
        )

    return in_turns(ask(other, before), ask("challenger", card), len(some))


def _temperature(workspace: Workspace, answerer: Answerer, challenger: Challenger) -> float:
    """Of the challenger's confidence, from rows of the validation split, which no figure is reported on."""
    card = challenger.card
    if card.labels is None:
        return 1.0
    rows = _readable(answerer, challenger, read_split(workspace, "validation"), "validation", lambda _: None)
    rows = rows[: workspace.params.train.validation_rows]
    asked = [conversation(card.instruction, row) for row in rows]
    answers = _speaking(answerer, "challenger", challenger.adapter, asked, card.labels, card.max_new_tokens)
    return fit_temperature(answers, [row.output for row in rows])


def _log_for_serving(
    workspace: Workspace,
    run: Run,
    challenger: Challenger,
    rows: Sequence[Example],
    answers: Sequence[Answer],
    temperature: float,
) -> None:
    """The golden prompts, and what the temperature does to the calibration error on rows it was not fitted on."""
    told = [calibrated(answer, temperature) for answer in answers]
    found = evaluated(rows, told, temperature, challenger.card.max_new_tokens, workspace.params.release)
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


def _readable(
    answerer: Answerer, challenger: Challenger, rows: Sequence[Example], holdout: str, tell: Callable[[str], None]
) -> list[Example]:
    card = challenger.card
    kept = [row for row in rows if answerer.fits(conversation(card.instruction, row), card.labels, card.max_new_tokens)]
    if len(kept) < len(rows):
        tell(f"{len(rows) - len(kept)} rows of the {holdout} holdout are left out: longer than the model can read")
    return kept


def _champion(workspace: Workspace) -> Release | None:
    task = workspace.params.task.name
    found = registry.find(task, "champion")
    return registry.fetch_release(task, found.version, workspace.home / "releases") if found else None


def _answers(
    workspace: Workspace,
    answerer: Answerer,
    challenger: Challenger,
    champion: Release | None,
    rows: Sequence[Example],
    train: Sequence[Example],
) -> dict[str, list[Answer]]:
    """Each system's answers. The base is asked among the challenger's labels, the champion among its own.

    So with the schema of the outputs: the champion answers as it is served.
    """
    card, budget, schema = challenger.card, challenger.card.max_new_tokens, challenger.card.json_schema
    asked = [conversation(card.instruction, row) for row in rows]
    answers = {"base": answerer.answer(None, asked, card.labels, budget, schema)}
    shown = _asked_with_examples(workspace, answerer, challenger, asked, train)
    if shown:
        answers["few-shot"] = answerer.answer(None, shown, card.labels, budget, schema)
    if champion is not None:
        told = [conversation(champion.instruction, row) for row in rows]
        spoken = _speaking(answerer, "champion", champion.adapter, told, champion.labels, budget, champion.json_schema)
        answers["champion"] = [calibrated(answer, champion.evaluated.temperature) for answer in spoken]
    answers["challenger"] = _speaking(answerer, "challenger", challenger.adapter, asked, card.labels, budget, schema)
    return answers


def _asked_with_examples(
    workspace: Workspace,
    answerer: Answerer,
    challenger: Challenger,
    asked: Sequence[Sequence[Message]],
    train: Sequence[Example],
) -> list[Sequence[Message]]:
    """Each conversation behind as many examples as the model can read with the longest of them; [] for none."""
    card, params = challenger.card, workspace.params.evaluate
    for count in range(params.few_shot_examples, 0, -1):
        shots = few_shot(train, count, params.seed)
        shown = [with_shots(shots, row) for row in asked]
        longest = max(shown, key=lambda row: sum(len(message.content) for message in row))
        if shots and answerer.fits(longest, card.labels, card.max_new_tokens):
            return [*shown]
    return []


def _speaking(
    answerer: Answerer,
    name: str,
    adapter: Path,
    asked: Sequence[Sequence[Message]],
    labels: Sequence[str] | None,
    budget: int,
    schema: str | None = None,
) -> list[Answer]:
    answerer.load_adapter(name, adapter)
    try:
        return answerer.answer(name, asked, labels, budget, schema)
    finally:
        answerer.unload_adapter(name)


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
    for system in ("champion", "challenger"):
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
