"""Step 3: base, champion, challenger and its rivals answer the same held-out rows in the same run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sklearn.pipeline import Pipeline

from perpetune import registry
from perpetune.answer import Answer
from perpetune.calibration import calibrated
from perpetune.evaluation.balanced import compare_balanced
from perpetune.evaluation.baselines import answers_of, fitted_linear
from perpetune.evaluation.calibration import calibration
from perpetune.evaluation.economics import RefreshEconomics
from perpetune.evaluation.evaluate import Evaluation, evaluate, score_answers
from perpetune.evaluation.forgetting import as_tokens, general_texts, losses_within
from perpetune.evaluation.leakage import leakage
from perpetune.evaluation.limits import as_metrics, forgetting_limit, leakage_limits, pace_limits
from perpetune.evaluation.pace import Pace, chosen, in_turns
from perpetune.evaluation.paired import compare
from perpetune.evaluation.recorded import recorded_answers as brought_answers
from perpetune.evaluation.report import figures, write_report
from perpetune.evaluation.scoring import scoring_of
from perpetune.evaluation.style import write_png
from perpetune.evaluation.temperature import fit_temperature
from perpetune.evaluation.text_metrics import tidy
from perpetune.imbalance import is_imbalanced
from perpetune.inference.answers import Answerer, load_answerer
from perpetune.linear import load_linear_model
from perpetune.loop.answering import Ask, Behind, Tell, counting, remembering, telling, until_clear
from perpetune.loop.curate import read_split
from perpetune.loop.economics import log_economics
from perpetune.loop.fine_tune import Challenger
from perpetune.loop.golden import evaluated
from perpetune.loop.passage import REPORT
from perpetune.loop.shots import few_shot
from perpetune.policy.promotion import Limit
from perpetune.records import Example, Message, Recorded, conversation, to_json, write_jsonl
from perpetune.release import EVALUATED, Evaluated, ModelCard, Release, System
from perpetune.tracking import Run, log_file, log_metrics, log_table, log_text
from perpetune.workspace import Workspace

HOLDOUTS = ("frozen", "recent")
PACE_ROWS = 40
FORGETTING_SECONDS = 30.0
TRAINED = ("linear", "champion", "challenger")  # who answer every row

Given = dict[str, Sequence[Answer | None]]


@dataclass(frozen=True)
class Candidate:
    """A system that was not tuned, as it would be registered; `model` where it is linear."""

    card: ModelCard
    model: Pipeline | None
    evaluated: Evaluated


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


@dataclass(frozen=True)
class _Systems:
    """All that answers: what was loaded and fitted, and the examples that the base is shown."""

    answerer: Answerer
    challenger: Challenger
    temperature: float
    champion: Release | None
    champion_model: Pipeline | None
    linear: Pipeline | None
    linear_temperature: float
    shots: tuple[Message, ...]


def assess(workspace: Workspace, run: Run, challenger: Challenger, version: str, tell: Tell) -> Assessment:
    """Evaluate on the frozen and the recent holdout, and log metrics, tables, plots and the report."""
    began = time.monotonic()
    train = read_split(workspace, "train")
    params, card = workspace.params.evaluate, challenger.card
    answerer = load_answerer(card.base, workspace.assets, card.precision, params.batch_tokens)
    held_out = _held_out(workspace, answerer, challenger, tell)
    systems = _systems(workspace, answerer, challenger, train, held_out, tell)
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
    limits = _limits(workspace, systems, held_out, train, tell)
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


def _held_out(workspace: Workspace, answerer: Answerer, challenger: Challenger, tell: Tell) -> dict[str, list[Example]]:
    """The rows of each holdout that has any."""
    found = {
        holdout: _readable(answerer, challenger, read_split(workspace, holdout), holdout, tell) for holdout in HOLDOUTS
    }
    return {holdout: rows for holdout, rows in found.items() if rows}


def _systems(
    workspace: Workspace,
    answerer: Answerer,
    challenger: Challenger,
    train: Sequence[Example],
    held_out: Mapping[str, Sequence[Example]],
    tell: Tell,
) -> _Systems:
    champion, card = _champion(workspace), challenger.card
    linear = fitted_linear(train, workspace.params.evaluate.seed) if card.kind == "classification" else None
    validation = read_split(workspace, "validation")
    return _Systems(
        answerer,
        challenger,
        _temperature(workspace, answerer, challenger, tell),
        champion,
        load_linear_model(champion.adapter) if champion and champion.system == "linear" else None,
        linear,
        fit_temperature(answers_of(linear, validation), [row.output for row in validation]) if linear else 1.0,
        _shots(workspace, answerer, challenger, train, [row for rows in held_out.values() for row in rows]),
    )


def _all_answers(
    workspace: Workspace, systems: _Systems, held_out: Mapping[str, Sequence[Example]], balanced: bool, tell: Tell
) -> dict[str, Given]:
    """Each system's answers on each holdout, as they came: the prompted ones last, who answer as long as it matters."""
    answers: dict[str, Given] = {holdout: _trained(workspace, systems, rows) for holdout, rows in held_out.items()}
    with _adapters(systems) as asks:
        for holdout, rows in held_out.items():
            for name, ask in asks.items():
                tell(f"{name}: answering the {len(rows)} rows of the {holdout} holdout")
                answers[holdout][name] = telling(name, ask, tell)(rows)
    for name, ask in _prompted(workspace, systems, tell).items():
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


