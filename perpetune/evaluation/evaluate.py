"""Evaluation of all systems on the same rows: scores, intervals, paired comparisons and a summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import pandas as pd

from perpetune.errors import PerpetuneError
from perpetune.evaluation.baselines import fitted_answers, majority_answers
from perpetune.evaluation.costs import Economics, economics
from perpetune.evaluation.report.summary import cost_sentences, summarise
from perpetune.evaluation.scores import label_metrics
from perpetune.evaluation.scores.mistake_costs import MistakeCosts, mistake_costs
from perpetune.evaluation.scores.scoring import Scoring, credited_label, scoring_of
from perpetune.evaluation.scores.text_metrics import tidy
from perpetune.evaluation.systems import LINEAR, METRIC_TITLES, RECORDED, Kind, in_order, subject_of
from perpetune.generation.answer import Answer
from perpetune.output_schema import Schema
from perpetune.params import EvaluateParams, PromoteParams
from perpetune.records import Example
from perpetune.statistics.calibration import Calibration, calibration
from perpetune.statistics.estimate import Estimate, estimate_mean
from perpetune.statistics.paired import PairedComparison, compare


@dataclass(frozen=True)
class SystemResults:
    """One system's answers, row by row. `scores` are 1 or 0 for labels, the main metric for free text.

    `positions` are the indices of the answered rows: a system may have answered only a sample.
    """

    system: str
    positions: tuple[int, ...]
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    probabilities: tuple[Mapping[str, float] | None, ...]
    confidences: tuple[float | None, ...]
    scores: tuple[float, ...]
    seconds: tuple[float, ...]
    prompt_tokens: tuple[int, ...]
    completion_tokens: tuple[int, ...]
    finish_reasons: tuple[str, ...] = ()
    batches: tuple[str | None, ...] = ()
    likelihoods: tuple[float | None, ...] = ()

    @property
    def cut_off(self) -> int:
        """The answers that ended at the limit of tokens."""
        return self.finish_reasons.count("length")

    def at(self, positions: Sequence[int]) -> tuple[float, ...]:
        """The scores of these rows, all of which must be answered."""
        scores = dict(zip(self.positions, self.scores, strict=True))
        return tuple(scores[position] for position in positions)


def common_positions(one: SystemResults, other: SystemResults) -> list[int]:
    """The indices of the rows that both have answered."""
    return sorted(set(one.positions) & set(other.positions))


@dataclass(frozen=True)
class Evaluation:
    """The results of all systems. Mappings are by system, in the order of tables and plots.

    `comparisons` are `subject` (the challenger, if there is one) minus each other system, on the rows that both have
    answered. `known_labels` are the labels that a system can answer. `summary` has sentences, most important first.
    `costs` are those of wrong answers, if they are set.
    """

    kind: Kind
    scoring: Scoring
    rows: tuple[Example, ...]
    params: EvaluateParams
    subject: str
    scored: Mapping[str, SystemResults]
    metrics: Mapping[str, Mapping[str, Estimate]]
    calibrations: Mapping[str, Calibration]
    economics: Mapping[str, Economics]
    comparisons: Mapping[str, PairedComparison]
    known_labels: Mapping[str, frozenset[str]]
    summary: tuple[str, ...]
    costs: MistakeCosts | None = None

    def gate_score(self, row: Example, answer: str) -> float:
        """The score of an answer to a row, as the promotion gate counts it."""
        if self.costs is None:
            return self.scoring.score_row(row, answer)
        return 1 - self.costs.of_row(row, answer) / self.costs.largest

    @property
    def mean_mistake_costs(self) -> Mapping[str, float]:
        """The mean cost of an answer by system; {} if no costs are set."""
        return {} if self.costs is None else {name: self.mistake_cost(name, self.costs) for name in self.scored}

    def mistake_cost(self, system: str, costs: MistakeCosts) -> float:
        """The mean cost of the answers of a system."""
        scored = self.scored[system]
        given = zip(scored.positions, scored.texts, strict=True)
        return sum(costs.of_row(self.rows[position], text) for position, text in given) / len(scored.texts)

    @property
    def main_metric(self) -> str:
        """The mean of the rows' scores: accuracy, slot_f1 or token_f1."""
        return self.scoring.main

    @property
    def expected(self) -> tuple[str, ...]:
        """The expected outputs, with normalised whitespace."""
        return tuple(tidy(row.output) for row in self.rows)

    def credited_labels(self, system: str) -> list[str]:
        """The expected label of each answered row; the answer itself, if it is one of several correct labels."""
        scored = self.scored[system]
        return _credited([self.rows[position] for position in scored.positions], scored.texts)

    @property
    def sampled(self) -> tuple[str, ...]:
        """The systems that have answered only a sample of the rows."""
        return tuple(name for name in self.scored if name not in RECORDED and self.unanswered(name))

    @property
    def incomplete(self) -> Mapping[str, int]:
        """How many rows have no recorded answer, by system, if any."""
        return {name: rows for name in RECORDED if name in self.scored and (rows := self.unanswered(name))}

    def unanswered(self, system: str) -> int:
        """How many rows the system has no answer to."""
        return len(self.rows) - len(self.scored[system].positions)

    def expected_of(self, system: str) -> tuple[str, ...]:
        """The expected outputs of the rows that a system has answered."""
        expected = self.expected
        return tuple(expected[position] for position in self.scored[system].positions)

    def flat_metrics(self, holdout: str) -> dict[str, float]:
        """All numbers by their MLflow metric names, such as `frozen/challenger/accuracy`."""
        flat = {f"{holdout}/rows": float(len(self.rows))}
        for system, scored in self.scored.items():
            flat[f"{holdout}/{system}/rows"] = float(len(scored.positions))
            if self.kind == "generation":
                flat[f"{holdout}/{system}/cut_off"] = float(scored.cut_off)
            for metric, estimate in self.metrics[system].items():
                flat[f"{holdout}/{system}/{metric}"] = estimate.value
                flat[f"{holdout}/{system}/{metric}_low"] = estimate.low
                flat[f"{holdout}/{system}/{metric}_high"] = estimate.high
            if system in self.calibrations:
                flat[f"{holdout}/{system}/calibration_error"] = self.calibrations[system].error
            if self.costs is not None:
                flat[f"{holdout}/{system}/mistake_cost"] = self.mistake_cost(system, self.costs)
            for name, value in asdict(self.economics[system]).items() if system in self.economics else ():
                flat[f"{holdout}/{system}/{name}"] = float(value)
        for rival, paired in self.comparisons.items():
            for name in ("difference", "low", "high", "p_value", "p_two_sided"):
                flat[f"{holdout}/{self.subject}-vs-{rival}/{name}"] = float(getattr(paired, name))
        return flat

    def tables(self) -> dict[str, pd.DataFrame]:
        """`comparison`, `economics` and `predictions`; for classification `per_label` and `confusions` too."""
        tables = {
            "comparison": self._comparison_table(),
            "economics": pd.DataFrame([{"system": name, **asdict(cost)} for name, cost in self.economics.items()]),
            "predictions": self._prediction_table(),
        }
        if self.kind == "classification":
            tables["per_label"] = pd.concat(
                [self.label_table(system).assign(system=system) for system in self.scored], ignore_index=True
            )
            tables["confusions"] = pd.concat(
                [self.confusion_table(system).assign(system=system) for system in self.scored], ignore_index=True
            )
        return tables

    def label_table(self, system: str) -> pd.DataFrame:
        """Precision, recall, F1 and support of each label for one system."""
        return label_metrics.label_table(
            self.credited_labels(system), self.scored[system].texts, self.known_labels[system]
        )

    def confusion_table(self, system: str) -> pd.DataFrame:
        """The pairs of expected label and wrong answer of one system, most frequent first."""
        pairs = pd.DataFrame({"expected": self.credited_labels(system), "answered": self.scored[system].texts})
        wrong = pairs[pairs["expected"] != pairs["answered"]]
        counted = wrong.groupby(["expected", "answered"]).size().reset_index(name="rows")
        return counted.sort_values(["rows", "expected", "answered"], ascending=[False, True, True], ignore_index=True)

    def _comparison_table(self) -> pd.DataFrame:
        lines = []
        costs = self.mean_mistake_costs
        for system, estimates in self.metrics.items():
            line: dict[str, object] = {"system": system, "n": len(self.scored[system].positions)}
            if costs:
                line["mistake_cost"] = costs[system]
            if self.kind == "generation":
                line["cut_off"] = self.scored[system].cut_off
            for metric, estimate in estimates.items():
                line |= {metric: estimate.value, f"{metric}_low": estimate.low, f"{metric}_high": estimate.high}
            if paired := self.comparisons.get(system):
                line |= {f"{self.subject}_minus_this": paired.difference, "difference_low": paired.low}
                line |= {"difference_high": paired.high, "p_two_sided": paired.p_two_sided, "test": paired.method}
            lines.append(line)
        return pd.DataFrame(lines)

    def _prediction_table(self) -> pd.DataFrame:
        columns: dict[str, Sequence[object]] = {
            "id": [row.id for row in self.rows],
            "input": [row.input for row in self.rows],
            "expected": self.expected,
        }
        for system, scored in self.scored.items():
            columns |= {
                f"{system}_answer": self._spread(scored, scored.texts),
                f"{system}_score": self._spread(scored, scored.scores),
            }
            if any(confidence is not None for confidence in scored.confidences):
                columns[f"{system}_confidence"] = self._spread(scored, scored.confidences)
        return pd.DataFrame(columns)

    def _spread(self, scored: SystemResults, values: Sequence[object]) -> list[object]:
        """The values by row, None for rows that were not answered."""
        found = dict(zip(scored.positions, values, strict=True))
        return [found.get(position) for position in range(len(self.rows))]


