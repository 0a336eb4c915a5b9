"""Whether there is enough to tune a first version on, while the prompted base serves."""

from __future__ import annotations

from dataclasses import dataclass

from perpetune.params import RefreshParams, WatchParams
from perpetune.policy.retraining import limited
from perpetune.policy.verdict import Outcome, Verdict


@dataclass(frozen=True)
class FirstRefreshEvidence:
    """What no refresh has used yet: `labelled` requests, and `rows` of the team's own.

    The prompted base has promised nothing, so that it cannot decay. The other fields are those of RetrainEvidence.
    """

    labelled: int
    rows: int
    minutes_since_refresh: float | None
    unsuccessful_refreshes: int
    device_hours: float


def should_tune(evidence: FirstRefreshEvidence, rules: WatchParams, refresh: RefreshParams) -> Verdict:
    """Decide whether to start the first refresh.

    - "retrain": there are `first_labels` labelled requests and rows that no refresh has used.
    - "over budget" and "cooling down": there are, and a refresh must wait, as it must after decay.
    - "ask for labels": there are fewer; "collect more labels" if the settings ask for none.
    """
    known = evidence.labelled + evidence.rows

    def verdict(outcome: Outcome, *reasons: str) -> Verdict:
        return Verdict(outcome, reasons, _rule(refresh))

    if known < refresh.first_labels:
        outcome: Outcome = "collect more labels" if rules.without_labels == "nothing" else "ask for labels"
        return verdict(outcome, _too_few(evidence, refresh.first_labels))
    waiting = limited(evidence, refresh)
    if waiting:
        return verdict(waiting[0][0], *(why for _, why in waiting), _enough(evidence))
    return verdict("retrain", _enough(evidence))


def _enough(evidence: FirstRefreshEvidence) -> str:
    return f"{_counted(evidence)} are enough for a first tuned version."


def _too_few(evidence: FirstRefreshEvidence, needed: int) -> str:
    return (
        f"The prompted base serves; a first tuned version needs {needed:,} labelled requests or rows that no refresh "
        f"has used, and there are {evidence.labelled + evidence.rows:,}."
    )


def _counted(evidence: FirstRefreshEvidence) -> str:
    counts = {"labelled requests": evidence.labelled, "rows": evidence.rows}
    return " and ".join(f"{count:,} {name}" for name, count in counts.items() if count)


def _rule(refresh: RefreshParams) -> str:
    return (
        f"While the prompted base serves, retrain as soon as there are {refresh.first_labels:,} labelled requests or "
        f"rows that no refresh has used, {refresh.cooldown_minutes:g} minutes after the last refresh and "
        f"{refresh.backoff_factor:g} times as long for each that did not help."
    )
