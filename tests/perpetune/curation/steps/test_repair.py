from __future__ import annotations

import json
from collections.abc import Callable

import ftfy.bad_codecs  # noqa: F401  # registers its encodings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpetune.curation.quarantine import Changed
from perpetune.curation.steps.repair import repair
from perpetune.params import RepairParams, TaskParams
from perpetune.records import Example

Make = Callable[..., Example]
ALL = RepairParams(invisible=True, markup=True, boilerplate="remove", repeated_lines=0.3)
TEXT = TaskParams.model_validate({"name": "words", "kind": "generation", "instruction": ""})
LABELS = TaskParams.model_validate({"name": "words", "kind": "classification", "instruction": ""})

RIGHT = [
    "naïve café, Übergröße, señor, œuvre, Đà Nẵng, İstanbul",
    "می‌خواهم نامه‌ای بنویسم",
    "क्‍ष और श्रीमान्‌",
    "مرحبا، كيف حالك؟ אני כאן \u200f(test)\u200f שלום",
    "今日はいい天気ですね。「はい」 한국어 中文",
    "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ❤️ 👍🏽",
    "สวัสดี\u200bครับ",
    "if a < b and c > d:\n    return a & b; // &amp;",
    '{"html": "<b>x</b> &amp; y", "n": [1, 2]}',
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "<!doctype html><html><body><p>&copy; x</p></body></html>",
    "x < y > z, AT&T, R&D; fish & chips",
    "use &lt;b&gt; for bold text",
    "Dear team,\n> this is a Markdown quote\nand this is mine",
    "first -- second\n- a list\n- of two",
    "He said the file he sent from my office computer is confidential",
    "# Title\n\n1. one\n2. two",
    "Price: 5 € → 4,50 €; 20 °C, ½ cup, x² ≤ 3 µm",
]


def inputs(rows: list[Example], params: RepairParams, task: TaskParams = TEXT) -> list[str]:
    by_id = {row.id: row.input for row in repair(rows, params, task).kept}
    return [by_id[row.id] for row in rows]


@pytest.mark.parametrize("text", RIGHT)
def test_text_that_is_right_stays(text: str, example: Make) -> None:
    row = example(text, text)
    result = repair([row], ALL, TEXT)
    assert result.kept == (row,)
    assert not result.changed


SENTENCES = [
    "Schöne Grüße aus Köln – für Übermut",
    "l’été dernier, à la plage, très agréable",
    "El niño comió piñas “ayer”",
]


@pytest.mark.parametrize("text", SENTENCES)
@pytest.mark.parametrize("encoding", ["latin-1", "sloppy-windows-1252"])
@pytest.mark.parametrize("times", [1, 2])
def test_mojibake_is_repaired_by_default(text: str, encoding: str, times: int, example: Make) -> None:
    broken = text
    for _ in range(times):
        broken = broken.encode().decode(encoding)
    [row] = repair([example(broken, broken)], RepairParams(), TEXT).kept
    assert (row.input, row.output) == (text, text)


def test_only_mojibake_is_repaired_by_default(example: Make) -> None:
    row = example("a\u200bb &amp; <br>c\n\nSent from my iPhone")
    result = repair([row], RepairParams(), TEXT)
    assert result.kept == (row,)
    assert [(each.reason, each.detail) for each in result.reported] == [
        ("line of a mail program", "Sent from my iPhone")
    ]


def test_a_question_about_mojibake_is_left_as_it_is(example: Make) -> None:
    row = example("Why does my page show cafÃ© although it is UTF-8?", "Declare the charset.")
    assert repair([row], RepairParams(), TEXT).kept == (row,)