def evaluate(
    rows: Sequence[Example],
    answers_by_system: Mapping[str, Sequence[Answer | None]],
    train: Sequence[Example],
    kind: Kind,
    params: EvaluateParams,
    schema: Schema | None = None,
    rules: PromoteParams | None = None,
) -> Evaluation:
    """Evaluate every system on the same rows, with baselines fitted on `train`.

    `answers_by_system` maps systems such as "base", "few-shot", "champion" and "challenger" to one answer per row, None
    for rows without one; a system without answers is dropped. "majority" and, for classification, "linear" are added if
    they are missing. `schema` is the output schema; `rules` has the margin within which a linear model replaces a
    language model, and the gain and the power with which more rows would tell (None: the defaults).

    Raises PerpetuneError if there are no rows; ValueError if there is no system, a system has not one entry per row,
    or the subject has not answered all rows.
    """
    if not answers_by_system:
        raise ValueError("there is no system to evaluate")
    if not rows:
        raise PerpetuneError("there are no rows to evaluate on", do="add examples, or enlarge the holdout")
    answers = _with_baselines(rows, answers_by_system, train, kind, params.seed)
    for system, given in answers.items():
        if len(given) != len(rows):
            raise ValueError(f"{system} gave {len(given)} answers to {len(rows)} rows")
    trained_labels = frozenset(tidy(example.output) for example in train)
    scoring = scoring_of(kind, schema)
    scored = {
        system: score_answers(system, rows, answers[system], kind, scoring)
        for system in in_order(answers)
        if any(answer is not None for answer in answers[system])
    }
    subject = subject_of([system for system in answers_by_system if system in scored])
    if len(scored[subject].positions) < len(rows):
        raise ValueError(f"{subject} has answered {len(scored[subject].positions)} of {len(rows)} rows")
    known = {system: _known_labels(scored[system], trained_labels) for system in scored}
    estimates = {system: _estimates(scored[system], rows, kind, scoring, params) for system in scored}
    comparisons = {rival: _compared(scored[rival], scored[subject], params) for rival in scored if rival != subject}
    linear = {
        name: {model: _compared(scored[name], scored[model], params) for model in _language_models(scored)}
        for name in LINEAR
        if name in scored
    }
    costs = {
        system: economics(_given(answers[system]), params.dollars_per_hour)
        for system in scored
        if system not in RECORDED
    }
    found = Evaluation(
        kind=kind,
        scoring=scoring,
        rows=tuple(rows),
        params=params,
        subject=subject,
        scored=scored,
        metrics=estimates,
        calibrations=_calibrations(scored, rows, params) if kind == "classification" else {},
        economics=costs,
        comparisons=comparisons,
        known_labels=known,
        summary=summarise(
            subject=subject,
            main={system: estimates[system][scoring.main] for system in scored},
            comparisons=comparisons,
            economics=costs,
            unknown={s: _unknown_labels(rows, known[s]) for s in answers_by_system if s in known}
            if kind == "classification"
            else {},
            cut_off={system: (scored[system].cut_off, len(scored[system].positions)) for system in scored},
            most_tokens=params.max_new_tokens,
            kind=kind,
            measure=METRIC_TITLES[scoring.main],
            confidence=params.confidence,
            linear=linear,
            rules=rules or PromoteParams(),
        ),
        costs=mistake_costs(rules.costs) if rules and kind == "classification" else None,
    )
    return replace(found, summary=(*found.summary, *cost_sentences(subject, found.mean_mistake_costs)))


