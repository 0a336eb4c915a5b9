"""How much of generated personal data is found, and how much else is taken for it.

Values come from numbering plans and checksums, by code that shares nothing with the patterns: libphonenumber's example
of each country, check digits that are computed here, and random keys in the form that a provider documents.
"""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Iterator
from dataclasses import dataclass

import phonenumbers

from perpetune.curation.steps.private import finder, private
from perpetune.params import PrivateParams, TaskParams
from perpetune.records import Example

SEED = 11
TEXT = TaskParams.model_validate({"name": "words", "kind": "generation", "instruction": ""})
REPLACE = PrivateParams(mode="replace", names="off")

REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "PL", "SE", "BR", "MX", "IN", "JP", "AU", "TR", "ZA", "CH", "KR")
FRAMES = (
    "Hello, you can reach me at {} until Friday.",
    "Bonjour, voici mes coordonnées : {}, merci d'avance.",
    "Guten Tag, bitte {} verwenden, danke!",
    "{}",
    "old\n{}\nnew",
    "お問い合わせは {} まで",
    "contact=({}), thanks",
)


@dataclass(frozen=True)
class Case:
    """A text with a value in it; `kind` None says that it is no personal data."""

    kind: str | None
    value: str
    text: str


def cases() -> list[Case]:
    dice = random.Random(SEED)
    positives = [(kind, value) for kind, values in (_values(dice)).items() for value in values]
    found = [
        Case(kind, value, FRAMES[number % len(FRAMES)].format(value)) for number, (kind, value) in enumerate(positives)
    ]
    return found + [Case(None, text, text) for text in _harmless(dice)]


def _values(dice: random.Random) -> dict[str, list[str]]:
    return {
        "email": [_email(dice) for _ in range(40)],
        "phone": list(_phones()),
        "card": [_card(dice) for _ in range(30)],
        "iban": [
            _iban(dice, country) for country in ("DE", "FR", "GB", "NL", "ES", "IT", "BE", "AT") for _ in range(4)
        ],
        "ip": [".".join(str(dice.randint(11, 250)) for _ in range(4)) for _ in range(15)]
        + [f"2001:db8:{dice.randint(4096, 65535):x}::{dice.randint(16, 65535):x}" for _ in range(10)],
        "secret": list(_secrets(dice)),
        "url": [f"https://{_word(dice)}:{_word(dice)}{dice.randint(10, 99)}@{_word(dice)}.org/x" for _ in range(10)],
    }


def _word(dice: random.Random, letters: str = string.ascii_lowercase) -> str:
    return "".join(dice.choices(letters, k=dice.randint(4, 9)))


def _email(dice: random.Random) -> str:
    name = dice.choice(["{a}.{b}", "{a}", "{a}_{b}", "{a}+{b}", "{a}-{b}", "{a}99"]).format(
        a=_word(dice), b=_word(dice)
    )
    return f"{name}@{_word(dice)}.{dice.choice(['com', 'de', 'co.uk', 'fr', 'com.br', 'co.jp', 'museum', 'io', 'example'])}"


def _phones() -> Iterator[str]:
    for region in (
        "US",
        "GB",
        "DE",
        "FR",
        "ES",
        "IT",
        "NL",
        "PL",
        "SE",
        "BR",
        "MX",
        "IN",
        "JP",
        "AU",
        "TR",
        "ZA",
        "CH",
        "KR",
    ):
        for kind in (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE):
            example = phonenumbers.example_number_for_type(region, kind)
            if example is not None:
                yield phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
                yield phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)


def _card(dice: random.Random) -> str:
    digits = dice.choice(["4", "51", "55", "6011"])
    digits += "".join(dice.choices(string.digits, k=15 - len(digits)))
    doubled = sum(sum(divmod(int(digit) * (2 - place % 2), 10)) for place, digit in enumerate(digits))
    number = digits + str(-doubled % 10)
    mark = dice.choice(["", " ", "-"])
    return mark.join(number[start : start + 4] for start in range(0, 16, 4))


