"""What to do after a verdict, with the command: no verdict is a dead end.

Read from the decision record alone, which may be older or newer than this file: what it lacks is left out. A log and a
terminal show `next_step`; `perpetune explain` and the record's page show all `next_steps`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perpetune.policy.decision.record import Decision

LIMIT_SETTINGS = {
    "forgetting": "promote.max_forgetting",
    "latency": "promote.max_slowdown",
    "cost": "promote.max_cost",
}
FEEDBACK = "send labels to POST /v1/feedback, or `perpetune ingest FILE` examples of your own"
LABELS = "`perpetune labels --out wanted.jsonl`, fill in `label`, then `perpetune labels --bring wanted.jsonl`"
TUNE = "`perpetune tune --write` searches for better settings"


def next_steps(decision: Decision) -> tuple[str, ...]:
    """One to three sentences with their commands; () after a promotion, whose next step is to serve."""
    if decision.outcome == "promote":
        return ()
    told = _BY_KIND.get(decision.kind, _nothing)
    return tuple(told(decision))


def next_step(decision: Decision) -> str | None:
    """The next command in a few words, for a line of a terminal; None if nothing is to be done."""
    if decision.outcome in ("promote", "continue", "retrain"):
        return None
    told = _SHORT.get(decision.kind)
    return told(decision) if told else "`perpetune status`"


def _short_promotion(decision: Decision) -> str:
    if decision.outcome == "collect more labels":
        if _of_disagreements(decision):
            return "`perpetune labels`; then `perpetune watch` decides"
        recent = any(_wanted(reason) and _holdout(reason) == "recent" for reason in decision.reasons)
        return f"{'POST /v1/feedback' if recent else '`perpetune ingest FILE`'}, then `perpetune refresh`"
    exceeded, examples = list(_exceeded(decision.evidence)), [*_harmed_slices(decision), *_missed_labels(decision)]
    if exceeded:
        name, limit = exceeded[0]
        return f"{_setting(name, limit)}, or {_command(decision.ids.model_version or 'VERSION')}"
    if examples:
        return f"`perpetune ingest FILE` with more examples of {examples[0]}, then `perpetune refresh`"
    return "`perpetune tune --write`, or more examples with `perpetune ingest FILE`"


def _setting(name: str, limit: Mapping[str, Any]) -> str:
    if "leakage" in name:
        return f"remove the {name} from the training data"
    return f"raise {limit.get('setting') or LIMIT_SETTINGS.get(name, 'its limit')}"


def _short_approval(decision: Decision) -> str:
    if decision.evidence.get("approve") is None and decision.ids.model_version:
        return _command(decision.ids.model_version)
    return "`perpetune refresh`"


def _short_check(decision: Decision) -> str | None:
    if decision.outcome == "keep":
        return "`perpetune refresh`" if decision.evidence.get("decay", ...) is None else None
    return _SHORT_CHECKS.get(decision.outcome)


def _short_trial(decision: Decision) -> str:
    return f"`perpetune refresh`, or {_command(decision.ids.model_version or 'VERSION')}"


def _nothing(decision: Decision) -> Iterator[str]:
    yield "`perpetune status` shows what serves and what else there is."


def _promotion(decision: Decision) -> Iterator[str]:
    if decision.outcome == "collect more labels":
        yield from _wanted_rows(decision)
    else:
        yield from _rejected(decision)
    yield _anyway(decision)


def _wanted_rows(decision: Decision) -> Iterator[str]:
    """How many rows of which holdout, as the reasons say, and how they come there."""
    if labels := _of_disagreements(decision):
        yield (
            f"Label {labels} requests that champion and challenger answer differently: {LABELS}; when they are in, the next "
            "check decides without training (`perpetune watch`)."
        )
        return
    for reason in decision.reasons:
        rows, holdout = _wanted(reason), _holdout(reason)
        if rows is not None:
            yield f"{rows} more labelled rows are wanted in the {holdout} holdout: {_bring(holdout)}."
            return
    yield f"More labels are wanted: {FEEDBACK}, then `perpetune refresh`."


def _of_disagreements(decision: Decision) -> str | None:
    """How many labels of disagreements the reasons ask for."""
    patterns = (r"^Label ([\d,]+) requests to decide", r"^([\d,]+) more labels of disagreements are wanted")
    return next((found for pattern in patterns if (found := _number(pattern, decision.reason))), None)


def _wanted(reason: str) -> str | None:
    return _number(r"(?:collect|bring) ([\d,]+) more", reason)


def _holdout(reason: str) -> str:
    return "recent" if "the recent holdout" in reason.lower() else "frozen"


def _bring(holdout: str) -> str:
    if holdout == "recent":
        return (
            "send the labels of production answers to POST /v1/feedback, of which split.recent are held out, "
            "then `perpetune refresh`"
        )
    return (
        "`perpetune ingest FILE` more examples, of which split.frozen are held out, then `perpetune refresh`; "
        "a larger split.frozen holds out more of those there are"
    )


def _rejected(decision: Decision) -> Iterator[str]:
    """What would have let the challenger pass: the limits, the slices, or a better challenger."""
    settings = [_raised(name, limit) for name, limit in _exceeded(decision.evidence)]
    harmed, missed = _harmed_slices(decision), _missed_labels(decision)
    if settings:
        yield f"To let it pass, {' and '.join(settings)}, then `perpetune refresh`."
    if harmed:
        yield (
            f"`perpetune ingest FILE` more examples of {_list(harmed)}, then `perpetune refresh`; promote.slice_margin "
            "sets how much worse they may be."
        )
    if missed:
        yield (
            f"`perpetune ingest FILE` more examples of {_list(missed)}, then `perpetune refresh`; {_floor_setting(decision)} "
            "sets how many must be found."
        )
    if not (settings or harmed or missed):
        yield f"{_kept(decision)}; more examples (`perpetune ingest FILE`) or other settings may do better: {TUNE}."


def _kept(decision: Decision) -> str:
    champion = decision.ids.champion_version
    if champion is not None:
        return f"Version {champion} goes on serving"
    return "No version serves yet, and `perpetune status` shows those that could"


def _raised(name: str, limit: Mapping[str, Any]) -> str:
    if "leakage" in name:
        return f"remove the {name} from the training data (give what belongs together the same `group`)"
    setting = limit.get("setting") or LIMIT_SETTINGS.get(name, "its limit")
    return f"set {setting} above {limit['value']:.3g} in params.yaml"


def _exceeded(evidence: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, limit in (evidence.get("limits") or {}).items():
        shown = (limit.get("interval") or {}).get("low", limit.get("value"))
        if limit.get("limit") is not None and shown is not None and not shown <= limit["limit"]:
            yield name, limit


def _harmed_slices(decision: Decision) -> list[str]:
    """Those that a reason speaks of: which are harmed depends on all of them together."""
    reasons = " ".join(decision.reasons)
    return [name for name in decision.evidence.get("slices") or {} if f"On {name} " in reasons]


def _missed_labels(decision: Decision) -> list[str]:
    """Rare labels that the reasons say are hardly found."""
    floors = " ".join(reason for reason in decision.reasons if "below the floor" in reason)
    return [f"label {name}" for name in decision.evidence.get("recalls") or {} if f"rows labelled {name} (" in floors]


def _floor_setting(decision: Decision) -> str:
    reasons = " ".join(decision.reasons)
    return "promote.recall_floors" if "promote.recall_floors" in reasons else "promote.min_recall"


def _approval(decision: Decision) -> Iterator[str]:
    if decision.evidence.get("approve") is None and decision.evidence.get("cancelled") is not True:
        yield "Raise promote.approval_hours if reviewers need more time."
    else:
        yield f"{_kept(decision)}; `perpetune refresh` makes a new challenger."
    yield _anyway(decision)


def _retraining(decision: Decision) -> Iterator[str]:
    yield _CHECKS.get(decision.outcome, _kept_on)(decision)


def _kept_on(decision: Decision) -> str:
    if decision.evidence.get("decay", ...) is None:
        return "Decay cannot be judged before a refresh has recorded the champion's score: `perpetune refresh`."
    return f"Nothing to do: {_next_check()}."


def _confirming(decision: Decision) -> str:
    seen = decision.evidence.get("alarms_in_a_row")
    wanted = _number(r"of the (\d+) (?:looks|checks)", decision.reason)
    more = f"{int(wanted) - seen} more" if wanted and isinstance(seen, int) else "more"
    return f"A refresh starts after {more} checks in a row that find it (watch.consecutive_checks): {_next_check()}."


def _mix_shift(decision: Decision) -> str:
    return (
        "The champion answers the same requests as before: `perpetune refresh` if it is to learn the new mix, or set "
        f"watch.mix_shift: retrain; {_next_check()}."
    )


def _cooling(decision: Decision) -> str:
    since = decision.evidence.get("minutes_since_refresh")
    wanted = _number(r"cooldown is ([\d,]+) minutes", " ".join(decision.reasons))
    left = f" in {max(int(wanted.replace(',', '')) - since, 0):.0f} minutes" if wanted and since is not None else ""
    return (
        f"The first check after the cooldown starts the refresh{left} (refresh.cooldown_minutes, refresh.backoff_factor); "
        "now: `perpetune refresh`."
    )


def _over_budget(decision: Decision) -> str:
    return (
        "Refreshes start again when older ones leave the last 30 days, or raise refresh.gpu_hours_per_month; "
        "now: `perpetune refresh`."
    )


def _ask_for_labels(decision: Decision) -> str:
    return f"Label the most informative requests: {LABELS}; {_next_check()}."


def _more_labels(decision: Decision) -> str:
    missing = _number(r"waits for ([\d,]+) more labels", decision.reason)
    if missing:
        return f"{missing} more labels to POST /v1/feedback start the next refresh; now: `perpetune refresh`."
    return f"Send labels of answers to POST /v1/feedback as they become known, or {LABELS}; {_next_check()}."


def _retrain(decision: Decision) -> str:
    return "Prefect's automation starts a refresh now; without its worker: `perpetune refresh`."


def _next_check() -> str:
    return "the next check is by watch.cron, or `perpetune watch`"


def _trial(decision: Decision) -> Iterator[str]:
    if decision.outcome == "continue":
        yield "The trial goes on, at most to release.max_requests requests; labels end it sooner: POST /v1/feedback."
    else:
        yield f"{_kept(decision)}; release.margin sets how much worse a version on trial may be."
    yield _anyway(decision)


def _rollback(decision: Decision) -> Iterator[str]:
    yield "`perpetune refresh` makes a new challenger from the newest labels."
    gave_way = decision.evidence.get("rolled_back") or decision.ids.model_version
    if gave_way is not None:
        yield f"To serve version {gave_way} again: {_command(gave_way)}."


def _anyway(decision: Decision) -> str:
    version = decision.ids.model_version
    return f"Or take it anyway: {_command(version)}." if version else "`perpetune status` lists the versions."


def _command(version: object) -> str:
    return f"`perpetune promote {version} --reason '...'`"


def _number(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found.group(1) if found else None


def _list(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


_CHECKS: Mapping[str, Callable[[Decision], str]] = {
    "keep": _kept_on,
    "confirming": _confirming,
    "mix shift": _mix_shift,
    "cooling down": _cooling,
    "over budget": _over_budget,
    "ask for labels": _ask_for_labels,
    "collect more labels": _more_labels,
    "retrain": _retrain,
}
_SHORT_CHECKS: Mapping[str, str] = {
    "confirming": "`perpetune watch` checks again",
    "mix shift": "`perpetune refresh`, if it is to learn the new mix",
    "cooling down": "`perpetune refresh` starts it now",
    "over budget": "raise refresh.gpu_hours_per_month, or `perpetune refresh`",
    "ask for labels": "`perpetune labels --out wanted.jsonl`",
    "collect more labels": "POST /v1/feedback, or `perpetune labels --out wanted.jsonl`",
    "roll back": "`perpetune refresh`",
}
_SHORT: Mapping[str, Callable[[Decision], str | None]] = {
    "promotion": _short_promotion,
    "approval": _short_approval,
    "retraining": _short_check,
    "trial": _short_trial,
    "rollback": lambda decision: "`perpetune refresh`",
}
_BY_KIND: Mapping[str, Callable[[Decision], Iterator[str]]] = {
    "promotion": _promotion,
    "approval": _approval,
    "retraining": _retraining,
    "trial": _trial,
    "rollback": _rollback,
}