def _language_models(systems: Iterable[str]) -> list[str]:
    """The systems that a linear model could replace; a champion counts, whatever it is."""
    return [system for system in systems if system not in (*LINEAR, "majority")]


def _with_baselines(
    rows: Sequence[Example],
    answers_by_system: Mapping[str, Sequence[Answer | None]],
    train: Sequence[Example],
    kind: Kind,
    seed: int,
) -> dict[str, Sequence[Answer | None]]:
    answers = dict(answers_by_system)
    if train:
        answers.setdefault("majority", majority_answers(train, rows, kind))
        if kind == "classification" and "linear" not in answers:
            answers["linear"] = fitted_answers(train, rows, seed)
    return answers


def _compared(rival: SystemResults, subject: SystemResults, params: EvaluateParams) -> PairedComparison:
    positions = common_positions(rival, subject)
    return compare(
        rival.at(positions),
        subject.at(positions),
        confidence=params.confidence,
        samples=params.bootstrap_samples,
        seed=params.seed,
    )


def _given(answers: Sequence[Answer | None]) -> list[Answer]:
    return [answer for answer in answers if answer is not None]


def score_answers(
    system: str, rows: Sequence[Example], given: Sequence[Answer | None], kind: Kind, scoring: Scoring
) -> SystemResults:
    """A system's answers with their scores."""
    positions = tuple(position for position, answer in enumerate(given) if answer is not None)
    answers, rows = _given(given), [rows[position] for position in positions]
    texts = tuple(tidy(answer.text) if kind == "classification" else answer.text for answer in answers)
    return SystemResults(
        system=system,
        positions=positions,
        ids=tuple(row.id for row in rows),
        texts=texts,
        probabilities=tuple(_tidy_keys(answer.probabilities) for answer in answers),
        confidences=tuple(answer.confidence for answer in answers),
        likelihoods=tuple(answer.likelihood for answer in answers),
        scores=tuple(scoring.score_row(row, text) for row, text in zip(rows, texts, strict=True)),
        seconds=tuple(answer.seconds for answer in answers),
        prompt_tokens=tuple(answer.prompt_tokens for answer in answers),
        completion_tokens=tuple(answer.completion_tokens for answer in answers),
        finish_reasons=tuple(answer.finish_reason for answer in answers),
        batches=tuple(answer.batch for answer in answers),
    )