def test_a_label_is_repaired_only_into_one_that_exists(example: Make) -> None:
    rows = [example("a", "Ã\u009cberweisung"), example("b", "Überweisung"), example("c", "spÃ¤t")]
    kept = repair(rows, RepairParams(), LABELS).kept
    assert sorted(row.output for row in kept) == ["spÃ¤t", "Überweisung", "Überweisung"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\u200bb\u00ad c\ufeff", "ab c"),
        ("pay\u200cpal", "paypal"),
        ("\u202eabc\u202c", "abc"),
        ("Tom &amp; Jerry &#39;s &euro;5 &amp;amp;", "Tom & Jerry 's €5 &"),
        ('Great!<br/>Really <b>good</b> <a href="http://x.org">link</a>', "Great!\nReally good link"),
        ("Hello there\n\n-- \nJoe Doe\nACME Ltd", "Hello there"),
        ("Wo ist es?\n\nVon meinem iPhone gesendet", "Wo ist es?"),
        ("Thanks\n\nOn Mon, 3 May 2021 at 10:00, Joe <j@x.org> wrote:\n> hi\n> there", "Thanks"),
        ("Ok.\n-----Original Message-----\nFrom: me\nTo: you\nhi", "Ok."),
        ("Ok.\n\nFrom: A <a@x.org>\nSent: Monday\nTo: B\nSubject: C\n\nhello", "Ok."),
        ("Hi.\n\nThis e-mail is confidential and intended solely for the addressee.", "Hi."),
    ],
)
def test_left_overs_are_removed_if_asked_for(text: str, expected: str, example: Make) -> None:
    assert inputs([example(text)], ALL) == [expected]


def test_a_text_is_never_emptied(example: Make) -> None:
    assert inputs([example("\nSent from my iPhone")], ALL) == ["\nSent from my iPhone"]


def test_lines_that_many_inputs_have_are_boilerplate(example: Make) -> None:
    lines = ["Welcome to the help desk of ACME!", "Do not reply to this automatic message."]
    rows = [example(f"{lines[0]}\nmy question number {n}\n{lines[1]}") for n in range(30)]
    rows += [example(f"a question without them {n}\nand a line {n}") for n in range(30)]
    assert inputs(rows, ALL)[:2] == ["my question number 0", "my question number 1"]
    reported = repair(rows, ALL.model_copy(update={"boilerplate": "report"}), TEXT)
    assert len(reported.reported) == 60
    assert inputs(rows[:10] + rows[30:], ALL) == [row.input for row in rows[:10] + rows[30:]], "ten are no pattern"


def test_what_changed_is_written_down(example: Make) -> None:
    row = example("cafÃ©", "thÃ©", id="7")
    assert repair([row], RepairParams(), TEXT).changed == (
        Changed(source="file", id="7", field="input", before="cafÃ©", after="café"),
        Changed(source="file", id="7", field="output", before="thÃ©", after="thé"),
    )


def test_equal_inputs_are_in_one_group_afterwards_and_traffic_keeps_its_own(example: Make) -> None:
    broken, right = example("cafÃ©"), example("café")
    traffic = example("cafÃ©", source="traffic")
    kept = repair([broken, traffic], RepairParams(), TEXT).kept
    assert {row.source: row.group for row in kept} == {"file": right.group, "traffic": traffic.group}


BROKEN = ["cafÃ©", "Ã", "â€™", "é".encode().decode("cp1252"), "\x85", "Â\xa0", "\ufeff", "\u200b", "\u00ad"]
MARKUP = ["&amp;", "&lt;br&gt;", "<br>", "&amp;lt;p&amp;gt;", "&shy;", "&#13;"]
MAIL = ["\n-- \nJoe", "\nSent from my phone", "\nOn Monday, Joe Doe wrote:\n> a", "Welcome to the help desk!\n"]
MARKS = ["\n", "\nFrom: a\nSent: b\n", "def f(x):", "```", "{", "}", ";"]
PIECES = st.sampled_from([*RIGHT, *BROKEN, *MARKUP, *MAIL, *MARKS])
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=8)), min_size=1, max_size=6).map("".join)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=40), st.booleans())
def test_rows_stay_and_a_second_run_changes_nothing(pairs: list[tuple[str, str]], defaults: bool) -> None:
    rows = [
        Example(input=one, output=other, id=str(number), group=str(number % 9), source="f")
        for number, (one, other) in enumerate(pairs)
    ]
    params = RepairParams() if defaults else ALL
    once = repair(rows, params, TEXT)
    assert sorted(row.id for row in once.kept) == sorted(row.id for row in rows)
    assert not once.quarantined
    assert once == repair(list(reversed(rows)), params, TEXT)
    twice = repair(once.kept, params, TEXT)
    assert twice.kept == once.kept
    assert not twice.changed


def test_json_outputs_stay_json(example: Make) -> None:
    row = example("Ã¼ber", json.dumps({"text": "Ã¼ber"}, ensure_ascii=False))
    [repaired] = repair([row], ALL, TEXT).kept
    assert json.loads(repaired.output) == {"text": "über"}
