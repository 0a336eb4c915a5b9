"""How a system compares with a hosted model's recorded answers, in words."""

from __future__ import annotations

from perpetune.policy.promotion.evidence import HostedComparison


def hosted_sentences(found: HostedComparison, metric: str) -> tuple[str, ...]:
    """The comparison in one line, and a sentence on the rows that it leaves out, if any."""
    line = hosted_line(found.score, found.hosted, found.lead.difference, found.lead.rows, metric, *_ends(found))
    left = (
        f"{found.left_out:,} held-out {'row' if found.left_out == 1 else 'rows'} without a recorded answer of the hosted "
        f"model {'is' if found.left_out == 1 else 'are'} left out of that comparison."
    )
    return (f"{line[:1].upper()}{line[1:]}.", *([left] if found.left_out else []))


def _ends(found: HostedComparison) -> tuple[float, float, float]:
    interval = found.lead.interval
    return interval.low, interval.high, interval.level


def hosted_line(
    score: float, hosted: float, lead: float, rows: int, metric: str, low: float, high: float, level: float
) -> str:
    """As in "your model 91.2%, the hosted one 90.5% on the same 214 rows: +0.7 points (-2.1 to 3.4)".

    All but `rows` are ratios; `lead` is the first score minus the second, between `low` and `high` at this level.
    """
    what = "" if "accuracy" in metric else f" ({metric})"
    at = "" if level == 0.95 else f", {100 * level:g}% interval"
    measure = "balanced accuracy " if metric == "balanced accuracy" else ""
    return (
        f"your model {measure}{score:.1%}, the hosted one {hosted:.1%}{what} on the same {rows:,} "
        f"{'row' if rows == 1 else 'rows'}: {_points(lead):+.1f} points ({_points(low):.1f} to {_points(high):.1f}{at})"
    )


def _points(value: float) -> float:
    """In points of a hundred, and no minus before a zero."""
    return round(100 * value, 1) + 0.0
