"""A verdict in one line: the outcome, its number, the interval and the rows (docs/guides/verdicts.md).

Read from the decision record alone, which may be older or newer than this file: what it lacks is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from perpetune.policy.decision.numbers import (
    Evidence,
    count,
    difference,
    ends,
    number,
    part,
    percent,
    score,
    score_in,
    text,
)
from perpetune.policy.wording import amount, one_line

if TYPE_CHECKING:
    from perpetune.policy.decision.record import Decision

SYSTEMS = {
    "challenger": "challenger",
    "linear": "linear model",
    "embeddings": "linear model on embeddings",
    "base": "base",
    "few-shot": "base with examples",
}
MEASURES = {"errors": "errors", "slow": "slow answers", "quality": "quality"}
SHOWN_EVIDENCE = 1e6


def headline(decision: Decision) -> str:
    """As in "promote the challenger: +6.1 points (2.3 to 9.9, n=219), 93.2% right".

    A record without numbers gives its decisive reason instead, cut to the line. Intervals are of 95% if no level is told.
    """
    told = [each for each in _PARTS.get(decision.kind, _nothing)(decision) if each]
    return one_line(f"{_outcome(decision)}: {', '.join(told) or decision.reason}")


def _nothing(decision: Decision) -> Iterator[str | None]:
    yield from ()


def _outcome(decision: Decision) -> str:
    version = decision.ids.model_version
    if decision.kind == "promotion" and decision.outcome in ("promote", "reject"):
        return f"{decision.outcome} the {SYSTEMS.get(decision.system or '', 'challenger')}"
    if decision.kind in ("approval", "trial", "promotion by hand") and decision.outcome != "continue" and version:
        return f"{decision.outcome} version {version}"
    return decision.outcome


def _promotion(decision: Decision) -> Iterator[str | None]:
    """The number that decided: a limit, a slice or a label that rejects, else the gain or the guard that is not shown."""
    evidence = _promoted(decision)
    if decision.outcome == "reject" and (harm := _harm(decision)):
        yield harm
        return
    yield _compared(decision, evidence)
    if decision.outcome == "collect more labels":
        yield _rows_wanted(decision)
    elif decision.outcome == "promote":
        yield _own_score(decision)
    else:
        yield _lost(decision) or ("no gain shown" if "is not shown to be better" in decision.reason else None)


def _promoted(decision: Decision) -> Evidence:
    """The evidence of what is promoted: that of a rival of the challenger, if the rival was chosen."""
    return part(part(part(decision.evidence, "rivals"), decision.system or ""), "gate") or decision.evidence


def _compared(decision: Decision, evidence: Evidence) -> str | None:
    against = text(evidence, "against") or "champion"
    guarded = _holdout_in(decision.reason) if _lost(decision) else None
    traffic = part(part(evidence, "traffic"), "recent")
    if traffic and guarded is None:
        return difference(traffic)
    name = guarded or ("recent" if against == "champion" and part(evidence, "recent") else "frozen")
    paired = part(evidence, name) if guarded else part(evidence, "balanced") or part(evidence, name)
    told = difference(paired)
    return told and told + (" over the base" if against == "base" else "")


def _lost(decision: Decision) -> str | None:
    """What a rejection says of the holdout that guards; None if it is not that one which rejects."""
    holdout, reason = _holdout_in(decision.reason), decision.reason
    if decision.outcome != "reject" or holdout is None:
        return None
    if "is not shown to be no worse than" in reason:
        return f"may be worse on the {holdout} holdout"
    return f"worse on the {holdout} holdout" if " is worse than the " in reason else None


def _harm(decision: Decision) -> str | None:
    """What rejects at once, as the gate and its reasons say."""
    evidence, reason = decision.evidence, decision.reason
    for name in part(evidence, "limits"):
        if reason.lower().startswith(f"{name.lower()} is "):
            return _over(name, part(part(evidence, "limits"), name))
    for name in part(evidence, "slices"):
        paired = part(part(evidence, "slices"), name)
        if f"On {name} " in reason and (told := difference(paired)):
            return f"{told} on {name}"
    for label in part(evidence, "recalls"):
        recall = part(part(evidence, "recalls"), label)
        if f"rows labelled {label} (" in reason and (told := percent(recall, recall.get("value"))):
            return f"finds {told} of label {label}"
    if "the majority answer" in reason:
        lead = part(part(part(evidence, "rivals"), "majority"), "lead")
        told = difference(lead)
        return told and f"{told} over the majority answer"
    return None


def _over(name: str, limit: Evidence) -> str | None:
    value, most = number(limit, "value"), number(limit, "limit")
    if value is None or most is None:
        return None
    both, rows = ends(limit.get("interval")), text(limit, "rows")
    found = [f"{both[0]:.3g} to {both[1]:.3g}"] if both else []
    told = ", ".join([*found, *([f"n={rows}"] if rows else [])])
    return f"{name} {value:.3g}{f' ({told})' if told else ''}, limit {most:g}"


def _rows_wanted(decision: Decision) -> str | None:
    for pattern in (r"^Label ([\d,]+) requests to decide", r"^([\d,]+) more labels of disagreements"):
        if labels := _found(pattern, decision.reason):
            return f"{labels} labels of disagreements wanted"
    for reason in decision.reasons:
        rows = _found(r"(?:collect|bring) ([\d,]+) more", reason)
        if rows:
            return f"{rows} more for the {_holdout_in(reason) or 'frozen'} holdout"
    return None


def _holdout_in(reason: str) -> str | None:
    return _found(r"(?i)the (frozen|recent) holdout", reason)


def _own_score(decision: Decision) -> str | None:
    """The score of what is promoted; the challenger's beside the rival that answered the most rows, if not all did."""
    rivals = part(decision.evidence, "rivals")
    rival, name = part(rivals, decision.system or ""), "score"
    if not rival:
        rows = {each: count(part(part(rivals, each), "lead"), "rows") or 0 for each in rivals}
        rival, name = part(rivals, max(rows, key=lambda each: rows[each], default="")), "challenger"
    value = number(rival, name)
    return None if value is None else score_in(text(decision.evidence, "metric") or "", f"{100 * value:.1f}")


