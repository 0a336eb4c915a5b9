from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from perpetune.curation.card.languages import Language
from perpetune.curation.card.pictures.drawn import pictures
from perpetune.curation.duplicates.near import NearDuplicates, near_duplicates
from perpetune.curation.duplicates.summary import near_summary
from perpetune.curation.quarantine import Changed, Quarantined, Rejected, StepResult
from perpetune.curation.steps.data_card import Card, describe, render, without_private
from perpetune.curation.steps.mix import NOT_REPLAYED
from perpetune.curation.steps.step_files import read_facts, timed, write_step
from perpetune.params import MixParams, TaskParams
from perpetune.records import Example

Make = Callable[..., Example]
ALL = MixParams(replay=None, recent_days=None)


@pytest.fixture
def card(example: Make, task: Callable[..., TaskParams]) -> Card:
    train = [example(f"text {n}", "yes" if n % 3 else "no", hour=n) for n in range(12)]
    frozen = [example("a <b>bold</b> | text", "never_seen")]
    quarantined = [Quarantined(reason="duplicate", detail=f"of {n}", example=example(f"again {n}")) for n in range(5)]
    return describe(
        task(),
        "0123abcd",
        {"file": 18},
        [Rejected(file="a.csv", line=3, field="input", reason="empty", raw=",x")],
        {"validate": [], "clean": quarantined, "split": []},
        {"train": train, "validation": [], "frozen": frozen, "recent": []},
        ALL,
    )


def test_steps_account_for_every_row(card: Card) -> None:
    assert [(step.name, step.rows, step.kept, step.quarantined) for step in card.steps] == [
        ("fetch", 19, 18, 1),
        ("validate", 18, 18, 0),
        ("clean", 18, 13, 5),
        ("split", 13, 13, 0),
    ]
    assert card.steps[-1].kept == sum(split.rows for split in card.splits)


def test_labels_lengths_and_times_by_split(card: Card) -> None:
    train = card.splits[0]

    assert card.labels == ["yes", "no", "never_seen"]
    assert train.labels == {"yes": 8, "no": 4}
    assert (train.input.median, train.input.max, train.output.max) == (6, 7, 3)
    assert (train.first, train.last) == ("2024-05-01", "2024-05-01")


def test_quarantined_rows_are_shown_with_three_examples(card: Card) -> None:
    assert [(part.step, part.reason, part.rows, len(part.examples)) for part in card.quarantine] == [
        ("fetch", "invalid input", 1, 1),
        ("clean", "duplicate", 5, 3),
    ]
    assert card.quarantine[0].examples[0].location == "a.csv:3"


def test_languages_are_a_table_of_both_pages_if_they_were_detected(card: Card) -> None:
    assert "Languages" not in render(card, "data_card.md") + render(card, "data_card.html")
    found = replace(card, languages=(Language("en", 1_200, 1_200), Language("de", 30, 2)))
    assert "| en | 1,200 | 1,200 | 0 |\n| de | 30 | 2 | 28 |" in render(found, "data_card.md")
    page = render(found, "data_card.html")
    assert "<h2>Languages</h2>" in page and '<td class="r">28</td>' in page


def test_warnings_name_problems_of_the_data(card: Card) -> None:
    warnings = " ".join(card.warnings)

    for words in (
        "6 of 19 rows",
        "never_seen",
        "in no holdout: yes, no",
        "holdout is small (1)",
        "validation split is empty",
    ):
        assert words in warnings


def test_pages_escape_the_content_of_rows(card: Card) -> None:
    html, markdown = render(card, "data_card.html"), render(card, "data_card.md")

    parser = HTMLParser()
    parser.feed(html)
    assert "<b>bold" not in html
    assert "0123abcd" in html
    assert "http" not in html, "the page stands alone"
    assert "| train | 12 | 12 | 6 / 7 / 7 | 3 / 3 / 3 | 2024-05-01 | 2024-05-01 |" in markdown
    assert "| never\\_seen | 0 | 0 | 1 | 0 |" in markdown
    assert "\n\n\n" not in markdown


