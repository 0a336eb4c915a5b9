"""A summary of an evaluation in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from perpetune.evaluation.costs import Economics, times_as_much
from perpetune.evaluation.economics.wording import dollars
from perpetune.evaluation.systems import LINEAR, Kind, phrase
from perpetune.params import PromoteParams
from perpetune.policy.wording import significant
from perpetune.statistics.estimate import Estimate
from perpetune.statistics.paired import PairedComparison
from perpetune.statistics.power import rows_to_tell

RIVALS = ("champion", "base", "few-shot", "hosted", "recorded", *LINEAR, "majority")


def summarise(
    *,
    subject: str,
    main: Mapping[str, Estimate],
    comparisons: Mapping[str, PairedComparison],
    economics: Mapping[str, Economics],
    unknown: Mapping[str, Mapping[str, int]],
    cut_off: Mapping[str, tuple[int, int]],
    most_tokens: int,
    kind: Kind,
    measure: str,
    confidence: float,
    linear: Mapping[str, Mapping[str, PairedComparison]],
    rules: PromoteParams,
) -> tuple[str, ...]:
    """Sentences about `subject` (the challenger), most important first.

    main: the main score of each system; comparisons: subject minus each other system; unknown: the expected labels that
    a system cannot answer, with their rows; cut_off: each system's answers that ended at `most_tokens`, and all of them;
    measure: the display name of the main score; linear: for each linear model the language models minus it.
    """
    alpha = 1 - confidence
    found = _linear_model(main, linear, alpha, rules)
    named, sentence, needless = found or (None, None, False)
    others = [other for other in RIVALS if other in comparisons]
    sentences: list[str | None] = [
        sentence if needless else None,
        _standing(subject, main[subject], kind, measure),
        None if needless else sentence,
        *(_against(other, comparisons[other], kind, alpha) for other in others if other != named),
        *(_unknown_labels(system, labels) for system, labels in unknown.items() if labels),
        *(
            _cut_off(system, *cut_off[system], most_tokens)
            for system in dict.fromkeys(("champion", subject))
            if system in cut_off
        ),
        _cost(subject, economics),
    ]
    return tuple(each for each in sentences if each)


def cost_sentences(subject: str, costs: Mapping[str, float]) -> Iterator[str]:
    """What an answer of `subject` costs by `promote.costs`, beside the other systems; nothing if no costs are set."""
    others = [other for other in RIVALS if other in costs]
    if subject in costs:
        beside = ", ".join(f"of {phrase(other)} {significant(costs[other])}" for other in others)
        yield f"Mistakes cost {significant(costs[subject])} for each answer of {phrase(subject)} (promote.costs)" + (
            f", {beside}." if beside else "."
        )


def _linear_model(
    main: Mapping[str, Estimate],
    linear: Mapping[str, Mapping[str, PairedComparison]],
    alpha: float,
    rules: PromoteParams,
) -> tuple[str, str, bool] | None:
    """The linear model that a sentence is about, the sentence, and whether it says that no language model is needed.

    It says so of the simplest linear model that is shown to be not worse than any language model by the margin; else, if
    none is shown to be better than the best linear model, how many rows would tell.
    """
    for other, models in linear.items():
        if models and (sentence := no_model_needed(other, models, main, alpha, rules.margin)):
            return other, sentence, True
    known = [other for other, models in linear.items() if models]
    if not known:
        return None
    best = max(known, key=lambda other: main[other].value)
    sentence = not_shown_better(best, linear[best], main, alpha, rules)
    return (best, sentence, False) if sentence else None


def no_model_needed(
    other: str,
    models: Mapping[str, PairedComparison],
    main: Mapping[str, Estimate],
    alpha: float,
    margin: float,
) -> str | None:
    """The sentence that says so if the linear model `other` is shown to be not worse than every language model, else None.

    models: each language model minus the linear model, on the rows that both answered. Not worse: the upper end of the
    difference is below `margin` (a non-inferiority test at half of `alpha`; Piaggio et al., JAMA 2012;308:2594). A test
    that finds no difference shows nothing of the kind.
    """
    if not all(paired.high < margin for paired in models.values()):
        return None
    best = _best(models)
    paired = models[best]
    return (
        f"No language model is needed: {phrase(other)} is right on {main[other].value:.1%} of these "
        f"{paired.n:,} rows and {phrase(best)} on {main[best].value:.1%}, {_verdict(paired, alpha)} "
        f"({p_text(paired.p_two_sided)}). These rows leave room for a gain of {max(0.0, 100 * paired.high):.1f} points at "
        f"most, less than the margin of {100 * margin:g}."
    )


def not_shown_better(
    other: str,
    models: Mapping[str, PairedComparison],
    main: Mapping[str, Estimate],
    alpha: float,
    rules: PromoteParams,
) -> str | None:
    """That no language model is shown to be better than the linear model, and the rows that would tell; None if one is."""
    if any(significantly_better(paired, alpha) for paired in models.values()):
        return None
    best = _best(models)
    paired = models[best]
    needed = rows_to_tell(paired.discordance, gain=rules.gain, margin=rules.margin, alpha=alpha / 2, power=rules.power)
    more = f"about {needed - paired.n:,} more labels would tell" if needed > paired.n else "more labels would tell"
    return (
        f"{_capitalised(best)} is not yet shown to be better than {phrase(other)}: {main[best].value:.1%} against "
        f"{main[other].value:.1%} of {paired.n:,} rows ({_interval(paired)}, {p_text(paired.p_two_sided)}); {more}."
    )


def _best(models: Mapping[str, PairedComparison]) -> str:
    """The best language model of those that answered the most rows: others stopped early because they were behind."""
    return max(models, key=lambda name: (models[name].n, models[name].difference))


def _interval(paired: PairedComparison) -> str:
    return f"difference {100 * paired.low:.1f} to {100 * paired.high:.1f} points".replace("-", "\N{MINUS SIGN}")


def _verdict(paired: PairedComparison, alpha: float) -> str:
    if paired.difference > 0:
        return "which is not better by the margin"
    return "which is significantly worse" if paired.difference and paired.p_two_sided < alpha else "which is no better"


def significantly_better(paired: PairedComparison, alpha: float) -> bool:
    """Whether the paired test shows the second system to be better."""
    return paired.difference > 0 and paired.p_two_sided < alpha


def p_text(p: float) -> str:
    """A p-value as text."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _standing(subject: str, estimate: Estimate, kind: Kind, measure: str) -> str:
    name, rows = _capitalised(subject), f"{estimate.n:,} row{'s' if estimate.n != 1 else ''}"
    if kind == "classification":
        return f"{name} is right on {estimate.value:.1%} of {rows} ({estimate.low:.1%} to {estimate.high:.1%})."
    return f"{name} has a {measure[0].lower()}{measure[1:]} of {estimate.value:.3f} on {rows} ({estimate.low:.3f} to {estimate.high:.3f})."


