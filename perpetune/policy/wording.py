"""Numbers as text in reasons."""

from __future__ import annotations

import textwrap
from decimal import Decimal

from perpetune.policy.verdict import Interval, Score

WIDTH = 120  # of a verdict's line, at most


def score(score: Score) -> str:
    return f"{100 * score.mean:.1f} ({interval(score.interval)}, {score.rows} rows)"


def interval(interval: Interval) -> str:
    return f"{100 * interval.level:g}% interval {100 * interval.low:.1f} to {100 * interval.high:.1f}"


def points(difference: float) -> str:
    return f"{100 * difference:.1f} points"


def versus_alpha(p_value: float, alpha: float) -> str:
    return f"{'' if p_value < alpha else 'not '}below {significant(alpha)}"


def arrived_unasked(unasked: int, labels: int) -> tuple[str, ...]:
    """A sentence on labels that nobody asked for; () if there are none.

    Who labels of their own accord chooses the answers, mostly wrong ones, and the score of those is biased (Bethlehem,
    International Statistical Review 78 (2010) 161).
    """
    if not unasked or not labels:
        return ()
    return (
        f"{unasked:,} of the {labels:,} labels arrived unasked: whoever sent them chose the answers, so the score may be "
        "biased; those of `perpetune labels` are drawn at random.",
    )


def amount(evidence: float) -> str:
    """The detector's evidence, rounded."""
    if evidence >= 1e9:
        return "more than a billion"
    return f"{evidence:,.0f}" if evidence >= 10 else f"{evidence:.1f}"


def significant(value: float, digits: int = 3) -> str:
    """The value to so many significant digits, without an exponent: 1,230 or 0.000123."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 ** (digits - 1) else f"{Decimal(f'{rounded:.{digits}g}'):f}"


def duration(days: float) -> str:
    """As "1.1 years", or "40 days" if shorter than a year."""
    return f"{days / 365:.1f} years" if days >= 365 else f"{days:.0f} days"


def one_line(text: str, width: int = WIDTH) -> str:
    """On one line of a terminal, cut at a word if it is longer: numbers come first, so that it is words that go."""
    whole = " ".join(text.split())
    return whole if len(whole) <= width else textwrap.shorten(whole, width, placeholder=" …")