def _iban(dice: random.Random, country: str) -> str:
    layouts = {
        "DE": "n18",
        "FR": "n23",
        "GB": "a4n14",
        "NL": "a4n10",
        "ES": "n20",
        "IT": "a1n22",
        "BE": "n12",
        "AT": "n16",
    }
    letters, _, numbers = layouts[country].rpartition("n")
    account = "".join(dice.choices(string.ascii_uppercase, k=int(letters[1:] or 0)))
    account += "".join(dice.choices(string.digits, k=int(numbers)))
    as_digits = "".join(
        str(string.digits.find(c)) if c.isdigit() else str(ord(c) - 55) for c in f"{account}{country}00"
    )
    iban = f"{country}{98 - int(as_digits) % 97:02d}{account}"
    return " ".join(iban[start : start + 4] for start in range(0, len(iban), 4)) if dice.random() < 0.5 else iban


def _secrets(dice: random.Random) -> Iterator[str]:
    mixed = string.ascii_letters + string.digits
    forms: tuple[tuple[str, str, int], ...] = (
        ("AKIA", string.ascii_uppercase + string.digits, 16),
        ("ghp_", mixed, 36),
        ("sk-proj-", mixed, 40),
    )
    forms += (("xoxb-123456789012-", mixed, 24), ("AIza", mixed, 35), ("hf_", string.ascii_letters, 34))
    forms += (("glpat-", mixed, 20), ("sk_live_", mixed, 24), ("npm_", mixed, 36))
    for prefix, letters, length in forms:
        for _ in range(4):
            yield prefix + "1" * ("-proj-" in prefix) + "".join(dice.choices(letters, k=length))
    for _ in range(6):
        parts = (f'{{"alg":"HS256","n":{dice.random()}}}', f'{{"sub":"{dice.random()}"}}', str(dice.random()) * 2)
        yield ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


def _harmless(dice: random.Random) -> Iterator[str]:
    number = dice.randint
    for _ in range(12):
        yield f"Order number {number(10**9, 10**10)} has not arrived"
        yield f"We use version {number(1, 20)}.{number(0, 30)}.{number(0, 99)}.{number(0, 9)} in production"
        yield f"It was delivered on {number(1, 28):02d}.{number(1, 12):02d}.{number(1990, 2026)} at {number(10, 23)}:{number(10, 59)}"
        yield f"The invoice says {number(1, 9)},{number(100, 999)},{number(100, 999)}.{number(10, 99)} dollars"
        yield f"Tracking id 1Z{number(10**9, 10**10)}, sku {number(10**7, 10**8)}"
        yield f"commit {number(16**39, 16**40 - 1):040x} breaks it"
        yield f"{number(10**6, 10**7)} people saw it, {number(1, 99)}.{number(10**5, 10**6)} percent"
        yield f"def f(x): return x[{number(1, 9)}::{number(1, 9)}] @ y  # {number(1990, 2026)}-{number(10, 12)}-{number(10, 28)}"
        yield f"ISBN 978-{number(1, 9)}-{number(100, 999)}-{number(10000, 99999)}-{number(0, 9)} by @{_word(dice)}"
        yield f"The token limit is {number(1000, 9999)} and the password was forgotten {number(2, 9)} times"


def test_generated_personal_data_is_found_and_little_else() -> None:
    made = cases()
    clean = _clean([case.text for case in made])
    missed = [case for case, text in zip(made, clean, strict=True) if case.kind and _rest(case.value, text)]
    wrong = [case for case, text in zip(made, clean, strict=True) if case.kind is None and text != case.text]
    sought = sum(case.kind is not None for case in made)
    recall = 1 - len(missed) / sought
    precision = (sought - len(missed)) / (sought - len(missed) + len(wrong))
    assert len(made) >= 300
    assert recall >= 0.97, [(case.kind, case.value) for case in missed]
    assert precision >= 0.97, [case.text for case in wrong]


def test_most_phone_numbers_without_a_country_code_are_found() -> None:
    numbers = [
        phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.NATIONAL)
        for region in REGIONS
        if (example := phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE))
    ]
    found = sum(number not in text for number, text in zip(numbers, _clean(numbers), strict=True))
    assert found >= 0.7 * len(numbers), f"{found} of {len(numbers)}"


def _clean(texts: list[str]) -> list[str]:
    rows = [Example(input=text, output="x", id=str(n), group=str(n), source="f") for n, text in enumerate(texts)]
    clean = {row.id: row.input for row in private(rows, REPLACE, TEXT, finder(REPLACE)).kept}
    return [clean[row.id] for row in rows]


def _rest(value: str, text: str) -> bool:
    """Whether a quarter of the value or more is still in the text."""
    length = max(4, len(value) // 4)
    return any(value[start : start + length] in text for start in range(len(value) - length + 1))
