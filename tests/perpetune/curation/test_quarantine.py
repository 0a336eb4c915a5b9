from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from perpetune.curation.quarantine import Quarantined, in_order, quarantine_in_order
from perpetune.records import Example

rows = st.builds(
    Example,
    input=st.text(max_size=3),
    output=st.sampled_from(["a", "b"]),
    id=st.sampled_from(["1", "2"]),
    group=st.just("g"),
    source=st.sampled_from(["s", "t"]),
)


@given(st.lists(rows, max_size=12), st.integers())
def test_the_order_is_that_of_source_id_and_content_whatever_came_first(found: list[Example], seed: int) -> None:
    shuffled = random.Random(seed).sample(found, len(found))
    expected = sorted(found, key=lambda row: (row.source, row.id, row.model_dump_json()))
    assert in_order(shuffled) == expected
    dropped = [Quarantined(reason="r", example=row) for row in shuffled]
    assert [each.example for each in quarantine_in_order(dropped)] == expected
