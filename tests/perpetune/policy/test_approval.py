from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from perpetune.policy.approval import ApprovalEvidence, approved

YES = ApprovalEvidence("3", "2", "2", 72, True, "Ada", "reads well")

versions = st.none() | st.sampled_from(["1", "2"])


@given(versions, versions, st.none() | st.booleans(), st.booleans())
def test_only_an_approval_with_the_same_champion_that_nobody_cancelled_promotes(
    before: str | None, now: str | None, word: bool | None, cancelled: bool
) -> None:
    verdict = approved(replace(YES, compared_with=before, champion=now, approve=word, cancelled=cancelled))
    assert (verdict.outcome == "promote") == (word is True and before == now and not cancelled)


def test_the_reason_says_who_and_why() -> None:
    assert approved(YES).reasons == ("Ada approved version 3: reads well",)
    refused = approved(replace(YES, approve=False, comment="it promises refunds"))
    assert refused.reasons == ("Ada refused version 3: it promises refunds",)


def test_a_champion_that_changed_meanwhile_is_named() -> None:
    [reason] = approved(replace(YES, champion="1")).reasons
    assert "version 1 became champion" in reason and "compared with version 2" in reason
