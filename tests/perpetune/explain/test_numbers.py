from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perpetune.explain.numbers import numbers_of
from perpetune.policy.promotion.evidence import PairedEvidence, PromotionEvidence
from perpetune.policy.verdict import Interval

PAIRED = PairedEvidence(0.05, Interval(0.01, 0.09), 0.02, 200)


def evidence(**more: Any) -> dict[str, Any]:
    return {**asdict(PromotionEvidence(PAIRED, None, "champion")), **more}


def test_differences_are_in_points() -> None:
    found = numbers_of(evidence())
    (frozen,) = found.measured
    assert (frozen.name, frozen.value, frozen.low, frozen.high) == ("frozen holdout", 5.0, 1.0, 9.0)
    assert (frozen.level, frozen.rows, frozen.unit) == (0.95, 200, "points")
    assert found.facts["against"] == "champion"
    assert found.facts["frozen holdout: p value"] == "0.02"


def test_slices_and_limits_are_named_for_what_they_are_of() -> None:
    limits = {
        "forgetting": {"value": 0.2, "interval": None, "limit": 0.1, "rows": 50, "unit": "nats"},
        "cost": {"value": 1.0, "interval": {"low": 0.9, "high": 1.1, "level": 0.95}, "limit": 1.5},
    }
    found = numbers_of(evidence(slices={"label positive": asdict(PAIRED)}, limits=limits)).measured
    by_name = {each.name: each for each in found}
    assert list(by_name) == ["frozen holdout", "label positive", "forgetting", "cost"]
    assert (by_name["forgetting"].value, by_name["forgetting"].unit, by_name["forgetting"].within) == (
        0.2,
        "nats",
        False,
    )
    assert by_name["cost"].within is True


@given(
    st.recursive(
        st.one_of(st.integers(), st.booleans(), st.text(max_size=5)),
        lambda inner: st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3),
        max_leaves=10,
    ).filter(lambda value: isinstance(value, dict))
)
def test_evidence_of_any_shape_is_complete(evidence: dict[str, Any]) -> None:
    def leaves(part: dict[str, Any], path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
        return {
            found
            for name, value in part.items()
            for found in (leaves(value, (*path, name)) if isinstance(value, dict) else {(*path, name)})
        }

    assert len(numbers_of(evidence).facts) == len(leaves(evidence))


def test_facts_are_plain_text() -> None:
    costs = {"large": {"dollars_per_1000": 9.012e-06, "score": 0.5}, "own": {"dollars_per_1000": 12_345.6}}
    uses = {"frozen": {"verdicts": 0.5, "rows": 16, "fresh": 8}}
    facts = numbers_of(evidence(pooled={"labels a and b": ["label a", "label b"]}, answer_costs=costs, uses=uses)).facts
    assert facts["tested together: labels a and b"] == "label a, label b"
    assert facts["answers, large: dollars per 1000"] == "0.000009012"
    assert facts["answers, own: dollars per 1000"] == "12,350"
    assert facts["decided before, frozen holdout: verdicts"] == "0.5"