def _retraining(decision: Decision) -> Iterator[str | None]:
    evidence = decision.evidence
    if "rows" in evidence and "decay" not in evidence:
        yield from _first_refresh(decision)
        return
    decay, estimate = part(evidence, "decay"), part(evidence, "estimate")
    alarm = _alarms(decay)
    if _learns_again(decision):
        since, known = text(evidence, "labels_since_refresh"), text(evidence, "labels_of_change")
        yield f"{since} labels since the last refresh, which had {known} of the change"
        yield from _decay(decay, text(evidence, "metric") or "", told_evidence=False)
        return
    if decision.outcome == "collect more labels" and not alarm:
        yield _no_labels(evidence)
        return
    if (decision.outcome == "ask for labels" and not _is_early(decay)) or (
        decision.outcome not in ("keep", "ask for labels") and not alarm and estimate
    ):
        yield from _estimated(evidence)
    else:
        yield from _decay(decay, text(evidence, "metric") or "", told_evidence=not _waits(decision))
        yield _unasked(evidence)
    yield _waits(decision)


def finds_decay(decision: Decision) -> bool:
    """Whether a check found that the champion answers worse: by labels or, with few of them, by an estimate.

    A first tuned version, a second refresh for the same change and a shift of the mix are no such findings.
    """
    if decision.outcome in ("keep", "mix shift", "ask for labels"):
        return False
    found = decision.evidence
    return _alarms(part(found, "decay")) or (decision.outcome == "retrain" and _is_by_estimate(decision))


def _is_by_estimate(decision: Decision) -> bool:
    return bool(part(decision.evidence, "estimate")) and not _learns_again(decision)


def _learns_again(decision: Decision) -> bool:
    """Whether a refresh for decay is followed by another, because enough more labels of the change have come."""
    return decision.outcome == "retrain" and decision.reason.startswith("The last refresh was for decay")