def _trained(workspace: Workspace, systems: _Systems, rows: Sequence[Example]) -> Given:
    """What answers without the base: the linear model, and a larger one whose answers were recorded."""
    found: Given = {}
    if systems.linear:
        found["linear"] = answers_of(systems.linear, rows)
    recorded = workspace.params.evaluate.recorded
    if recorded is not None:
        found["recorded"] = brought_answers(workspace.root / recorded, rows)
    return found


@contextmanager
def _adapters(systems: _Systems) -> Iterator[dict[str, Ask]]:
    """How the champion, if there is one, and the challenger are asked, while their adapters are loaded."""
    answerer, card, champion = systems.answerer, systems.challenger.card, systems.champion
    loaded = {"challenger": systems.challenger.adapter}
    if champion is not None and champion.system == "tuned":
        loaded["champion"] = champion.adapter
    for name, folder in loaded.items():
        answerer.load_adapter(name, folder)
    try:
        asks = {"challenger": _asking(answerer, "challenger", card, card.max_new_tokens)}
        if champion is not None:
            asks = {"champion": _champion_asked(systems, champion)} | asks
        yield asks
    finally:
        for name in loaded:
            answerer.unload_adapter(name)


def _champion_asked(systems: _Systems, champion: Release) -> Ask:
    model = systems.champion_model
    if model is not None:
        return lambda rows: answers_of(model, rows)
    adapter = "champion" if champion.system == "tuned" else None
    return _asking(systems.answerer, adapter, champion, systems.challenger.card.max_new_tokens)


def _asking(answerer: Answerer, adapter: str | None, version: ModelCard | Release, budget: int) -> Ask:
    return lambda rows: answerer.answer(
        adapter,
        [conversation(version.instruction, row, version.shots) for row in rows],
        version.labels,
        budget,
        version.json_schema,
    )


def _prompted(workspace: Workspace, systems: _Systems, tell: Tell) -> dict[str, Ask]:
    """How the base is asked, among the challenger's labels, without and with examples: nothing twice."""
    card = systems.challenger.card
    settings = [card.base_digest, card.precision, card.labels, card.max_new_tokens, card.json_schema]

    def asked(name: str, shots: tuple[Message, ...]) -> Ask:
        def read(row: Example) -> tuple[Message, ...]:
            return conversation(card.instruction, row, shots)

        prompted = card.model_copy(update={"system": "prompted", "shots": shots})
        ask = _asking(systems.answerer, None, prompted, card.max_new_tokens)
        return remembering(workspace.home / "answers", settings, read, telling(name, ask, tell))

    return {"base": asked("base", ())} | ({"few-shot": asked("few-shot", systems.shots)} if systems.shots else {})


def _behind(workspace: Workspace, card: ModelCard, rows: Sequence[Example], answers: Given, balanced: bool) -> Behind:
    """Whether a system is behind the best of those that have answered all rows, by more than `promote.simpler`."""
    params, simpler = workspace.params.evaluate, workspace.params.promote.simpler
    scoring = scoring_of(card.kind, card.output_schema)
    trained = [score_answers(name, rows, answers[name], card.kind, scoring) for name in answers if name in TRAINED]
    best = max(trained, key=lambda scored: sum(scored.scores))

    def behind(places: Sequence[int], given: Sequence[Answer], confidence: float) -> bool:
        some = [rows[place] for place in places]
        theirs, ours = score_answers("rival", some, given, card.kind, scoring).scores, best.at(places)
        samples, seed = params.bootstrap_samples, params.seed
        if not balanced:
            return compare(theirs, ours, confidence=confidence, samples=samples, seed=seed).low > simpler
        labels = [tidy(row.output) for row in some]
        found = compare_balanced(labels, theirs, ours, confidence=confidence, samples=samples, seed=seed)
        return found.low > simpler

    return behind


def _candidates(
    workspace: Workspace, systems: _Systems, held_out: Mapping[str, Sequence[Example]], answers: Mapping[str, Given]
) -> dict[str, Candidate]:
    """What else could serve. The temperature of a prompted one is fitted on its held-out answers: one number."""
    if "frozen" not in held_out:
        return {}
    card = systems.challenger.card
    cards = {
        "linear": card.model_copy(update={"system": "linear", "labels": _linear_labels(systems)}),
        "base": card.model_copy(update={"system": "prompted"}),
        "few-shot": card.model_copy(update={"system": "prompted", "shots": systems.shots}),
    }
    found = {}
    for name, own in cards.items():
        if name in answers["frozen"]:
            temperature = systems.linear_temperature if name == "linear" else _fitted(name, held_out, answers)
            kept = _answered(held_out["frozen"], answers["frozen"][name])
            golden = evaluated(
                [row for row, _ in kept],
                [calibrated(answer, temperature) for _, answer in kept],
                temperature,
                own.max_new_tokens,
                workspace.params.release,
            )
            found[name] = Candidate(own, systems.linear if name == "linear" else None, golden)
    return found


