"""The verdict on a promotion that needs a reviewer's approval."""

from __future__ import annotations

from dataclasses import dataclass

from perpetune.policy.verdict import Outcome, Verdict


@dataclass(frozen=True)
class ApprovalEvidence:
    """A reviewer's response; `approve` is None if none came within `hours`.

    `compared_with` was champion when the version was evaluated, `champion` at the response; None if there was none.
    `cancelled`: a person cancelled the run that takes the answer, or that was carrying it out.
    """

    version: str
    compared_with: str | None
    champion: str | None
    hours: float
    approve: bool | None
    who: str = ""
    comment: str = ""
    cancelled: bool = False


def approved(evidence: ApprovalEvidence) -> Verdict:
    """Decide "promote" or "reject".

    An approval counts only if nobody cancelled it and the champion is still the one that the version was compared with.
    """
    rule = f"A reviewer approves the version within {evidence.hours:g} hours; without a response it is rejected."

    def verdict(outcome: Outcome, reason: str) -> Verdict:
        return Verdict(outcome, (reason,), rule)

    if evidence.approve is None and evidence.cancelled:
        return verdict("reject", f"The approval of version {evidence.version} was cancelled before anybody answered.")
    if evidence.approve is None:
        return verdict("reject", f"Version {evidence.version} was not approved within {evidence.hours:g} hours.")
    if not evidence.approve:
        return verdict("reject", f"{evidence.who} refused version {evidence.version}: {evidence.comment}")
    if evidence.cancelled:
        carried = f"{evidence.who} approved version {evidence.version}, and the run that carries it out was cancelled"
        return verdict("reject", f"{carried}: {evidence.comment}")
    if evidence.champion != evidence.compared_with:
        return verdict(
            "reject",
            f"{evidence.who} approved version {evidence.version}, but it was compared with "
            f"{_old(evidence.compared_with)}, and meanwhile {_change(evidence.champion)}: {evidence.comment}",
        )
    return verdict("promote", f"{evidence.who} approved version {evidence.version}: {evidence.comment}")


def _change(champion: str | None) -> str:
    return f"version {champion} became champion" if champion else "the champion was removed"


def _old(champion: str | None) -> str:
    return f"version {champion}" if champion else "the base"