def _is_early(decay: Evidence) -> bool:
    """Whether early evidence of decay asks for urgent labels."""
    found, early = number(decay, "evidence"), number(decay, "early")
    return found is not None and early is not None and found >= early


def _unasked(evidence: Evidence) -> str | None:
    """If most of the labels arrived unasked."""
    unasked, labels = count(evidence, "unasked") or 0, count(part(part(evidence, "decay"), "window"), "rows") or 0
    return f"{unasked} labels arrived unasked" if 2 * unasked > labels > 0 else None


def _alarms(decay: Evidence) -> bool:
    found, needed = number(decay, "evidence"), number(decay, "run_length")
    if found is None or needed is None:
        return bool(decay)  # a record from before there was evidence
    return (number(decay, "bound") or 0.0) > 0 and found >= needed


def _decay(decay: Evidence, metric: str, *, told_evidence: bool = True) -> Iterator[str | None]:
    yield score(part(decay, "window"), metric)
    bound, then = number(decay, "bound"), number(part(decay, "reference"), "mean")
    if bound is not None and bound > 0:
        yield f"threshold {100 * bound:.1f}"
    elif then is not None:
        yield f"promoted with {100 * then:.1f}"
    found, needed = number(decay, "evidence"), number(decay, "run_length")
    if told_evidence and bound and found is not None and needed is not None:
        yield f"evidence {_amount(found)} of {_amount(needed)}"


def _amount(evidence: float) -> str:
    return "over a million" if evidence >= SHOWN_EVIDENCE else amount(evidence)


def _no_labels(evidence: Evidence) -> str | None:
    new, in_all = text(evidence, "labelled"), text(evidence, "labelled_in_all")
    return new and f"{new} new labels since the last check" + (f", {in_all} before" if in_all else "")


def _estimated(evidence: Evidence) -> Iterator[str | None]:
    """Without labels: what confidence implies, or that nothing but drift is known."""
    estimate, drift = part(evidence, "estimate"), part(evidence, "drift")
    window, fall = score(part(estimate, "window"), text(evidence, "metric") or ""), number(estimate, "fall")
    if window is not None:
        yield f"estimated {window}"
        yield (
            None if fall is None else f"{abs(100 * fall):.1f} points {'below' if fall >= 0 else 'above'} the reference"
        )
        return
    moved = [name for name in ("inputs", "predictions") if drift.get(f"{name}_drifted")]
    if moved:
        rows = text(drift, "rows")
        yield f"{' and '.join(moved)} drifted" + (f" (n={rows})" if rows else "")


def _first_refresh(decision: Decision) -> Iterator[str | None]:
    known = sum(count(decision.evidence, name) or 0 for name in ("labelled", "rows"))
    needed = _found(r"needs ([\d,]+) labelled requests", decision.reason)
    yield f"{known:,}{f' of {needed}' if needed else ''} labels and rows for a first tuned version"
    yield _waits(decision)


def _waits(decision: Decision) -> str | None:
    """What a refresh waits for; None if it waits for nothing."""
    told = _WAITS.get(decision.outcome)
    return told(decision.evidence, " ".join(decision.reasons)) if told else None


def _confirming(evidence: Evidence, reasons: str) -> str | None:
    seen, wanted = text(evidence, "alarms_in_a_row"), _found(r"of the (\d+) (?:looks|checks)", reasons)
    return f"found in {seen} of {wanted} checks" if seen and wanted else None


def _cooling(evidence: Evidence, reasons: str) -> str | None:
    since, wanted = number(evidence, "minutes_since_refresh"), _found(r"cooldown is ([\d,]+) minutes", reasons)
    if since is None or wanted is None:
        return None
    return f"refresh in {max(int(wanted.replace(',', '')) - since, 0):.0f} min"


def _over_budget(evidence: Evidence, reasons: str) -> str | None:
    hours, budget = number(evidence, "device_hours"), _found(r"and ([\d.]+) are allowed", reasons)
    return f"{hours:.1f} of {budget} device hours spent" if hours is not None and budget else None


def _too_few_labels(evidence: Evidence, reasons: str) -> str | None:
    missing = _found(r"waits for ([\d,]+) more labels", reasons)
    return f"refresh after {missing} more labels" if missing else None


