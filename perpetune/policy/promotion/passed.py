"""What the gate says of limits, slices and costs that do not reject."""

from __future__ import annotations

from collections.abc import Mapping

from perpetune.params import PromoteParams
from perpetune.policy.promotion.evidence import Limit, MistakeCostEvidence, PromotionEvidence, roles
from perpetune.policy.promotion.harms import holm
from perpetune.policy.promotion.rules import gain_level
from perpetune.policy.promotion.sentences import difference, measured, set_by, slice_count
from perpetune.policy.wording import points, significant

MAX_NAMED = 3  # slices named of those that are too small, and pools
MAX_MEMBERS = 6  # of a pool


def passed(evidence: PromotionEvidence, rules: PromoteParams) -> list[str]:
    """Reasons on limits and slices that do not veto, and on slices that are too small to test."""
    within = [_within_limit(name, limit) for name, limit in evidence.limits.items() if not limit.exceeded]
    small = [*_pools(evidence.pooled, rules), *([_small(evidence.small, rules)] if evidence.small else [])]
    within = [*_reused(evidence, rules), *within]
    if evidence.mistake_costs is not None:
        within = [_mistake_costs(evidence, evidence.mistake_costs), *within]
    adjusted = holm({name: paired.p_worse for name, paired in evidence.slices.items()})
    if not adjusted or min(adjusted.values()) < rules.alpha:
        return [*small, *within]
    lowest = min(evidence.slices, key=lambda name: (evidence.slices[name].difference, name))
    return [
        f"Of {slice_count(len(adjusted))} none is shown to be worse by more than {points(rules.slice_margin)}: the lowest "
        f"difference, on {lowest}, is {difference(evidence.slices[lowest])}.",
        *small,
        *within,
    ]


def _mistake_costs(evidence: PromotionEvidence, costs: MistakeCostEvidence) -> str:
    return (
        f"On the frozen holdout mistakes cost {significant(costs.ours)} for each answer of {evidence.subject} and "
        f"{significant(costs.theirs)} for each of the {evidence.against} (promote.costs): a point of the score is "
        f"{significant(costs.largest / 100)}."
    )


def _reused(evidence: PromotionEvidence, rules: PromoteParams) -> list[str]:
    """That the rows decided before, and what it costs."""
    name = roles(evidence)[1][0]
    known = [(holdout, use) for holdout, use in evidence.uses.items() if use.verdicts]
    paid = significant(gain_level(name, evidence, rules), 2)
    level = f"; the test of a gain on the {name} one is at {paid} instead of {rules.alpha:g}"
    return [f"The {holdout} holdout decided before: {use}{level if holdout == name else ''}." for holdout, use in known]


def _pools(pooled: Mapping[str, tuple[str, ...]], rules: PromoteParams) -> list[str]:
    members = {name: some for name, some in pooled.items() if len(some) > 1}
    if not members:
        return []
    shown = "; ".join(_pool(some) for some in list(members.values())[:MAX_NAMED])
    more = f"; and {len(members) - MAX_NAMED} more pools" if len(members) > MAX_NAMED else ""
    return [
        f"Tested together, because they have fewer than {rules.slice_rows} rows each and similar inputs "
        f"(promote.slice_rows): {shown}{more}."
    ]


def _pool(members: tuple[str, ...]) -> str:
    shown = ", ".join(members[:MAX_MEMBERS])
    return shown + (f" and {len(members) - MAX_MEMBERS} more" if len(members) > MAX_MEMBERS else "")


def _small(small: Mapping[str, int], rules: PromoteParams) -> str:
    smallest = sorted(small, key=lambda name: (small[name], name))[:MAX_NAMED]
    named = ", ".join(f"{name} ({small[name]} row{'s' * (small[name] != 1)})" for name in smallest)
    more = f" and {len(small) - MAX_NAMED} more" if len(small) > MAX_NAMED else ""
    return f"Not tested, because they have fewer than {rules.slice_rows} rows (promote.slice_rows): {named}{more}."


def _within_limit(name: str, limit: Limit) -> str:
    if limit.limit is None:
        unset = f", without a limit{f' ({limit.setting} is not set)' if limit.setting else ''}"
        return f"{measured(name, limit)}{unset}."
    claim = "within" if limit.value <= limit.limit else "not shown to be beyond"
    return f"{measured(name, limit)}, {claim} the limit of {limit.limit:g}{set_by(limit)}."