def _capitalised(system: str) -> str:
    name = phrase(system)
    return name[:1].upper() + name[1:]


def _against(other: str, paired: PairedComparison, kind: Kind, alpha: float) -> str:
    # Accuracies differ by points of a hundred, F1 scores by thousandths.
    scale, form, unit = (100, ".1f", " points") if kind == "classification" else (1, ".3f", "")
    low, high, size = (format(scale * number, form) for number in (paired.low, paired.high, abs(paired.difference)))
    evidence = f"{low} to {high}, {p_text(paired.p_two_sided)}".replace("-", "\N{MINUS SIGN}")
    if paired.difference == 0:
        return f"It scores the same as {phrase(other)} ({evidence})."
    direction = "better" if paired.difference > 0 else "worse"
    doubt = "" if paired.p_two_sided < alpha else ", not significant"
    return f"It is {size}{unit} {direction} than {phrase(other)} ({evidence}){doubt}."


def _unknown_labels(system: str, labels: Mapping[str, int]) -> str:
    named = ", ".join(f"“{label}” ({rows:,})" for label, rows in list(labels.items())[:5])
    more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
    rows = sum(labels.values())
    return (
        f"{_capitalised(system)} cannot answer {named}{more}: "
        f"it gets {'these' if rows != 1 else 'this'} {rows:,} row{'s' if rows != 1 else ''} wrong."
    )


def _cut_off(system: str, count: int, rows: int, most_tokens: int) -> str | None:
    if not count:
        return None
    return (
        f"{_capitalised(system)} was cut off in {count:,} of {rows:,} answers, at {most_tokens} tokens "
        "(evaluate.max_new_tokens)."
    )


def _cost(subject: str, economics: Mapping[str, Economics]) -> str | None:
    """The cost of 1,000 requests against prompting the base model, with examples if that was evaluated."""
    prompted = next((name for name in ("few-shot", "base") if name in economics and name != subject), None)
    subject_cost = economics[subject]
    if subject_cost.dollars_per_1000 <= 0:
        return None
    cost = f"1,000 requests cost {dollars(subject_cost.dollars_per_1000)} with {phrase(subject)}"
    if prompted is None:
        return cost + "."
    other = economics[prompted]
    return f"{cost} and {dollars(other.dollars_per_1000)} with {phrase(prompted)}{_ratio(other, subject_cost)}."


def _ratio(other: Economics, subject_cost: Economics) -> str:
    times = times_as_much(other, subject_cost)
    return f" ({times:.2g} times as much)" if times and not 0.95 < times < 1.05 else ""
