"""A summary of an evaluation in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from perpetune.evaluation.costs import Economics, dollars, times_as_much
from perpetune.evaluation.systems import LINEAR, Kind, phrase
from perpetune.statistics.estimate import Estimate
from perpetune.statistics.paired import PairedComparison

AS_GOOD = 0.01
RIVALS = ("champion", "base", "few-shot", "recorded", *LINEAR, "majority")


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
) -> tuple[str, ...]:
    """Sentences about `subject` (the challenger), most important first.

    main: the main score of each system; comparisons: subject minus each other system; unknown: the expected labels that
    a system cannot answer, with their rows; cut_off: each system's answers that ended at `most_tokens`, and all of them;
    measure: the display name of the main score.
    """
    alpha = 1 - confidence
    as_good, needless = _as_good(subject, main, comparisons, alpha)
    others = [other for other in RIVALS if other in comparisons]
    sentences = [
        needless,
        _standing(subject, main[subject], kind, measure),
        *(_against(other, comparisons[other], kind, alpha) for other in others if other != as_good),
        *(_unknown_labels(system, labels) for system, labels in unknown.items() if labels),
        *(
            _cut_off(system, *cut_off[system], most_tokens)
            for system in dict.fromkeys(("champion", subject))
            if system in cut_off
        ),
        _cost(subject, economics),
    ]
    return tuple(sentence for sentence in sentences if sentence)


def _as_good(
    subject: str, main: Mapping[str, Estimate], comparisons: Mapping[str, PairedComparison], alpha: float
) -> tuple[str, str] | tuple[None, None]:
    """The simplest linear model that is as good as the subject, with a sentence about it."""
    for other in LINEAR:
        if paired := comparisons.get(other):
            sentence = no_model_needed(subject, other, main[subject].value, main[other].value, paired, alpha)
            if sentence:
                return other, sentence
    return None, None


def no_model_needed(
    subject: str, other: str, score: float, linear: float, paired: PairedComparison, alpha: float
) -> str | None:
    """The sentence that says so if the linear model `other` is as good as `subject` (the challenger), else None.

    As good: `subject` is at most `AS_GOOD` ahead, and the paired test (two-sided, at `alpha`) does not show it to be
    better. `score` and `linear` are accuracies on the same rows. The sentence owns up to the gain that the rows leave room
    for. If there are so few rows that winning every one would not be significant, nothing is claimed.
    """
    if paired.difference > AS_GOOD or significantly_better(paired, alpha) or 2 * 0.5**paired.n >= alpha:
        return None
    headroom = (
        f" These rows leave room for a gain of {100 * paired.high:.1f} points at most." if paired.high > 0 else ""
    )
    return (
        f"No language model is needed: {phrase(other)} is right on {linear:.1%} of these "
        f"{paired.n:,} rows and {phrase(subject)} on {score:.1%}, {_verdict(paired, alpha)} "
        f"({p_text(paired.p_two_sided)}).{headroom}"
    )


def _verdict(paired: PairedComparison, alpha: float) -> str:
    if paired.difference > 0:
        return "which is not significantly better"
    if paired.difference == 0:
        return "which is no better"
    return "which is significantly worse" if paired.p_two_sided < alpha else "which is no better"


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
