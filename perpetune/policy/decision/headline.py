"""A verdict in one line: the outcome, its number, the interval and the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perpetune.policy.decision.record import Decision

NAMES = {"few-shot": "base with examples", "linear": "linear model", "embeddings": "linear model on embeddings"}


def headline(decision: Decision) -> str:
    """As in "promote version 3: +27.0 points (95% interval 17.9 to 35.3, n=111) against the champion, recent holdout".

    A record without numbers gives its decisive reason instead.
    """
    number = _number(decision)
    return f"{_subject(decision)}: {number or decision.reason}"


def _subject(decision: Decision) -> str:
    version = decision.ids.model_version
    return f"{decision.outcome}, version {version}" if version else decision.outcome


def _number(decision: Decision) -> str | None:
    if decision.outcome in ("collect more labels", "ask for labels"):
        return None  # it is a lack of numbers that such a verdict is about
    if decision.kind == "promotion":
        return _promotion(_promoted(decision))
    told = {"retraining": _decay, "trial": _trial, "rollback": _decay}.get(decision.kind)
    return told(decision.evidence) if told else None


def _promoted(decision: Decision) -> Mapping[str, Any]:
    """The evidence of what is promoted: of a rival of the challenger, where that was chosen."""
    rivals = decision.evidence.get("rivals") or {}
    rival = rivals.get(getattr(decision, "system", None)) or {}
    return rival.get("gate") or decision.evidence


def _promotion(evidence: Mapping[str, Any]) -> str | None:
    """On the holdout that had to show the gain: the recent one against a champion, else the frozen."""
    against = str(evidence.get("against") or "rival")
    holdout = "recent" if against == "champion" and evidence.get("recent") else "frozen"
    paired = evidence.get(holdout)
    if not paired:
        return None
    return f"{_difference(paired, paired.get('rows'))} against the {NAMES.get(against, against)}, {holdout} holdout"


def _decay(evidence: Mapping[str, Any]) -> str | None:
    decay = evidence.get("decay")
    if not decay:
        return None
    now, then = decay.get("window") or {}, decay.get("reference") or {}
    if not now or not then:
        return None
    return f"scores {100 * now['mean']:.1f} ({_within(now, now.get('rows'))}), promoted with {100 * then['mean']:.1f}"


def _trial(evidence: Mapping[str, Any]) -> str | None:
    quality = evidence.get("quality")
    return f"quality {_difference(quality, quality.get('rows'))} on trial" if quality else None


def _difference(compared: Mapping[str, Any], rows: object) -> str:
    return f"{100 * compared['difference']:+.1f} points ({_within(compared, rows)})"


def _within(measured: Mapping[str, Any], rows: object) -> str:
    found = measured["interval"]
    return f"{found['level']:.0%} interval {100 * found['low']:.1f} to {100 * found['high']:.1f}, n={rows}"
