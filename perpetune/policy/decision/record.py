"""The decision record: verdict, evidence, and the ids needed to reproduce it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, computed_field
from pydantic_core import to_jsonable_python

from perpetune.policy.approval import ApprovalEvidence
from perpetune.policy.first_refresh import FirstRefreshEvidence
from perpetune.policy.promotion.evidence import PromotionEvidence
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
        evidence=to_jsonable_python(asdict(evidence)),
        ids=ids,
        system=system,
    )
