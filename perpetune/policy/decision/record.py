"""The decision record: verdict, evidence, and the ids needed to reproduce it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, computed_field

from perpetune.policy.approval import ApprovalEvidence
from perpetune.policy.decision.next_step import next_steps
from perpetune.policy.first_refresh import FirstRefreshEvidence
from perpetune.policy.promotion import PromotionEvidence
from perpetune.policy.retraining import RetrainEvidence
from perpetune.policy.rollout import ManualPromotion, ManualRollback, RollbackEvidence, TrialEvidence
from perpetune.policy.verdict import Outcome, Verdict
from perpetune.records import to_json

Kind = Literal["promotion", "approval", "retraining", "trial", "rollback", "promotion by hand"]
Evidence = (
    PromotionEvidence
    | ApprovalEvidence
    | RetrainEvidence
    | FirstRefreshEvidence
    | TrialEvidence
    | RollbackEvidence
    | ManualRollback
    | ManualPromotion
)
KINDS: Mapping[type, Kind] = {
    PromotionEvidence: "promotion",
    ApprovalEvidence: "approval",
    RetrainEvidence: "retraining",
    FirstRefreshEvidence: "retraining",
    TrialEvidence: "trial",
    RollbackEvidence: "rollback",
    ManualRollback: "rollback",
    ManualPromotion: "promotion by hand",
}


class Ids(BaseModel):
    """The ids that a verdict is about and that reproduce it; None if not applicable.

    `model_version` is the promoted version or else the challenger in a promotion, the challenger in a trial, the champion
    in a retraining, and the version rolled back in a rollback. `params_sha256` is the hash of `params.yaml`.
    """

    model_config = ConfigDict(frozen=True)

    run_id: str | None = None
    model_version: str | None = None
    champion_version: str | None = None
    data_version: str | None = None
    git_commit: str | None = None
    base_digest: str | None = None
    adapter_digest: str | None = None
    prefect_flow_run_id: str | None = None
    params_sha256: str | None = None


class Decision(BaseModel):
    """A verdict with its evidence as a JSON-serialisable dict; the decisive reason is first.

    `system` is the promoted system ("challenger", "linear", "embeddings", "base", "few-shot"); None if none is. Unknown
    fields are ignored, so that records of later versions can be read.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    task: str
    time: AwareDatetime
    outcome: Outcome
    reasons: tuple[str, ...] = Field(min_length=1)
    rule: str
    evidence: dict[str, Any]
    ids: Ids
    system: str | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def reason(self) -> str:
        """The decisive reason in one sentence."""
        return self.reasons[0]

    def to_json(self) -> str:
        """The record as indented JSON."""
        return to_json(self.model_dump(mode="json"))

    @classmethod
    def from_json(cls, text: str) -> Decision:
        """Read JSON that `to_json` wrote. Raises pydantic.ValidationError if it is not a decision record."""
        return cls.model_validate_json(text)


def record(
    verdict: Verdict, evidence: Evidence, *, task: str, time: datetime, ids: Ids, system: str | None = None
) -> Decision:
    """The decision record of a verdict on this evidence; `time` is timezone-aware."""
    return Decision(
        kind=KINDS[type(evidence)],
        task=task,
        time=time,
        outcome=verdict.outcome,
        reasons=verdict.reasons,
        rule=verdict.rule,
        evidence=asdict(evidence),
        ids=ids,
        system=system,
    )


def as_markdown(decision: Decision, links: Mapping[str, str] | None = None) -> str:
    """The record as Markdown: verdict, reasons, next steps, evidence tables, ids, and `links` (title to URL)."""
    ids = [[_words(name), f"`{value}`"] for name, value in decision.ids if value is not None]
    parts = [
        f"# {decision.kind.capitalize()} of {decision.task}: {decision.outcome}",
        f"**{decision.reason}**",
        "\n".join(f"- {reason}" for reason in decision.reasons[1:]),
        _next(decision),
        f"Decided {decision.time:%Y-%m-%d %H:%M %Z} by the rule: {decision.rule}",
        "## Evidence",
        *_tables(decision.evidence),
        "## Ids" if ids else "",
        _table(["id", "value"], ids),
        " · ".join(f"[{title}]({address})" for title, address in (links or {}).items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _next(decision: Decision) -> str:
    steps = next_steps(decision)
    return "## What to do next\n\n" + "\n".join(f"- {step}" for step in steps) if steps else ""


def _tables(evidence: Mapping[str, Any]) -> Iterator[str]:
    """A table of the single values, one table for parts with the same fields, then nested parts."""
    parts = {name: value for name, value in evidence.items() if isinstance(value, Mapping) and not _is_interval(value)}
    single = {name: value for name, value in evidence.items() if name not in parts and value is not None}
    if single:
        yield _table(["measure", "value"], [[_words(name), _cell(value)] for name, value in single.items()])
    flat = {name: part for name, part in parts.items() if not _has_parts(part)}
    for fields in dict.fromkeys(tuple(part) for part in flat.values() if part):
        rows = {name: part for name, part in flat.items() if tuple(part) == fields}
        yield _table(
            ["", *map(_words, fields)], [[_words(name), *map(_cell, part.values())] for name, part in rows.items()]
        )
    for name, part in parts.items():
        if name not in flat:
            yield f"### {_words(name).capitalize()}"
            yield from _tables(part)


def _has_parts(part: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Mapping) and not _is_interval(value) for value in part.values())


def _table(header: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{_cell(value['low'])} to {_cell(value['high'])} ({value['level']:.0%})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_interval(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {"low", "high", "level"}


def _words(name: str) -> str:
    return name.replace("_", " ")