def _linear_labels(systems: _Systems) -> tuple[str, ...] | None:
    return tuple(str(label) for label in systems.linear.classes_) if systems.linear else None


def _fitted(name: str, held_out: Mapping[str, Sequence[Example]], answers: Mapping[str, Given]) -> float:
    kept = [pair for holdout, rows in held_out.items() for pair in _answered(rows, answers[holdout][name])]
    return fit_temperature([answer for _, answer in kept], [row.output for row, _ in kept])


def _answered(rows: Sequence[Example], answers: Sequence[Answer | None]) -> list[tuple[Example, Answer]]:
    return [(row, answer) for row, answer in zip(rows, answers, strict=True) if answer is not None]


def _calibrated(answers: Given, systems: _Systems, candidates: Mapping[str, Candidate]) -> Given:
    """The answers as each system would be served."""
    temperatures = {name: candidate.evaluated.temperature for name, candidate in candidates.items()}
    temperatures["challenger"] = systems.temperature
    if systems.champion is not None:
        temperatures["champion"] = systems.champion.evaluated.temperature
    return {
        name: [answer and calibrated(answer, temperatures.get(name, 1.0)) for answer in given]
        for name, given in answers.items()
    }


def _limits(
    workspace: Workspace,
    systems: _Systems,
    held_out: Mapping[str, Sequence[Example]],
    train: Sequence[Example],
    tell: Tell,
) -> dict[str, Limit]:
    """What else may veto: forgetting, latency, cost, and held-out rows that were trained on.

    Latency and cost are compared with what serves. Nothing does before the first version, and beside a linear model any
    language model is slow: there they are shown and veto nothing.
    """
    rules, params = workspace.params.promote, workspace.params.evaluate
    limits = leakage_limits(leakage(train, [row for rows in held_out.values() for row in rows]), rules)
    answerer, champion = systems.answerer, systems.champion
    texts = as_tokens(answerer.base.tokenizer, general_texts(), answerer.context)
    with _adapters(systems) as asks:
        tell(f"measuring what was forgotten on {len(texts)} general texts")
        before = "champion" if champion is not None and champion.system == "tuned" else None
        losses = losses_within(
            FORGETTING_SECONDS,
            lambda some: answerer.losses(before, some),
            lambda some: answerer.losses("challenger", some),
            texts,
            params.seed,
        )
        limits |= forgetting_limit(*losses, rules, params)
        if champion is not None and (rules.max_slowdown is not None or rules.max_cost is not None):
            tell(f"timing at least {rules.timed_rows} requests")
            pace = _pace(asks, held_out["frozen"], rules.timed_rows, params.seed, tell)
            limits |= pace_limits(pace, "champion", rules, params, vetoes=champion.system != "linear")
    return limits


def _pace(asks: Mapping[str, Ask], rows: Sequence[Example], least: int, seed: int, tell: Tell) -> Pace:
    """The seconds that requests take the challenger and the champion, each as it is served."""
    some = [rows[place] for place in chosen(rows, max(PACE_ROWS, least), seed)]

    def one(name: str) -> Callable[[int], object]:
        return lambda place: asks[name]([some[place]])

    return in_turns(one("champion"), counting(one("challenger"), "latency and cost", least, tell), len(some), least)


def _temperature(workspace: Workspace, answerer: Answerer, challenger: Challenger, tell: Tell) -> float:
    """Of the challenger's confidence, from rows of the validation split, which no figure is reported on."""
    card = challenger.card
    if card.labels is None:
        return 1.0
    rows = _readable(answerer, challenger, read_split(workspace, "validation"), "validation", lambda _: None)
    rows = rows[: workspace.params.train.validation_rows]
    tell(f"challenger: answering {len(rows)} rows of the validation split, which calibrate its confidence")
    answerer.load_adapter("challenger", challenger.adapter)
    try:
        ask = _asking(answerer, "challenger", card, card.max_new_tokens)
        answers = telling("challenger", ask, tell)(rows)
    finally:
        answerer.unload_adapter("challenger")
    return fit_temperature(answers, [row.output for row in rows])


def _log_for_serving(workspace: Workspace, run: Run, systems: _Systems, rows: Sequence[Example], given: Given) -> None:
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


def _shots(
    workspace: Workspace,
    answerer: Answerer,
    challenger: Challenger,
    train: Sequence[Example],
    rows: Sequence[Example],
) -> tuple[Message, ...]:
    """As many examples as the model can read with the longest of the rows; () for none."""
    card, params = challenger.card, workspace.params.evaluate
    asked = [conversation(card.instruction, row) for row in rows]
    if not asked:
        return ()
    longest = rows[max(range(len(rows)), key=lambda place: sum(len(message.content) for message in asked[place]))]
    for count in range(params.few_shot_examples, 0, -1):
        shots = few_shot(train, count, params.seed)
        shown = conversation(card.instruction, longest, shots)
        if shots and answerer.fits(shown, card.labels, card.max_new_tokens):
            return shots
    return ()


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
