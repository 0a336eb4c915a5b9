"""The rules of the gate: least rows, margins with costs, floors, and the level of a gain."""

from __future__ import annotations

from perpetune.params import PromoteParams
from perpetune.policy.promotion.cost_margin import margin_by_cost
from perpetune.policy.promotion.evidence import PairedEvidence, PromotionEvidence

FIRST_ROWS = 20  # least rows of a holdout for the first trained version
LEAST_GAIN = 0.001  # that is worth finding, however few errors there are


def least_rows(evidence: PromotionEvidence, rules: PromoteParams) -> int:
    """Least rows of a holdout for a verdict; fewer if what serves was never trained, because the test is exact."""
    return min(rules.min_rows, FIRST_ROWS) if evidence.untrained else rules.min_rows


def gain_worth_finding(paired: PairedEvidence, rules: PromoteParams) -> float:
    """`promote.gain`, but at most half of the other system's errors: at 99% nothing could gain five points."""
    return rules.gain if paired.other is None else max(min(rules.gain, (1 - paired.other) / 2), LEAST_GAIN)


def rules_for_costs(evidence: PromotionEvidence, rules: PromoteParams) -> PromoteParams:
    """With costs, the margins are at most what the mistakes of what serves cost: see `margin_by_cost`."""
    theirs = evidence.frozen.other
    if evidence.mistake_costs is None or theirs is None or not rules.margin:
        return rules
    part = margin_by_cost(rules.margin, theirs) / rules.margin
    return rules.model_copy(
        update={"margin": part * rules.margin, "simpler_margin": min(rules.simpler_margin, part * rules.margin / 3)}
    )


def has_floor(label: str, rules: PromoteParams) -> bool:
    """Whether `promote.recall_floors` names the label."""
    return _own_floor(label, rules) is not None


def _own_floor(label: str, rules: PromoteParams) -> float | None:
    return next((floor for name, floor in rules.recall_floors.items() if name.casefold() == label.casefold()), None)


def gain_level(name: str, evidence: PromotionEvidence, rules: PromoteParams) -> float:
    """The level of the test of a gain on a holdout: `promote.alpha` over 1 plus the verdicts that its rows decided before.

    So k verdicts on the same rows call an equal challenger better at most alpha (1 + ln k) times, instead of alpha k; new
    rows restore the level. After decay it is `promote.alpha_after_decay` if that is more: rows that decided before flatter
    the champion, which won on them.
    """
    use = evidence.uses.get(name)
    paid = rules.alpha / (1 + use.verdicts) if use else rules.alpha
    return max(paid, rules.alpha_after_decay) if evidence.is_after_decay else paid


def floor_of(label: str, rules: PromoteParams) -> tuple[float, str] | None:
    """The least recall of a label, and the setting that says so."""
    own = _own_floor(label, rules)
    if own is not None:
        return own, "promote.recall_floors"
    return None if rules.min_recall is None else (rules.min_recall, "promote.min_recall")
