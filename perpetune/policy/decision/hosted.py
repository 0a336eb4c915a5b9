"""The comparison with a hosted model in one line, read from a decision record, which may be older or newer than this file."""

from __future__ import annotations

from perpetune.policy.decision.numbers import count, ends, number, part, text
from perpetune.policy.decision.record import Decision
from perpetune.policy.promotion.hosted import hosted_line


def hosted_in(decision: Decision) -> str | None:
    """What serves after this decision against the hosted model; None if there are no recorded answers."""
    serving = decision.system or text(decision.evidence, "against") or ""
    found = part(part(decision.evidence, "hosted"), serving)
    lead = part(found, "lead")
    values = [number(found, "score"), number(found, "hosted"), number(lead, "difference")]
    both, rows = ends(lead.get("interval")), count(lead, "rows")
    if both is None or rows is None or None in values:
        return None
    score, hosted, difference = (value or 0.0 for value in values)
    level = number(part(lead, "interval"), "level") or 0.95
    return hosted_line(score, hosted, difference, rows, text(decision.evidence, "metric") or "", *both, level)