def _tidy_keys(probabilities: Mapping[str, float] | None) -> Mapping[str, float] | None:
    return {tidy(label): probability for label, probability in probabilities.items()} if probabilities else None


def _known_labels(scored: SystemResults, trained_labels: frozenset[str]) -> frozenset[str]:
    """The labels with probabilities in a system's answers, or else those of the training rows."""
    return frozenset(label for row in scored.probabilities if row for label in row) or trained_labels


def _unknown_labels(rows: Sequence[Example], known: frozenset[str]) -> dict[str, int]:
    """The expected labels that a system cannot answer, with the number of rows that it therefore gets wrong."""
    answerable = {id(row) for row in rows if any(tidy(label) in known for label in row.right_outputs)}
    return label_metrics.unknown_labels([tidy(row.output) for row in rows if id(row) not in answerable], known)


def _credited(rows: Sequence[Example], texts: Sequence[str]) -> list[str]:
    return [credited_label(row, text) for row, text in zip(rows, texts, strict=True)]


def _estimates(
    scored: SystemResults, rows: Sequence[Example], kind: Kind, scoring: Scoring, params: EvaluateParams
) -> dict[str, Estimate]:
    confidence, samples, seed = params.confidence, params.bootstrap_samples, params.seed
    rows = [rows[position] for position in scored.positions]
    if kind == "classification":
        expected = _credited(rows, scored.texts)
        return {
            "accuracy": label_metrics.accuracy(expected, scored.texts, confidence=confidence),
            "macro_f1": label_metrics.macro_f1(
                expected, scored.texts, confidence=confidence, samples=samples, seed=seed
            ),
        }
    return {
        name: estimate_mean(
            [scoring.best(name, row, text) for row, text in zip(rows, scored.texts, strict=True)],
            confidence=confidence,
            samples=samples,
            seed=seed,
        )
        for name in scoring.metrics
    }


def _calibrations(
    scored: Mapping[str, SystemResults], rows: Sequence[Example], params: EvaluateParams
) -> dict[str, Calibration]:
    found = {
        system: calibration(
            _credited([rows[position] for position in one.positions], one.texts),
            one.texts,
            one.probabilities,
            confidence=params.confidence,
            samples=params.bootstrap_samples,
            seed=params.seed,
        )
        for system, one in scored.items()
    }
    return {system: one for system, one in found.items() if one}
