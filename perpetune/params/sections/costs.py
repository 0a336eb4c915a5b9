"""`promote.costs`: what a wrong answer costs, by right answer and answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from perpetune.params.sections.kinds import fault_at

ANY_ANSWER = "*"  # in a row of `promote.costs`: every answer that is not named


def _of_any_answer(costs: object) -> object:
    """`fraud: 50` as `fraud: {"*": 50}`."""
    if not isinstance(costs, Mapping):
        return costs
    return {
        right: {ANY_ANSWER: cost} if isinstance(cost, int | float) and not isinstance(cost, bool) else cost
        for right, cost in costs.items()
    }


def _right_answers_are_free(costs: dict[str, dict[str, float]] | None) -> dict[str, dict[str, float]] | None:
    for right, row in (costs or {}).items():
        if row.get(right):
            raise fault_at((right, right), f"the right answer costs nothing, got {row[right]:g}")
    return costs


Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Costs = Annotated[
    dict[str, dict[str, Cost]] | None, BeforeValidator(_of_any_answer), AfterValidator(_right_answers_are_free)
]


def unknown_labels(
    costs: Mapping[str, Mapping[str, float]], floors: Iterable[str], labels: Iterable[str] | None
) -> Iterator[tuple[str, ...]]:
    """Where `promote.costs` and `promote.recall_floors` name a label that the task does not have; None: not known yet."""
    if labels is None:
        return
    known = {_label(label) for label in labels}
    for right, row in costs.items():
        if _label(right) not in known:
            yield "costs", right
        yield from (("costs", right, answer) for answer in row if _label(answer) not in {*known, ANY_ANSWER})
    yield from (("recall_floors", label) for label in floors if _label(label) not in known)


def _label(text: str) -> str:
    """Case and whitespace do not tell labels apart."""
    return " ".join(text.split()).casefold()
