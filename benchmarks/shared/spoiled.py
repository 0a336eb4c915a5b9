"""Data spoiled in known places: wrong labels, copies, personal data, other languages, boilerplate, broken encodings."""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from perpetune.curation.readers.reviews import find_wheel, product_examples
from perpetune.curation.readers.row import example_of
from perpetune.records import Example

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "helpers"))

from near_duplicate_kinds import KINDS as KINDS

_PERSONAL = ("mail me at {n}.okafor@example.org", "my phone is +44 20 7946 0{n}", "my card is 4111 1111 1111 1111, {n}")
_SENTENCES = (
    "Der Film war leider viel zu lang, und der Schluss hat mich enttäuscht",
    "Le virement n'est jamais arrivé",
    "Me han robado la cartera esta mañana",
    "Il contratto scade alla fine del mese",
    "O aplicativo fecha sozinho toda hora",
    "Waarom is mijn rekening geblokkeerd?",
    "Jag har tappat bort mitt kort igen",
    "Filmen var virkelig kedelig og alt for lang",
    "Jeg forstår ikke hvorfor betalingen ble avvist",
    "Elokuva oli todella tylsä ja aivan liian pitkä",
    "Kiedy dostanę zwrot pieniędzy?",
    "Proč mi byl účtován poplatek?",
    "Hol találom a számlaszámomat?",
    "Nu pot să mă conectez la cont",
    "Paramı ne zaman geri alacağım?",
    "Kenapa kartu saya ditolak terus?",
    "Làm thế nào để đổi mật khẩu của tôi",
    "Почему мой платёж отклонён?",
    "Фільм мені зовсім не сподобався",
    "Η κάρτα μου δεν λειτουργεί στο εξωτερικό",
    "متى سيصل طلبي الجديد من فضلكم",
    "मेरा कार्ड अभी तक नहीं आया है",
    "口座の残高を確認する方法を教えてください",
    "请问我的退款什么时候到账",
)
_BOILERPLATE = "\n\nThis e-mail and any attachments are confidential and intended solely for the addressee."


def reviews(assets: Path) -> list[Example]:
    """Sentences of product reviews, positive or negative; a group is a review."""
    return product_examples(find_wheel(assets), ("positive", "negative"))


def banking(folder: Path, part: str) -> list[Example]:
    """Customer messages with one of 77 intents: `part` is train or test."""
    with (folder / f"{part}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        example_of({"input": row["text"], "output": row["category"], "id": f"{part}-{number}"}, "banking77")
        for number, row in enumerate(rows)
    ]


def with_flipped_labels(
    rows: Sequence[Example], rate: float, draw: random.Random
) -> tuple[list[Example], dict[str, str]]:
    """The rows, of which so many have another label; and the right label of those, by id."""
    labels = sorted({row.output for row in rows})
    wrong = {row.id: row.output for row in draw.sample(list(rows), round(rate * len(rows)))}
    return [
        row.model_copy(update={"output": draw.choice([label for label in labels if label != row.output])})
        if row.id in wrong
        else row
        for row in rows
    ], wrong


def copies(rows: Sequence[Example], count: int, draw: random.Random) -> list[Example]:
    """Exact copies under other ids."""
    return [row.model_copy(update={"id": f"copy {row.id}"}) for row in draw.sample(list(rows), count)]


def variants(rows: Sequence[Example], kind: str, draw: random.Random) -> list[Example]:
    """Each row written again in one of the 17 ways, as a row of its own; those that stay the same are left out."""
    again = [(row, KINDS[kind](row.input, draw)) for row in rows]
    return [
        example_of({"input": text, "output": row.output, "id": f"{kind} {row.id}"}, row.source)
        for row, text in again
        if text.strip() and text != row.input
    ]


def with_personal_data(row: Example, number: int) -> Example:
    return row.model_copy(update={"input": f"{row.input} {_PERSONAL[number % 3].format(n=100 + number)}"})


def in_another_language(row: Example, number: int) -> Example:
    return row.model_copy(update={"input": f"{_SENTENCES[number % len(_SENTENCES)]} ({number})"})


def with_boilerplate(row: Example, number: int) -> Example:
    return row.model_copy(update={"input": row.input + _BOILERPLATE})


def in_a_wrong_encoding(row: Example, number: int) -> Example:
    text = f"{row.input} – “café” n° {number}, naïve"
    return row.model_copy(update={"input": text.encode("utf-8").decode("cp1252", "replace")})
