from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from perpetune.monitoring.independent import independent
from perpetune.records import Prediction

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def row(number: int, text: str, group: str | None = None, days: int = 0) -> Prediction:
    return Prediction(
        id=str(number),
        time=NOON + timedelta(days=days),
        task="tickets",
        version="1",
        messages=(),
        input=text,
        output="",
        prompt_tokens=0,
        completion_tokens=0,
        latency_ms=0,
        group=group,
    )


def test_one_label_a_day_counts_of_a_user_and_of_equal_inputs() -> None:
    rows = [
        row(0, "A b"),
        row(1, "a  B"),
        row(2, "x", "ann"),
        row(3, "y", "ann"),
        row(4, "y", "ann", days=1),
        row(5, "c"),
    ]
    assert [each.id for each in independent(rows)] == ["0", "2", "4", "5"]


@given(
    st.lists(st.builds(row, st.just(0), st.sampled_from("abc"), st.none(), st.integers(0, 1)), max_size=12), st.data()
)
def test_it_does_not_matter_which_check_reads_a_label(rows: list[Prediction], data: st.DataObject) -> None:
    rows = [each.model_copy(update={"id": str(number)}) for number, each in enumerate(rows)]
    cut = data.draw(st.integers(0, len(rows)))
    divided = [*independent(rows[:cut]), *independent(rows[cut:], rows[:cut])]
    assert [each.id for each in divided] == [each.id for each in independent(rows)]
