"""As test_straddling, with texts, greetings, numbers and markup that the rules were not written for."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from near_duplicate_kinds import KINDS, NEVER_STRADDLE

from perpetune.curation.readers.row import example_of
from perpetune.curation.splitting.assignment_record import AssignmentRecord
from perpetune.curation.steps.split import split
from perpetune.params import SplitParams

PARAMS = SplitParams()
COUNT = 200
WORD_CHANGES = ("typo", "one_word", "number", "word_order")

ALPHABETS = {
    "english": "the quick refund parcel voucher never arrived although we agreed upon delivery before closing time",
    "german": "die Überweisung wurde gestern zurückgebucht obwohl genügend Guthaben vorhanden größer weiß Straße Maß",
    "turkish": "kartım çalınmadı ışık İstanbul ılık şifre değiştirmek istiyorum neden hâlâ bekliyor ödeme",
    "russian": "ещё моя карта заблокирована почему перевод отменён объясните пожалуйста счёт деньги вчера",
    "greek": "η κάρτα μου δεν λειτουργεί σήμερα στο εξωτερικό γιατί χάθηκε πληρωμή λογαριασμός",
    "vietnamese": "tài khoản của tôi bị khóa làm thế nào để đổi mật khẩu thanh toán thẻ ngân hàng",
    "hindi": "मेरा कार्ड अभी तक नहीं आया है कृपया बताइए पैसा कब वापस मिलेगा खाता बंद",
    "arabic": "بطاقتي لم تصل بعد متى سيصل طلبي الجديد من فضلكم الحساب مغلق",
}


def plain_text(language: str, length: int, draw: random.Random, number: int) -> str:
    """Words of a language, and one that no other text has."""
    words = ALPHABETS[language].split()
    own = "".join(draw.choices("bdgklmnprst", k=4)) + "aeiou"[number % 5]
    found = [draw.choice(words) for _ in range(length)]
    found[draw.randrange(length)] = own
    found[draw.randrange(length)] += draw.choice([",", ".", ";", "?"])
    return " ".join(found)


def clause(draw: random.Random, number: int) -> str:
    start = draw.choice(["(b) ", "(iv) ", f"{number % 9 + 1}.{number % 4} ", "§ 4 ", "b. ", "ARTICLE II. ", ""])
    return start + plain_text("english", draw.choice([30, 80, 260, 600]), draw, number) + f" {number} days"


def query(draw: random.Random, number: int) -> str:
    first = "".join(draw.choices("bdgklmnprst", k=3)) + "aeiou"[number % 5] + draw.choice("nrst")
    second = draw.choice("bdgklmnprst") + draw.choice("aeiou") + "".join(draw.choices("bdgklmnprst", k=4))
    return " ".join([first, second, draw.choice(["price", "near me", "login", "reviews", "how to fix"])])


def email(draw: random.Random, number: int) -> str:
    body = plain_text("english", 25, draw, number)
    return (
        f"{draw.choice(['Dear all,', 'Hi Jo -', 'Team:'])}\n\n{body}.\n\n{draw.choice(['Best,', 'Cheers', 'BR'])}\nSam"
    )


def page(draw: random.Random, number: int) -> str:
    body = plain_text("english", 20, draw, number)
    return draw.choice(
        [f"<h1>Note {number}</h1><p>{body}</p>", f"# Note {number}\n\n* {body}\n* see [it](http://a.b/c)"]
    )


TEXTS: dict[str, Callable[[random.Random, int], str]] = {
    "clause": clause,
    "query": query,
    "email": email,
    "page": page,
    **{
        language: lambda draw, number, language=language: plain_text(language, draw.randint(5, 14), draw, number)  # type: ignore[misc]
        for language in ALPHABETS
    },
}

OTHER_GREETINGS = (
    "Good evening, ", "Greetings team,\n", "Dear Mr. and Mrs. O'Neil,\n\n", "Hi Zoë — ", "Hey everyone! ", "Salut Léa,\n",
    "Buenos días, ", "Добрый день, Иван!\n", "Guten Tag Herr Özil,\n\n", "Yo Max,\n", "Ahoj! ", "To whom it may concern:\n",
)  # fmt: skip
OTHER_NUMBERS = (
    "{n} - ", "{n}/ ", "[{n}]: ", "Item {n}. ", "{n}.{n}.2 ", "({n}.) ", "Row #{n}: ", "ix. ", "B) ", "№{n} ", "{n}: ",
    "• ", "Ticket {n} | ", "{n}.) ", "*{n}.* ",
)  # fmt: skip
OTHER_MARKUP = (
    "<b><i>{t}</i></b>", "<span style=\"color:red\" data-x='1'>{t}</span>", "```\n{t}\n```", "```md\n{t}\n```", "### {t} ###",
    "<![CDATA[{t}]]>", "[b]{t}[/b]", "<html><body>\n<p>{t}</p>\n</body></html>", "***{t}***", "| {t} |", r"\emph{{{t}}}",
    "<!-- x --><td>{t}</td>", "> > {t}", "== {t} ==", "- [ ] {t}",
)  # fmt: skip


def other_greeting(text: str, draw: random.Random) -> str:
    return draw.choice(OTHER_GREETINGS) + text


def other_number(text: str, draw: random.Random) -> str:
    return draw.choice(OTHER_NUMBERS).format(n=draw.randint(1, 99)) + text


def other_markup(text: str, draw: random.Random) -> str:
    return draw.choice(OTHER_MARKUP).format(t=text)


CHANGES = {**KINDS, "other_greeting": other_greeting, "other_number": other_number, "other_markup": other_markup}
NEVER = (*NEVER_STRADDLE, "other_greeting", "other_number", "other_markup")


def straddling(kind: str, what: str, count: int = COUNT) -> tuple[list[tuple[str, str]], float]:
    """The pairs of a text and its variant that are in two splits, and the ratio of rows in the frozen holdout."""
    draw = random.Random(f"{kind} {what}")
    pairs = [(text, CHANGES[kind](text, draw)) for text in (TEXTS[what](draw, n) for n in range(count))]
    rows = [
        example_of({"input": text, "output": "yes" if number % 3 else "no", "id": f"{number}-{place}"}, "file")
        for number, pair in enumerate(pairs)
        for place, text in enumerate(pair)
    ]
    splits = split(rows, PARAMS, AssignmentRecord(PARAMS.seed), labelled=True)
    split_of = {row.id: name for name, part in splits.parts().items() for row in part}
    found = [
        pair
        for number, pair in enumerate(pairs)
        if len({split_of.get(f"{number}-{place}") for place in (0, 1)} - {None}) > 1
    ]
    return found, len(splits.frozen) / len(rows)


@pytest.mark.parametrize("what", TEXTS)
@pytest.mark.parametrize("kind", NEVER)
def test_none_straddles(kind: str, what: str) -> None:
    found, frozen = straddling(kind, what)
    assert not found
    assert 0.12 < frozen < 0.28


@pytest.mark.parametrize("what", TEXTS)
@pytest.mark.parametrize("kind", WORD_CHANGES)
def test_of_one_word_changes_at_most_a_twentieth_straddles(kind: str, what: str) -> None:
    found, _ = straddling(kind, what)
    assert len(found) <= 0.05 * COUNT, found[:3]
