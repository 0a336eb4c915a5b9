"""Which system is promoted: the tuned challenger, or a simpler one that is as good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from perpetune.params import PromoteParams
from perpetune.policy.promotion.evidence import PairedEvidence, PromotionEvidence, Rival
from perpetune.policy.promotion.gate import should_promote
from perpetune.policy.promotion.harms import harms
from perpetune.policy.promotion.hosted import hosted_sentences
from perpetune.policy.promotion.rules import least_rows, rules_for_costs
from perpetune.policy.verdict import Verdict
from perpetune.policy.wording import interval, points
from perpetune.statistics.power import labels_to_collect, rows_to_tell

System = Literal["challenger", "linear", "embeddings", "base", "few-shot"]
SimpleSystem = Literal["linear", "embeddings", "base", "few-shot"]

SIMPLEST_FIRST: tuple[SimpleSystem, ...] = ("linear", "embeddings", "base", "few-shot")
PROMPTED: tuple[SimpleSystem, ...] = ("base", "few-shot")
SERVED = {
    "challenger": "the tuned model",
    "linear": "the linear model",
    "embeddings": "the linear model on sentence embeddings",
    "base": "the prompted base",
    "few-shot": "the base prompted with examples",
}
NAMES = {
    "challenger": "the tuned model",
    "majority": "the majority answer",
    "linear": "TF-IDF with logistic regression",
    "embeddings": "logistic regression on sentence embeddings",
    "base": "the base model",
    "few-shot": "the base model with examples",
    "recorded": "the recorded model",
    "hosted": "the hosted model",
    "champion": "the champion",
}


@dataclass(frozen=True)
class Choice:
    """The verdict, and the system that it promotes; None if none."""

    verdict: Verdict
    system: System | None


def choose(evidence: PromotionEvidence, rules: PromoteParams) -> Choice:
    """`_chosen`, with how what then serves compares with the hosted model among the reasons, if that is known."""
    rules = rules_for_costs(evidence, rules)
    choice = _chosen(evidence, rules)
    serving = choice.system or evidence.against
    told = hosted_sentences(evidence.hosted[serving], evidence.metric) if serving in evidence.hosted else ()
    return replace(choice, verdict=replace(choice.verdict, reasons=(*choice.verdict.reasons, *told)))


def _chosen(evidence: PromotionEvidence, rules: PromoteParams) -> Choice:
    """Decide whether a system is promoted, and which.

    The challenger is tested against what serves. If it passes, a simpler rival at most `simpler` behind replaces it. If it
    fails and no tuned model serves (nothing trained, or a linear model, which every refresh fits again), the best rival
    is tested in the same way. If nothing trained serves and no test passes, the best estimate decides. If nothing serves
    at all, the prompted base is promoted. A system with shown harm is never chosen, nor one that is no better than the
    majority answer.
    """
    tested = _tested(evidence, rules)
    sound = _eligible(evidence, rules)
    if tested.outcome == "promote":
        everybody: dict[System, float] = {"challenger": 0.0, **sound}
        return _promoted(_simplest(everybody, rules), tested, evidence, rules)
    if not (evidence.untrained or evidence.refitted):
        return Choice(_with_rivals(tested, evidence, rules), None)
    best = _simplest(sound, rules) if sound else None
    if best is not None and _passes(best, evidence, rules):
        return _promoted(best, tested, evidence, rules)
    likeliest = _best_estimate(sound, evidence, rules) if evidence.untrained else None
    if likeliest is not None:
        return _by_estimate(likeliest, tested, evidence, rules)
    if evidence.against == "base":
        return _serve_prompted_base(tested, evidence, rules)
    return Choice(_with_rivals(tested, evidence, rules), None)


def _tested(evidence: PromotionEvidence, rules: PromoteParams) -> Verdict:
    """The gate's verdict on the challenger; the first trained version must also beat the majority answer."""
    tested = should_promote(evidence, rules)
    if tested.outcome != "promote" or not evidence.untrained or _beats_majority("challenger", evidence, rules):
        return tested
    majority = evidence.rivals["majority"]
    no_better = (
        f"The tuned model is not more than {100 * rules.simpler_margin:g} points (promote.simpler_margin) better than the majority "
        f"answer: {_versus('majority', majority, evidence)}."
    )
    return Verdict("reject", (no_better, *tested.reasons), tested.rule)


def _eligible(evidence: PromotionEvidence, rules: PromoteParams) -> dict[System, float]:
    """The lead of each rival that may serve over the challenger, the simplest first."""
    return {
        name: -evidence.rivals[name].lead.difference
        for name in SIMPLEST_FIRST
        if (rival := evidence.rivals.get(name)) is not None
        and rival.gate is not None
        and not harms(rival.gate, rules)
        and _beats_majority(name, evidence, rules)
    }


def _beats_majority(name: System, evidence: PromotionEvidence, rules: PromoteParams) -> bool:
    majority = evidence.rivals.get("majority")
    lead = 0.0 if name == "challenger" else -evidence.rivals[name].lead.difference
    return majority is None or lead + majority.lead.difference > rules.simpler_margin


