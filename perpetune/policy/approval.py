"""Whether a person lets a promoted challenger take over."""

from __future__ import annotations

from dataclasses import dataclass

from perpetune.policy.verdict import Outcome, Verdict


@dataclass(frozen=True)
class ApprovalEvidence:
    """What a person said of a version; `approve` is None where nobody came within `hours`.

    `compared_with` was champion when the version was evaluated, `champion` when the person spoke; None: there was none.
    """

    version: str
    compared_with: str | None
    champion: str | None
    hours: float
    approve: bool | None
    who: str = ""
    comment: str = ""


def approved(evidence: ApprovalEvidence) -> Verdict:
    """Decide whether the version takes over: "promote" or "reject".

    A yes counts only while the champion is still the one that the version was compared with.
    """
    rule = f"A person approves the version within {evidence.hours:g} hours, with a comment; nobody's word is a no."

    def verdict(outcome: Outcome, reason: str) -> Verdict:
        return Verdict(outcome, (reason,), rule)

    if evidence.approve is None:
        return verdict("reject", f"Nobody approved version {evidence.version} within {evidence.hours:g} hours.")
    if not evidence.approve:
        return verdict("reject", f"{evidence.who} refused version {evidence.version}: {evidence.comment}")
    if evidence.champion != evidence.compared_with:
        return verdict(
            "reject",
            f"{evidence.who} approved version {evidence.version}, but meanwhile {_named(evidence.champion)}, and it was "
            f"compared with {_old(evidence.compared_with)}: {evidence.comment}",
        )
    return verdict("promote", f"{evidence.who} approved version {evidence.version}: {evidence.comment}")


def _named(champion: str | None) -> str:
    return f"version {champion} became champion" if champion else "the champion was withdrawn"


def _old(champion: str | None) -> str:
    return f"version {champion}" if champion else "the base"
