from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetune.curation.languages import Confidences
from perpetune.curation.splitting.assignment_record import AssignmentRecord
from perpetune.curation.steps.language import FOREIGN, language, run
from perpetune.errors import PerpetuneError
from perpetune.params import LanguageParams
from perpetune.records import Example

Make = Callable[..., Example]
ENGLISH = LanguageParams(keep=("en",))

KEPT = [
    "My parcel has still not arrived, can you please help me?",
    "Where is it?",
    "refund",
    "SELECT name FROM customers WHERE id = 4;",
    "https://example.org/de/hilfe/wo-ist-mein-paket?x=1",
    '{"nachricht": "Wo ist mein Paket geblieben, ich warte seit Wochen"}',
    "Invoice 4711, order 0815, 12.03.2024, 99.90 EUR",
    "I would like to return the Schuhe that I bought at Müller last week",
]
FOREIGN_TEXTS = [
    "Wo bleibt mein Paket, ich warte schon seit drei Wochen darauf",
    "Je voudrais annuler ma commande et être remboursé s'il vous plaît",
    "Quiero devolver el producto que compré la semana pasada",
    "سلام حال شما چطور است امروز هوا خیلی خوب است",
    "今日はいい天気ですね、散歩に行きましょう",
    "Я хочу вернуть товар, который купил на прошлой неделе",
]


def test_rows_in_another_language_are_set_aside(example: Make) -> None:
    rows = [example(text) for text in [*KEPT, *FOREIGN_TEXTS]]
    result = language(rows, ENGLISH)
    assert {row.input for row in result.rows.kept} == set(KEPT)
    assert {row.example.input for row in result.rows.quarantined} == set(FOREIGN_TEXTS)
    assert {row.reason for row in result.rows.quarantined} == {FOREIGN}
    assert sum(each["rows"] for each in result.languages.values()) == len(rows)
    assert sum(each["kept"] for each in result.languages.values()) == len(KEPT)
    assert result.languages["undecided"]["kept"] >= 5
    assert result.languages["de"] == {"rows": 1, "kept": 0}


BY_CHANCE = [
    "How can I change USD to GBP?",
    "What is the auto top-up limit?",
    "Where do I find the auto top- up?",
    "My withdrawal is pending, why?",
    "I think my card is stolen!",
    "the best ipod alternative.",
    "it don't get any better then the nikon 4300.",
]
"""English, and each likelier in another language by its trigrams alone."""


def test_a_few_words_that_are_likelier_in_a_language_of_no_other_row_are_kept(example: Make) -> None:
    usual = [
        f"My {what} has not {done} {when}, can you please help me?"
        for what in ("parcel", "new card", "money", "invoice", "refund", "statement", "password mail", "transfer")
        for done in ("arrived", "been sent", "worked", "been accepted", "changed")
        for when in ("since Monday", "for three weeks", "at all", "again", "on my phone")
    ]
    rows = [example(text) for text in [*usual, *BY_CHANCE, *FOREIGN_TEXTS]]
    result = language(rows, ENGLISH).rows
    assert {row.example.input for row in result.quarantined} == set(FOREIGN_TEXTS)


def test_rows_that_are_all_in_another_language_are_dropped_all(example: Make) -> None:
    rows = [example(f"{FOREIGN_TEXTS[0]}, Bestellung {number}") for number in range(50)]
    assert language(rows, ENGLISH).rows.kept == ()


def test_batches_change_nothing(example: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [example(text) for text in [*KEPT, *BY_CHANCE, *FOREIGN_TEXTS]]
    whole = language(rows, ENGLISH)
    monkeypatch.setattr("perpetune.curation.running.engine.BATCH", 3)
    assert language(rows, ENGLISH) == whole


def test_a_row_of_the_frozen_holdout_is_only_reported(example: Make) -> None:
    row = example(FOREIGN_TEXTS[0])
    record = AssignmentRecord(7).with_rows({"frozen": [row]})
    result = language([row], ENGLISH, record).rows
    assert (result.kept, result.quarantined) == ((row,), ())
    assert [each.detail[:2] for each in result.reported] == ["de"]


def test_several_languages_share_their_confidence(example: Make) -> None:
    def unsure(texts: Sequence[str]) -> list[Confidences]:
        return [{"da": 0.45, "nb": 0.45, "en": 0.1} for _ in texts]

    row = example("jeg vil gerne returnere den vare jeg har købt")
    assert language([row], LanguageParams(keep=("nb",)), detect=unsure).rows.kept == (row,)
    assert language([row], LanguageParams(keep=("en",)), detect=unsure).rows.kept == (), "it is certainly not English"


def test_without_languages_to_keep_nothing_is_detected(example: Make) -> None:
    def never(_: Sequence[str]) -> list[Confidences]:
        raise AssertionError

    row = example(FOREIGN_TEXTS[0])
    assert language([row], LanguageParams(), detect=never).rows.kept == (row,)


def test_an_unknown_language_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PerpetuneError, match="code 'eng'"):
        run(LanguageParams(keep=("eng",)), 7, tmp_path)


@given(st.lists(st.sampled_from([*KEPT, *FOREIGN_TEXTS]), max_size=20))
def test_rows_in_are_rows_kept_and_quarantined(inputs: list[str]) -> None:
    rows = [Example(input=text, output="x", id=str(n), group="g", source="f") for n, text in enumerate(inputs)]

    def detect(texts: Sequence[str]) -> list[Confidences]:
        return [{"en": 1.0} if text in KEPT else {"de": 0.9, "en": 0.1} for text in texts]

    once = language(rows, ENGLISH, detect=detect).rows
    assert sorted(row.id for row in once.kept) + sorted(row.example.id for row in once.quarantined) == sorted(
        (row.id for row in rows), key=lambda id_: (id_ not in {row.id for row in once.kept}, id_)
    )
    assert once == language(rows[::-1], ENGLISH, detect=detect).rows
    assert language(once.kept, ENGLISH, detect=detect).rows.kept == once.kept
