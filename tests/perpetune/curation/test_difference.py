from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perpetune.curation.difference import Count, difference
from perpetune.records import Example

ROWS = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.tuples(st.sampled_from(["train", "frozen"]), st.sampled_from(["yes", "no"]), st.sampled_from(["inbox", "web"])),
)


def row(id_: str, output: str = "yes", source: str = "inbox") -> Example:
    return Example(input=f"text {id_}", output=output, id=id_, group=id_, source=source)


def test_rows_come_go_change_and_move() -> None:
    before = {"train": [row("a"), row("b"), row("c")], "recent": [row("d")]}
    after = {"train": [row("a"), row("b", "no"), row("d"), row("e", source="traffic")], "recent": []}
    found = difference(before, after, labelled=True)
    assert (found.added, found.removed, found.changed, found.moved) == (1, 1, 1, 1)
    assert found.splits == {"train": Count(3, 4), "recent": Count(1, 0)}
    assert found.sources == {"inbox": Count(4, 3), "traffic": Count(0, 1)}
    assert found.labels == {"yes": Count(4, 3), "no": Count(0, 1)}
    assert difference(before, after, labelled=False).labels == {}


@given(ROWS, ROWS)
def test_the_counts_add_up_and_turn_round(
    before: dict[str, tuple[str, str, str]], after: dict[str, tuple[str, str, str]]
) -> None:
    def splits(rows: dict[str, tuple[str, str, str]]) -> dict[str, list[Example]]:
        return {
            name: [row(id_, output, source) for id_, (split, output, source) in rows.items() if split == name]
            for name in ("train", "frozen")
        }

    there = difference(splits(before), splits(after), labelled=True)
    back = difference(splits(after), splits(before), labelled=True)
    assert len(before) + there.added - there.removed == len(after)
    assert (there.added, there.removed, there.changed, there.moved) == (
        back.removed,
        back.added,
        back.changed,
        back.moved,
    )
    for counts in (there.splits, there.sources, there.labels):
        assert sum(count.before for count in counts.values()) == len(before)
        assert sum(count.after for count in counts.values()) == len(after)
    same = difference(splits(before), splits(before), labelled=True)
    assert not (same.added or same.removed or same.changed or same.moved)