def test_free_text_has_no_labels(example: Make, task: Callable[..., TaskParams]) -> None:
    rows = [example("q", "a long answer")]
    parts = {"train": rows, "validation": [], "frozen": [], "recent": []}
    card = describe(task("generation"), "0", {"file": 1}, [], {"validate": [], "clean": [], "split": []}, parts, ALL)

    assert not card.labels
    assert "Labels" not in render(card, "data_card.html") + render(card, "data_card.md")


def test_it_says_what_the_mix_was(example: Make, task: Callable[..., TaskParams], card: Card) -> None:
    train = [example("new", source="traffic"), example("old")]
    older = [Quarantined(reason=NOT_REPLAYED, example=example(f"older {n}")) for n in range(3)]
    parts = {"train": train, "validation": [], "frozen": [], "recent": []}
    quarantined = {"validate": [], "clean": [], "split": older}
    mixed = describe(task(), "0", {"file": 2}, [], quarantined, parts, MixParams(replay=1.0, recent_days=None))

    sentence = (
        "The training split has 1 recent rows of labelled traffic and 1 older rows; "
        "3 more older rows are not replayed (mix.replay: 1)."
    )
    assert sentence in render(mixed, "data_card.md")
    assert sentence in render(mixed, "data_card.html")
    assert "no recent labelled traffic, only 12 older rows" in render(card, "data_card.md")


def test_near_duplicates_are_shown_with_the_labels_that_disagree(card: Card, example: Make) -> None:
    rows = [example("where is my <card> now", "late"), example("Where is my <card> now!", "late", id="2")]
    rows += [example("where is your <card> now", "lost"), example("quite another text")]
    summary = near_summary(rows, near_duplicates(rows), labelled=True)
    assert summary is not None
    assert (summary.rows, summary.groups, summary.grouped_rows, summary.largest) == (4, 1, 3, 3)
    assert (summary.disagreements, summary.disagreeing[0][1::2]) == (1, ("late", "lost"))

    full = replace(card, near=summary)
    for template in ("data_card.md", "data_card.html"):
        page = render(full, template)
        assert summary.sentence in page
        assert "1 pairs of near duplicates have different labels" in page
        assert "Near duplicates" not in render(card, template)
    assert near_summary(rows, NearDuplicates(), labelled=True) is None


def test_pictures_are_on_the_page(card: Card, example: Make) -> None:
    rows = {"train": [example(f"text {n}", "yes" if n % 3 else "no", id=str(n)) for n in range(12)]}
    drawn = pictures(card.steps, card.labels, rows, {})
    page = render(card, "data_card.html", drawn)
    assert page.count("<svg") == len(drawn) and "At a glance" in page
    assert "At a glance" not in render(card, "data_card.html")


def test_a_step_shows_what_it_changed_and_reported_and_its_seconds(
    tmp_path: Path, example: Make, task: Callable[..., TaskParams]
) -> None:
    rows = [example("café one", id="1"), example("two", id="2")]
    changed = Changed(source="file", id="1", field="input", before="cafÃ© one", after="café one")
    reported = Quarantined(reason="signature", detail="Joe", example=rows[1])
    with timed(tmp_path, "repair"):
        said = write_step(tmp_path, "repair", StepResult(tuple(rows), (), (changed,), (reported,)))
    assert said == "2 examples, 0 quarantined, 1 changed, 1 reported"
    facts = read_facts(tmp_path, "repair")
    assert facts.seconds is not None
    parts = {"train": rows, "validation": [], "frozen": [], "recent": []}
    done = {"repair": replace(facts, seconds=1.25)}
    card = describe(task(), "0", {"file": 2}, [], {"repair": []}, parts, ALL, done=done)
    markdown, html = render(card, "data_card.md"), render(card, "data_card.html")
    assert "| repair | 2 | 2 | 1 | 1 | 0 | 1.2 |" in markdown
    for page in (markdown, html):
        assert "cafÃ© one" in page
        assert "reported, and kept: signature" in page
    assert "cafÃ©" not in render(without_private(card, lambda text: text.replace("cafÃ©", "█")), "data_card.html")


def test_a_step_that_fails_has_no_seconds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), timed(tmp_path, "repair"):
        raise ValueError("broken")
    assert not list(tmp_path.rglob("*.json"))
