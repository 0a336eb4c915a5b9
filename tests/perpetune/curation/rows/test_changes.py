from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perpetune.curation.readers.identity import with_content_id
from perpetune.curation.rows.changes import KINDS, row_changes
from perpetune.records import Example


def row(id_: str, output: str = "yes", text: str = "", source: str = "inbox") -> Example:
    return Example(input=text or f"text {id_}", output=output, id=id_, group=id_, source=source)


def test_each_kind_of_change_is_counted_and_shown() -> None:
    before = {"train": [row("a"), row("b"), row("c"), row("d"), row("same")], "frozen": []}
    after = {
        "train": [row("b", output="no"), row("c", text="text c, edited"), row("e", source="web"), row("same")],
        "frozen": [row("d")],
    }
    found = {each.kind: each for each in row_changes(before, after, labelled=True)}
    assert {kind: each.rows for kind, each in found.items()} == dict.fromkeys(KINDS, 1)
    assert found["changed label"].labels == {"yes → no": 1}
    assert found["changed split"].labels == {"train → frozen": 1}
    assert found["added"].sources == {"web": 1}
    [edited] = found["changed text"].examples
    assert (edited.before, edited.after) == ("text c ⇒ yes", "text c, edited ⇒ yes")
    [removed] = found["removed"].examples
    assert removed.after is None


def without_id(text: str, output: str, source: str = "inbox") -> Example:
    return with_content_id(row("-", output, text, source))


def test_rows_without_ids_keep_who_they_are_when_their_label_is_corrected() -> None:
    before = {"train": [without_id("a", "yes"), without_id("b", "yes"), without_id("c", "yes")]}
    after = {"train": [without_id("a", "no"), without_id("b", "yes")], "frozen": [without_id("c", "no", "web")]}
    found = {each.kind: each for each in row_changes(before, after, labelled=True)}
    assert {kind: each.rows for kind, each in found.items() if each.rows} == {
        "added": 1, "removed": 1, "changed label": 1,
    }  # fmt: skip
    assert found["changed label"].labels == {"yes → no": 1}
    assert [(each.before, each.after) for each in found["changed label"].examples] == [("a ⇒ yes", "a ⇒ no")]


def test_free_text_has_no_labels() -> None:
    found = {
        each.kind: each for each in row_changes({"train": [row("a")]}, {"train": [row("a", "no")]}, labelled=False)
    }
    assert found["changed text"].rows == 1 and found["changed label"].rows == 0
    assert not any(each.labels for each in found.values())


ROWS = st.dictionaries(
    st.sampled_from("abcdef"), st.tuples(st.sampled_from(["train", "frozen"]), st.sampled_from("xyz"))
)


@given(ROWS, ROWS)
def test_what_is_added_one_way_is_removed_the_other(
    before: dict[str, tuple[str, str]], after: dict[str, tuple[str, str]]
) -> None:
    def splits(rows: dict[str, tuple[str, str]]) -> dict[str, list[Example]]:
        return {n: [row(i, output) for i, (split, output) in rows.items() if split == n] for n in ("train", "frozen")}

    there = {each.kind: each.rows for each in row_changes(splits(before), splits(after), labelled=True)}
    back = {each.kind: each.rows for each in row_changes(splits(after), splits(before), labelled=True)}
    assert there["added"] == back["removed"] == len(after.keys() - before.keys())
    assert there["changed label"] == back["changed label"]
    assert there["changed split"] == back["changed split"]
