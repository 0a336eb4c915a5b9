"""Rows whose inputs are variants share a sure reading; rows that say other things do not."""

from __future__ import annotations

import pytest

from perpetune.curation.duplicates.readings import Readings, readings_of
from perpetune.records import Example, Message


def read(text: str, *before: Message) -> Readings:
    messages = (*before, Message(role="user", content=text)) if before else ()
    return readings_of([Example(input=text, output="a", id="1", group="1", source="s", messages=messages)])[0]


def are_variants(one: Readings, other: Readings) -> bool:
    return bool(set(one.sure) & set(other.sure))


@pytest.mark.parametrize(
    ("text", "variant"),
    [
        # What begins with a number, a name or markup does so without its marks too.
        ("(b) (Inventor’s name)", " b   Inventor s name "),
        ("(i) the Information and", "i the Information and"),
        ("6.4 Neither party may assign it", "64 Neither party may assign it"),
        ("§ 3.1: The buyer pays", "3 1 the buyer pays!"),
        ("If a<b and c>d, stop", "If a b and c d stop"),
        ("See [the terms](http://a.org/x)", "See the terms http a org x"),
        ("Tom &amp; Ann wait", "Tom amp Ann wait"),
        ("Hi Novell:", "Novell:"),
        ("hi Additionally, ListFusion.", "Additionally, ListFusion."),
        ("Hello there, best of all phones", "best of all phones"),
        # Numbering
        ("iv) Where is it?", "Where is it?"),
        ("①  Where is it?", "Where is it?"),
        ("3️⃣ Where is it?", "Where is it?"),
        ("Step 12 – Where is it?", "Where is it?"),
        ("№ 7 Где моя посылка?", "Где моя посылка?"),
        ("б) Где моя посылка?", "Где моя посылка?"),
        ("三、我的卡丢了", "我的卡丢了"),
        ("1. Open it.\n2. Close it.", "Open it.\nClose it."),
        ("Q13: 1.1.1", "1.1.1"),
        # Greetings and signatures
        ("Dear Customer Care Team,\n\nwhere is it?", "where is it?"),
        ("Estimado señor Ruiz:\n¿dónde está?", "¿dónde está?"),
        ("Sehr geehrte Frau Dr. Wolf,\nwo ist es?", "wo ist es?"),
        ("こんにちは、カードが届きません", "カードが届きません"),
        ("您好!我的卡丢了", "我的卡丢了"),
        ("Где она?\n\nС уважением,\nОльга Петрова\nООО «Ромашка»", "Где она?"),
        ("where is it?\n\nKind regards,\nAnna Wolf\nHead of Sales\nwww.example.org", "where is it?"),
        # Markup
        ("```text\nwhere is it?\n```", "where is it?"),
        ("<![CDATA[where is it?]]>", "where is it?"),
        ("<style>p {color: red}</style><p>where is it?</p>", "where is it?"),
        (r"\textbf{where} is it?", "where is it?"),
        ("where is [[Main Page|it]]?", "where is it?"),
        ('where is [it](http://a.org "a title")?', "where is it?"),
        # Case and Unicode
        ("DİYARBAKIR NERESİ", "diyarbakır neresi"),
        ("Straße nach ΑΘΗΝΑΣ", "STRASSE nach αθηνας"),
        ("Où est le café ?", "Ou est le cafe"),
        ("👍", "👍!"),
        (":-)", ":-)."),
        ("- -", "-"),
    ],
)
def test_variants_share_a_reading(text: str, variant: str) -> None:
    assert are_variants(read(text), read(variant))
    before = (Message(role="user", content=text), Message(role="assistant", content="What?"))
    after = (Message(role="user", content=variant), Message(role="assistant", content="what?"))
    assert are_variants(read("(a) so", *before), read("so", *after))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("12 - 7", "15 - 7"),
        ("3 cards arrived", "2 cards arrived"),
        ("10:30 meeting", "11:30 meeting"),
        ("3-day trial", "5-day trial"),
        ("24/7 support", "support"),
        ("a.m. flights", "p.m. flights"),
        ("I/O error", "O error"),
        ("No, it works", "Yes, it works"),
        ("It works. Best phone ever", "It works"),
        (":-)", ":-("),
    ],
)
def test_other_texts_share_none(one: str, other: str) -> None:
    assert not are_variants(read(one), read(other))


@pytest.mark.parametrize(
    ("text", "variant"),
    [
        ("Goedkeuring gevraagd voor mijn bestelling", "Lieve mensen, goedkeuring gevraagd voor mijn bestelling"),
        ("where is the parcel that you sent", "Yo Sam! where is the parcel that you sent"),
        ("where is the parcel that you sent?", "where is the parcel that you sent?\n\nToodle-oo,\nSam Fry\nDesk 4"),
        ("where is the parcel that you sent", "where is the parcel that you sent\nSam"),
    ],
)
def test_a_short_clause_in_no_list_makes_near_duplicates(text: str, variant: str) -> None:
    one, other = read(text), read(variant)
    assert set(one.sure) & {*other.sure, *other.loose}


def test_a_clause_is_not_taken_from_a_short_rest() -> None:
    assert not read("Sam, it works").loose