def _simplest(ahead: Mapping[System, float], rules: PromoteParams) -> System:
    """The simplest system that is at most `simpler` behind the best."""
    best = max(ahead.values())
    order: tuple[System, ...] = (*SIMPLEST_FIRST, "challenger")
    return next(name for name in order if name in ahead and ahead[name] >= best - rules.simpler_margin)


def _passes(name: System, evidence: PromotionEvidence, rules: PromoteParams) -> bool:
    gate = evidence.rivals[name].gate
    return gate is not None and should_promote(gate, rules).outcome == "promote"


def _best_estimate(sound: Mapping[System, float], evidence: PromotionEvidence, rules: PromoteParams) -> System | None:
    """The best system by its estimate, if that is more than `simpler` above what serves; else None."""
    ahead: dict[System, float] = dict(sound)
    if not harms(evidence, rules) and _beats_majority("challenger", evidence, rules):
        ahead["challenger"] = 0.0
    if not ahead:
        return None
    best = _simplest(ahead, rules)
    found = _against_what_serves(best, evidence)
    enough = found.rows >= least_rows(evidence, rules)
    return best if enough and found.difference > rules.simpler_margin else None


def _against_what_serves(name: System, evidence: PromotionEvidence) -> PairedEvidence:
    gate = evidence if name == "challenger" else evidence.rivals[name].gate
    assert gate is not None
    return gate.frozen


def _by_estimate(name: System, tested: Verdict, evidence: PromotionEvidence, rules: PromoteParams) -> Choice:
    found = _against_what_serves(name, evidence)
    why = (
        f"No trained version serves yet, so the best estimate decides: {SERVED[name]} is {100 * found.difference:.1f} "
        f"points above what serves ({interval(found.interval)}, {found.rows:,} rows, one-sided p {found.p_value:.3g})."
    )
    chosen = _promoted(name, tested, evidence, rules)
    first, *others = chosen.verdict.reasons
    return Choice(replace(chosen.verdict, reasons=(first, why, *others)), name)


def _promoted(name: System, tested: Verdict, evidence: PromotionEvidence, rules: PromoteParams) -> Choice:
    if name == "challenger":
        headline = _tuned(evidence, rules)
        reasons = (*([headline] if headline else []), *tested.reasons, *_recorded(evidence))
        return Choice(Verdict("promote", reasons, _rule(tested, rules)), name)
    rival = evidence.rivals[name]
    assert rival.gate is not None
    tested_rival = should_promote(rival.gate, rules)
    headline = f"Serve {SERVED[name]}: {_versus(name, rival, evidence)}{_conclusion(name, rival, evidence, rules)}."
    why = [
        f"The tuned model was not promoted: {reason}" for reason in tested.reasons[:1] if tested.outcome != "promote"
    ]
    return Choice(
        Verdict("promote", (headline, *why, *tested_rival.reasons, *_recorded(evidence)), _rule(tested, rules)), name
    )


def _conclusion(name: System, rival: Rival, evidence: PromotionEvidence, rules: PromoteParams) -> str:
    """What the numbers show of the need for more than this system; a gain that is not shown is no equality."""
    if _shown_not_worse(rival, rules):
        needless = "no training is needed" if name in PROMPTED else "no language model is needed"
        return f", so {needless}: it is not worse by {points(rules.margin)} (promote.margin)"
    undecided = _undecided(rival, evidence, rules)
    return f"; {undecided}" if undecided else ""


def _shown_not_worse(rival: Rival, rules: PromoteParams) -> bool:
    """Whether every language model that it would replace is shown to be ahead by less than the margin.

    Each test is at the level of the intervals; as all must pass, the error stays at it (intersection-union test; Berger,
    Technometrics 24 (1982) 295).
    """
    return all(lead.interval.high < rules.margin for lead in (rival.lead, *rival.models.values()))


def _undecided(rival: Rival, evidence: PromotionEvidence, rules: PromoteParams) -> str | None:
    """That a language model may or may not be better, and the labels that would tell; None if one is shown to be."""
    leads = {"challenger": rival.lead, **rival.models}
    if any(lead.difference > 0 and lead.p_value < rules.alpha for lead in leads.values()):
        return None
    best = max(leads, key=lambda name: leads[name].interval.high)
    return f"{NAMES[best]} is not yet shown to be better, {_labels_to_tell(leads[best], evidence, rules)}"


def _labels_to_tell(lead: PairedEvidence, evidence: PromotionEvidence, rules: PromoteParams) -> str:
    needed = rows_to_tell(
        lead.discordance, gain=rules.gain, margin=rules.margin, alpha=(1 - lead.interval.level) / 2, power=rules.power
    )
    if needed <= lead.rows:
        return f"though {lead.rows:,} rows were enough to tell a gain of {points(rules.gain)}"
    labels = labels_to_collect(needed - lead.rows, min(1.0, sum(evidence.label_ratios.values())) or 1.0)
    return f"{labels or needed - lead.rows:,} more labels would tell"