def _trial(decision: Decision) -> Iterator[str | None]:
    evidence = decision.evidence
    name = _decisive_measure(decision)
    yield _trial_measure(name, part(evidence, name))
    requests = count(evidence, "requests")
    yield None if requests is None else f"{requests:,} requests"


def _decisive_measure(decision: Decision) -> str:
    reason = decision.reason
    if decision.outcome == "promote":
        return "errors" if "errors and slow answers alone" in reason else "quality"
    words = {"errors": r"(?:more|requests) errors", "slow": r"(?:more|requests) slow answers"}
    return next((name for name, pattern in words.items() if re.search(pattern, reason)), "quality")


def _trial_measure(name: str, compared: Evidence) -> str | None:
    ours, theirs = count(compared, "rows"), count(compared, "champion_rows")
    if not ours and not theirs:
        return f"{MEASURES[name]} unknown (n=0)" if compared else None
    rows = str(ours) if theirs is None or ours == theirs else f"{ours or 0} and {theirs}"
    told = difference(compared, rows)
    return told and f"{MEASURES[name]} {told}"


def _rollback(decision: Decision) -> Iterator[str | None]:
    evidence = decision.evidence
    if "rolled_back" in evidence:
        old, new = text(evidence, "rolled_back"), text(evidence, "restored")
        yield f"version {old} to version {new}" if old and new else None
        seconds = number(evidence, "seconds")
        yield None if seconds is None else f"in {seconds:.1f} s"
        yield _by_hand(evidence)
        return
    yield from _decay(part(evidence, "decay"), text(evidence, "metric") or "", told_evidence=False)
    known, previous = number(evidence, "previous_score"), text(evidence, "previous")
    replayed = number(part(evidence, "replay"), "previous")
    if previous and replayed is not None:
        yield f"to version {previous} ({100 * replayed:.1f} on the same inputs)"
    elif previous and part(evidence, "decay"):
        yield f"to version {previous}" + ("" if known is None else f" ({100 * known:.1f})")


def _promotion_by_hand(decision: Decision) -> Iterator[str | None]:
    previous = text(decision.evidence, "previous")
    yield previous and f"in place of version {previous}"
    yield _by_hand(decision.evidence)


def _by_hand(evidence: Evidence) -> str | None:
    reason = text(evidence, "reason")
    return f"by hand ({reason})" if reason else "by hand"


def _approval(decision: Decision) -> Iterator[str | None]:
    evidence = decision.evidence
    approve, who, comment = evidence.get("approve"), text(evidence, "who") or "a reviewer", text(evidence, "comment")
    cancelled = evidence.get("cancelled") is True
    if approve is None and cancelled:
        yield "cancelled before an answer"
        return
    if approve is None:
        hours = number(evidence, "hours")
        yield None if hours is None else f"no answer within {hours:g} hours"
        return
    verb = "approved" if approve else "refused"
    why = ", then cancelled" if cancelled else ", but the champion changed meanwhile"
    late = why if approve and decision.outcome == "reject" else ""
    yield f"{verb} by {who}{late}{f': {comment}' if comment else ''}"


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match.group(1).lower() if match else None


def _mix_shift(evidence: Evidence, reasons: str) -> str | None:
    mix = part(part(evidence, "decay"), "mix")
    by, grew, within = text(mix, "by"), text(mix, "grew"), number(mix, "within")
    if by is None or grew is None or within is None:
        return None
    return f"{by} {grew} more frequent, {100 * within:.1f} points within"


_WAITS: Mapping[str, Callable[[Evidence, str], str | None]] = {
    "mix shift": _mix_shift,
    "confirming": _confirming,
    "cooling down": _cooling,
    "over budget": _over_budget,
    "collect more labels": _too_few_labels,
}
_PARTS: Mapping[str, Callable[[Decision], Iterator[str | None]]] = {
    "promotion": _promotion,
    "approval": _approval,
    "retraining": _retraining,
    "trial": _trial,
    "rollback": _rollback,
    "promotion by hand": _promotion_by_hand,
}
