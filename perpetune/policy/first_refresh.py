"""Whether there are enough labels for a first tuned version while the prompted base serves."""

from __future__ import annotations

from dataclasses import dataclass

from perpetune.params import RefreshParams, WatchParams
from perpetune.policy.retraining import limits_on
from perpetune.policy.verdict import Outcome, Verdict


@dataclass(frozen=True)
class FirstRefreshEvidence:
    """Unused data: `labelled` requests and ingested `rows` that no refresh has used.

    There is no decay evidence because a prompted base has no reference. The other fields are as in RetrainEvidence.
    """

    labelled: int
    rows: int
    minutes_since_refresh: float | None
    unsuccessful_refreshes: int
    device_hours: float


def should_tune_first_version(evidence: FirstRefreshEvidence, rules: WatchParams, refresh: RefreshParams) -> Verdict:
    """Decide whether to start the first refresh.

    - "retrain": there are `first_labels` unused labelled requests and rows.
    - "over budget" and "cooling down": there are, but a refresh must wait, as after decay.
    - "ask for labels": there are fewer; "collect more labels" if `watch.without_labels` is "nothing".
    """
    known = evidence.labelled + evidence.rows

    def verdict(outcome: Outcome, *reasons: str) -> Verdict:
        return Verdict(outcome, reasons, _rule(refresh))

    if known < refresh.first_labels:
        outcome: Outcome = "collect more labels" if rules.without_labels == "nothing" else "ask for labels"
        return verdict(outcome, _too_few(evidence, refresh.first_labels))
    waiting = limits_on(evidence, refresh)
    if waiting:
        return verdict(waiting[0][0], *(why for _, why in waiting), _enough(evidence))
    return verdict("retrain", _enough(evidence))


def _enough(evidence: FirstRefreshEvidence) -> str:
    return f"{_counted(evidence)} are enough for a first tuned version."


def _too_few(evidence: FirstRefreshEvidence, needed: int) -> str:
    return (
        f"A first tuned version needs {needed:,} labelled requests or rows that no refresh has used, and there are "
        f"{evidence.labelled + evidence.rows:,}."
    )


def _counted(evidence: FirstRefreshEvidence) -> str:
    counts = {"labelled requests": evidence.labelled, "rows": evidence.rows}
    return " and ".join(f"{count:,} {name}" for name, count in counts.items() if count)


def _rule(refresh: RefreshParams) -> str:
    return (
        f"While the prompted base serves, retrain if there are {refresh.first_labels:,} unused labelled requests or "
        f"rows, at least {refresh.cooldown_minutes:g} minutes after the last refresh and {refresh.backoff_factor:g} times as "
        f"long for each unsuccessful one."
    )