def _serve_prompted_base(tested: Verdict, evidence: PromotionEvidence, rules: PromoteParams) -> Choice:
    """Promote the prompted base: nothing serves yet and nothing is shown to be better."""
    name = _better_prompted(evidence, rules)
    rival = evidence.rivals.get(name)
    why = f": nothing is shown to be better, and {_versus(name, rival, evidence)}" if rival else ""
    headline = f"Serve {SERVED[name]}{why}{_equal_rival(evidence, rules, but=name)}."
    return Choice(Verdict("promote", (headline, *tested.reasons, *_recorded(evidence)), _rule(tested, rules)), name)


def _better_prompted(evidence: PromotionEvidence, rules: PromoteParams) -> SimpleSystem:
    """The base with examples if it is more than `simpler` better and does no harm, otherwise without."""
    shown = evidence.rivals.get("few-shot")
    if shown is None or shown.gate is None or harms(shown.gate, rules):
        return "base"
    return "few-shot" if shown.gate.frozen.difference > rules.simpler_margin else "base"


def _with_rivals(tested: Verdict, evidence: PromotionEvidence, rules: PromoteParams) -> Verdict:
    """The verdict; its first reason also names a simpler system that is about as good as the challenger, if any is."""
    first, *others = tested.reasons
    first = f"{first.removesuffix('.')}{_equal_rival(evidence, rules)}."
    return replace(tested, reasons=(first, *others, *_recorded(evidence)))


def _equal_rival(evidence: PromotionEvidence, rules: PromoteParams, but: str = "") -> str:
    near = [
        name
        for name in SIMPLEST_FIRST
        if name != but and name in evidence.rivals and evidence.rivals[name].lead.difference <= rules.simpler_margin
    ]
    if not near:
        return ""
    rival = evidence.rivals[near[0]]
    scores = f"{_number(rival.score, evidence)} against {_number(rival.challenger, evidence)}"
    seen = f"{scores} on {rival.lead.rows:,} rows"
    if rival.lead.interval.high < rules.margin:
        return f"; {NAMES[near[0]]} is not worse than the tuned model by {points(rules.margin)} ({seen})"
    undecided = _undecided(replace(rival, models={}), evidence, rules)
    return f"; beside {NAMES[near[0]]} ({seen}) {undecided}" if undecided else ""


def _tuned(evidence: PromotionEvidence, rules: PromoteParams) -> str | None:
    """The challenger compared with its best rival; None if it has none."""
    others = {name: rival for name, rival in evidence.rivals.items() if name not in ("recorded", "hosted")}
    if not others:
        return None
    name = min(others, key=lambda name: others[name].lead.difference)
    rival = others[name]
    near = rival.lead.difference <= rules.simpler_margin
    behind = f"at most {points(rules.simpler_margin)} behind"
    claim = f"is {behind} on these rows but does harm or cannot serve" if near else "is the best rival"
    return (
        f"Serve the tuned model: it {_scores(rival.challenger, rival.lead.rows, evidence)}; {NAMES.get(name, name)} {claim} "
        f"with {_number(rival.score, evidence)} ({_gap(rival, 1)})."
    )


def _recorded(evidence: PromotionEvidence) -> list[str]:
    """The score of a hosted or larger model on the same rows, for comparison: it cannot be promoted."""
    rival = evidence.rivals.get("recorded")
    return [f"For comparison, {_versus('recorded', rival, evidence)}."] if rival else []


def _versus(name: str, rival: Rival, evidence: PromotionEvidence) -> str:
    """The scores of a rival and the challenger on the same rows, and the difference with its interval."""
    return (
        f"{NAMES[name]} {_scores(rival.score, rival.lead.rows, evidence)}, the tuned model "
        f"{_number(rival.challenger, evidence)} ({_gap(rival, -1)})"
    )


def _gap(rival: Rival, sign: int) -> str:
    """The difference challenger minus rival, or rival minus challenger if `sign` is -1."""
    lead = rival.lead
    found = lead.interval if sign > 0 else replace(lead.interval, low=-lead.interval.high, high=-lead.interval.low)
    return f"difference {100 * sign * lead.difference + 0.0:+.1f} points, {interval(found)}"


def _scores(value: float, rows: int, evidence: PromotionEvidence) -> str:
    if evidence.metric == "accuracy":
        return f"is right on {value:.1%} of {rows:,} rows"
    return f"has a {evidence.metric} of {_number(value, evidence)} on {rows:,} rows"


def _number(value: float, evidence: PromotionEvidence) -> str:
    return f"{value:.1%}" if "accuracy" in evidence.metric else f"{value:.3f}"


def _rule(tested: Verdict, rules: PromoteParams) -> str:
    return (
        f"{tested.rule.removesuffix('.')}; a simpler system at most {100 * rules.simpler_margin:g} points behind "
        "(promote.simpler_margin) is promoted instead."
    )
