from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from perpetune.params import PromoteParams
from perpetune.policy.decision.hosted import hosted_in
from perpetune.policy.decision.record import Decision, Ids, record
from perpetune.policy.promotion.choice import choose
from perpetune.policy.promotion.evidence import HostedComparison, PairedEvidence, PromotionEvidence
from perpetune.policy.promotion.hosted import hosted_sentences
from perpetune.policy.verdict import Interval

LEAD = PairedEvidence(0.007, Interval(-0.021, 0.034, 0.95), 0.3, 214, 0.04)
HOSTED = HostedComparison(0.912, 0.905, LEAD, left_out=12)
LINE = "our model 91.2%, the hosted one 90.5% on the same 214 rows: +0.7 points (-2.1 to 3.4)"
GAIN = PairedEvidence(0.2, Interval(0.1, 0.3, 0.95), 0.0001, 400, 0.3, 0.0)
RULES = PromoteParams()


def evidence(**hosted: HostedComparison) -> PromotionEvidence:
    return PromotionEvidence(frozen=GAIN, recent=None, against="champion", hosted=hosted)


def decided(found: PromotionEvidence) -> Decision:
    choice = choose(found, RULES)
    return record(
        choice.verdict, found, task="t", time=datetime(2026, 11, 1, tzinfo=UTC), ids=Ids(), system=choice.system
    )


def test_one_line_says_whether_the_own_model_is_as_good() -> None:
    assert hosted_sentences(HOSTED, "accuracy") == (
        f"Y{LINE}.",
        "12 held-out rows without a recorded answer of the hosted model are left out of that comparison.",
    )
    assert hosted_in(decided(evidence(challenger=HOSTED))) == f"y{LINE}"


def test_other_metrics_and_levels_are_named() -> None:
    wide = replace(HOSTED, lead=replace(LEAD, interval=replace(LEAD.interval, level=0.9)), left_out=0)
    (line,) = hosted_sentences(wide, "token F1")
    assert line == (
        "Your model 91.2%, the hosted one 90.5% (token F1) on the same 214 rows: "
        "+0.7 points (-2.1 to 3.4, 90% interval)."
    )
    assert hosted_sentences(wide, "balanced accuracy")[0].startswith("Your model balanced accuracy 91.2%,")


def test_it_is_about_what_serves_after_the_decision() -> None:
    theirs = replace(HOSTED, score=0.8)
    both = evidence(challenger=HOSTED, champion=theirs)
    assert decided(both).reasons[-2].startswith("Your model 91.2%")
    lost = replace(GAIN, difference=-0.2, interval=Interval(-0.3, -0.1, 0.95), p_value=0.999, p_worse=0.0)
    kept = decided(replace(both, frozen=lost))
    assert (kept.outcome, kept.system) == ("reject", None)
    assert kept.reasons[-2].startswith("Your model 80.0%")
    assert (hosted_in(kept) or "").startswith("your model 80.0%")


def test_without_recorded_answers_nothing_is_said() -> None:
    found = decided(evidence())
    assert not any("hosted" in reason for reason in found.reasons)
    assert hosted_in(found) is None
    assert hosted_in(found.model_copy(update={"evidence": {}})) is None
