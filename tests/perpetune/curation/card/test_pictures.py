from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetune.curation.card.pictures.balance import balance
from perpetune.curation.card.pictures.drawn import pictures
from perpetune.curation.card.pictures.funnel import funnel
from perpetune.curation.card.pictures.histogram import histogram
from perpetune.curation.card.pictures.input_map import COLOURS, POINTS, input_map, points
from perpetune.curation.card.pictures.languages import languages
from perpetune.curation.card.pictures.near_groups import near_groups
from perpetune.curation.card.pictures.svg import WIDTH
from perpetune.records import Example

Make = Callable[..., Example]


@dataclass(frozen=True)
class Counts:
    name: str
    rows: int
    kept: int


def elements(picture: str, tag: str) -> list[ET.Element]:
    return [each for each in ET.fromstring(picture).iter() if each.tag == tag]


def hints(picture: str) -> list[str]:
    return [each.text or "" for each in elements(picture, "title")]


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 1)), min_size=1, max_size=9))
def test_the_funnel_is_as_wide_as_the_rows_that_are_left(found: list[tuple[int, float]]) -> None:
    steps = [(f"step {n} <&>", rows, int(rows * ratio)) for n, (rows, ratio) in enumerate(found)]
    bars = [each for each in elements(funnel(steps), "rect") if each.get("class") == "train"]
    most = max(rows for _, rows, _ in steps) or 1
    whole = max(float(each.get("width", 0)) for each in elements(funnel([("a", most, most)]), "rect"))
    for bar, (_, _, kept) in zip(bars, steps, strict=True):
        assert float(bar.get("width", 0)) == pytest.approx(whole * kept / most, abs=0.1)
        assert float(bar.get("x", 0)) >= 0 and float(bar.get("x", 0)) + float(bar.get("width", 0)) <= WIDTH


def test_bars_of_languages_show_what_was_kept_and_never_leave_the_picture() -> None:
    drawn = languages([("en", 900, 900), ("de", 36, 0), ("undecided", 9, 9), ("fr", 4, 1)])
    widths: dict[str, list[float]] = {"out": [], "train": []}
    for each in elements(drawn, "rect"):
        widths[each.get("class", "")].append(float(each.get("width", 0)))
        assert float(each.get("x", 0)) + float(each.get("width", 0)) <= WIDTH
    assert widths["out"][1] == pytest.approx(widths["out"][0] / 5, abs=0.1)
    assert widths["train"] == pytest.approx([widths["out"][0], 0, widths["out"][2], widths["out"][3] / 4], abs=0.1)
    assert "900" in [each.text for each in elements(drawn, "text")]
    assert "0 (−36)" in [each.text for each in elements(drawn, "text")]


def test_long_labels_that_begin_alike_stay_different() -> None:
    labels = [f"direct_debit_payment_of_a_customer_not_{end}" for end in ("recognised", "received")]
    drawn = balance(labels, {"train": dict.fromkeys(labels, 1)})
    names = re.findall(r'<text x="0"[^>]*>([^<]*)</text>', drawn)
    assert len(set(names)) == 2 and all(name.startswith("direct_debit") and "…" in name for name in names)
    assert ">card_payment_fee_charged<" in balance(
        ["card_payment_fee_charged"], {"train": {"card_payment_fee_charged": 1}}
    )


def test_balanced_splits_have_their_dots_at_one_place() -> None:
    drawn = balance(["yes", "no"], {"train": {"yes": 60, "no": 20}, "frozen": {"yes": 3, "no": 1}, "recent": {}})
    places = {each.get("cx") for each in elements(drawn, "circle") if (each[0].text or "").startswith("yes")}
    assert len(places) == 1
    assert sorted(hints(drawn)) == [
        "no: 25.0% of frozen",
        "no: 25.0% of train",
        "yes: 75.0% of frozen",
        "yes: 75.0% of train",
    ]


@given(st.dictionaries(st.sampled_from(["train", "frozen"]), st.lists(st.integers(0, 10**5), max_size=80)))
def test_every_row_is_in_a_bar_of_the_histogram(lengths: dict[str, list[int]]) -> None:
    drawn = histogram(lengths, "inputs")
    shown = [int(re.sub(r"\D", "", hint.split(" rows")[0].split(": ")[1])) for hint in hints(drawn)] if drawn else []
    assert sum(shown) == sum(map(len, lengths.values()))


@given(st.dictionaries(st.integers(2, 200), st.integers(1, 50)))
def test_every_group_is_counted_once(sizes: dict[int, int]) -> None:
    drawn = near_groups(sizes)
    assert sum(int(hint.split(" group")[0]) for hint in hints(drawn)) == sum(sizes.values())


def test_alike_inputs_are_near_each_other_on_the_map(example: Make) -> None:
    rows = [example(f"my card has not arrived, it is late by {n} days", "late", id=f"l{n}") for n in range(30)]
    rows += [example(f"what is the exchange rate of currency {n}", "rate", id=f"r{n}") for n in range(30)]
    found = points([(row.output, row) for row in rows])
    assert found == points([(row.output, row) for row in reversed(rows)]), "the order of the rows does not matter"
    middles = {kind: sum(each.x for each in found if each.kind == kind) / 30 for kind in ("late", "rate")}
    spread = max(abs(each.x - middles[each.kind]) for each in found)
    assert abs(middles["late"] - middles["rate"]) > spread
    drawn = input_map(found, ["late", "rate"], labelled=True)
    assert {each.get("class") for each in elements(drawn[drawn.index("<svg") :], "circle")} == {"c0", "c1"}


def test_the_map_takes_a_sample_and_names_the_labels_without_a_colour(example: Make) -> None:
    rows = [example(f"word{n % 90} and word{n % 70} again", f"label {n % 20}", id=str(n)) for n in range(POINTS + 300)]
    found = points([(row.output, row) for row in rows])
    assert len(found) == POINTS
    kinds = [f"label {n}" for n in range(20)]
    assert f"{20 - COLOURS} others" in input_map(found, kinds, labelled=True)


@pytest.mark.parametrize(
    "texts", [[], ["a"], ["same"] * 50, ["-", "- -", "\u200b"], ["?", "!", ".", ",", ";", ":"], list("abcdefg")]
)
def test_too_few_texts_make_no_map_and_no_error(texts: list[str], example: Make) -> None:
    found = points([("x", example(text, id=str(n))) for n, text in enumerate(texts)])
    assert len(found) in (0, len(texts))


def test_what_a_row_says_is_no_markup(example: Make) -> None:
    rows = [example(f"<script>{n}</script> & more {n}", "<b>", id=str(n)) for n in range(8)]
    drawn = pictures([Counts("<i>", 8, 8)], ["<b>"], {"train": rows, "frozen": []}, {2: 1})
    assert set(drawn) == {"funnel", "balance", "inputs", "map", "near"}
    for each in drawn.values():
        assert "<script" not in each and "<b>" not in each and "<i>" not in each
        ET.fromstring(each[each.index("<svg") :])
    free = pictures([Counts("fetch", 8, 8)], [], {"train": rows, "frozen": []}, {})
    assert set(free) == {"funnel", "inputs", "outputs", "map"}
