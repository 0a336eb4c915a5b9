"""Personal data by pattern and checksum: Microsoft Presidio's recognizers, each asked only if it could find anything.

They need no language model and no network. Its analysis of a text takes milliseconds, most of them for phone numbers, so
that a cheap pattern decides first.
"""

from __future__ import annotations

import re
import string
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import chain

from perpetune.redacting.found import Found

Find = Callable[[str], Iterable[Found]]

MIN_SCORE = 0.4  # Presidio's score of a phone number; lower ones are patterns such as "any nine digits"
_UPPER = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)
_CONTEXT_CHARS = 40

# What can be one at all.
_NUMBERS = re.compile(r"[+(]{0,2}\d(?:[^\w\n]{0,3}\d){6,}(?:\s*(?:ext\.?|x)\s*\d{1,6})?")
_THIRTEEN_DIGITS = re.compile(r"(?:\d[ .-]?){12}\d")
_DOTTED = re.compile(r"\d\.\d{1,3}\.\d|:[0-9a-fA-F]{0,4}:")
_LONG_WORD = re.compile(r"(?:bc1|[13])[a-zA-HJ-NP-Z0-9]{25}")
_NINE_DIGITS = re.compile(r"(?<![\d-])\d{3}([ .-]?)\d{2}[ .-]?\d{4}(?![\d-])")
_IBAN = re.compile(r"(?<![A-Z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}")
_ETHEREUM = re.compile(r"(?<!\w)0x[0-9a-fA-F]{40}(?!\w)")
_CREDENTIALS = re.compile(r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)")

# What stands before a number that is something else.
_VERSION = re.compile(
    r"(?:\b(?:v|ver|versions?|releases?|builds?|firmware|drivers?|revisions?|rev|sections?|chapters?|clauses?|oid|rc|sdk|"
    r"windows|android|ios|chrome|firefox|safari|edge)\.?(?:\s+(?:is|was|number|no\.?))?\s*[:=#]?\s*v?"
    r"|\b[A-Za-z]+/v?|§\s*|[=<>~!]=\s*|\d\.)(?:\d+(?:\.\d+)*(?:,|\s+and|\s+or|\s+to|\s*-)\s*v?)*$",
    re.IGNORECASE,
)
_FILE = re.compile(r"\.(?:tar|t?gz|zip|whl|jar|deb|rpm|exe|msi|dmg|so|dll|pkg|bz2|xz)\b|-|\.\d")
_NUMBER_OF = re.compile(
    r"\b(?:order|invoice|ticket|case|ref|reference|tracking|parcel|shipment|serial|sku|isbn|issn|ean|upc|gtin|asin|doi|part|"
    r"model|batch|lot|item|article|product|id|uuid|hash|commit|build|version|timestamp|epoch|population|views?|customer|"
    r"account|booking|receipt|transaction|request|case|bug|issue|pr|size|bytes?|seed)s?"
    r"(?:[ _-]?(?:number|code|no|nr|id|key))?[\s:.#=]*(?:is\s+|was\s+)?[A-Z]{0,4}[-_]?$",
    re.IGNORECASE,
)
_PHONE = re.compile(
    r"\b(?:phone|tel|telephone|mobile|cell|call|fax|whatsapp|sms|text|ring|dial|handy)\w*\W", re.IGNORECASE
)
_DECIMAL = re.compile(r"\d+[.,]\d+")
_COUNTED = re.compile(
    r"\s*(?:people|users|views?|clicks|dollars|euros?|pounds|bytes|rows|records|items|points|tokens|times|steps|years|seconds|"
    r"ms|km|kg|[$€£%])\b",
    re.IGNORECASE,
)
_SSN = re.compile(r"\b(?:ssns?|social(?:[ -]?security)?|soc\.? ?sec|itin)\b[^\n]*$", re.IGNORECASE)
_DATE = re.compile(r"(?:19|20)\d\d[-./ ]?\d\d[-./ ]?\d\d(?:\D.*)?|\d{1,2}[-./]\d{1,2}[-./](?:19|20)\d\d(?:\D.*)?")


@contextmanager
def _hidden(*modules: str) -> Iterator[None]:
    """Presidio imports these for engines that are not used here; that takes seconds and hundreds of megabytes."""
    hidden = {name: None for name in modules if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]  # None is how Python marks a module that may not be imported
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def personal_data_finder() -> Find:
    """A function that finds personal data in a text. Presidio must be installed."""
    with _hidden("torch", "transformers"):
        from presidio_analyzer import EntityRecognizer, Pattern
        from presidio_analyzer.predefined_recognizers import (
            CreditCardRecognizer,
            CryptoRecognizer,
            EmailRecognizer,
            IpRecognizer,
            PhoneRecognizer,
            UsSsnRecognizer,
        )

    class AnyEmail(EmailRecognizer):
        """Presidio's recognizer uses tldextract, which may download a list, and ignores internal domains."""

        def validate_result(self, pattern_text: str) -> bool | None:
            return None

    [card] = CreditCardRecognizer.PATTERNS
    dotted_card = Pattern(card.name, card.regex.replace("[- ]?", "[- .]?"), card.score)
    cards = CreditCardRecognizer(patterns=[dotted_card], replacement_pairs=[("-", ""), (" ", ""), (".", "")])
    emails, phones, addresses, ssns, wallets = (
        AnyEmail(),
        PhoneRecognizer(),
        IpRecognizer(),
        UsSsnRecognizer(),
        CryptoRecognizer(),
    )

    def ask(recognizer: EntityRecognizer, text: str) -> Iterator[Found]:
        for result in recognizer.analyze(text, recognizer.supported_entities, None):  # type: ignore[arg-type]  # these need no language model
            yield Found(result.start, result.end, result.score, result.entity_type)

    @lru_cache(maxsize=1024)
    def phones_in(numbers: str) -> tuple[Found, ...]:
        """Presidio reads a text once for each of eight regions, so that it gets the digits only."""
        return tuple(ask(phones, numbers))

    def find(text: str) -> Iterator[Found]:
        if "@" in text:
            yield from _sure(ask(emails, text))
            yield from (Found(*match.span(), 1.0, "URL_CREDENTIALS") for match in _CREDENTIALS.finditer(text))
        for numbers in _NUMBERS.finditer(text):
            found_here = (_moved(found, numbers.start()) for found in phones_in(numbers[0]))
            yield from (found for found in found_here if _is_phone(text, found))
        if _THIRTEEN_DIGITS.search(text):
            yield from (found for found in _sure(ask(cards, text)) if _is_alone(text, found))
        if _DOTTED.search(text):
            yield from (found for found in _sure(ask(addresses, text)) if _is_address(text, found))
        if _LONG_WORD.search(text):
            yield from _sure(ask(wallets, text))
        if _NINE_DIGITS.search(text):
            yield from (found for found in ask(ssns, text) if _is_ssn(text, found))
        yield from (Found(*match.span(), 1.0, "CRYPTO") for match in _ETHEREUM.finditer(text))
        yield from _ibans(text)

    return find


def _sure(found: Iterable[Found]) -> Iterator[Found]:
    return (each for each in found if each.score >= MIN_SCORE)


def _moved(found: Found, by: int) -> Found:
    return replace(found, start=found.start + by, end=found.end + by)


def _before(text: str, found: Found) -> str:
    return text[max(0, found.start - _CONTEXT_CHARS) : found.start]


def _is_alone(text: str, found: Found) -> bool:
    """Whether it is no part of a longer number or word, such as a decimal or a hash."""
    before, after = text[: found.start][-2:], text[found.end : found.end + 2]
    joined = before[-1:].isalnum() or before[-1:] == "_" or (before[-1:] in tuple(".-") and before[:1].isalnum())
    return not joined and not (after[:1].isalnum() or (after[:1] in tuple(".-") and after[1:].isdigit()))


def _is_phone(text: str, found: Found) -> bool:
    """Phone numbers have few formats that nothing else has: a date, or a number that is named otherwise, is none."""
    number, before = text[found.start : found.end], _before(text, found)
    if not _is_alone(text, found) or _DATE.fullmatch(number) or _DECIMAL.fullmatch(number):
        return False
    if re.search(r"\w/$", before) or _COUNTED.match(text, found.end):
        return False
    return number.lstrip("(").startswith("+") or bool(_PHONE.search(before)) or not _NUMBER_OF.search(before)


def _is_address(text: str, found: Found) -> bool:
    """Versions and sections look like IPv4 addresses, and `x[::2]` or `a::b` of a program like IPv6 ones."""
    address = text[found.start : found.end]
    if ":" in address:
        groups = [group for group in re.split(r"[:/%]", address) if group]
        return len(groups) > 1 and any(len(group) > 1 for group in groups) and any(map(str.isdigit, address))
    return not _FILE.match(text, found.end) and not _VERSION.search(_before(text, found))


def _is_ssn(text: str, found: Found) -> bool:
    """Dashed, or nine digits that are named so."""
    return found.score >= MIN_SCORE or bool(_SSN.search(_before(text, found)))


def _ibans(text: str) -> Iterator[Found]:
    """IBANs in any case. Their country says how long they are, and what follows may be a word."""
    from presidio_analyzer.predefined_recognizers.generic.iban_patterns import regex_per_country

    upper = text.translate(_UPPER)
    for match in _IBAN.finditer(upper):
        layout = regex_per_country.get(match[0][:2])
        compact = re.sub("[ -]", "", match[0])
        fitting = re.match(layout, compact) if layout else None
        if fitting and _checksum(fitting[0]) == 1:
            end = match.start() + _length_with(match[0], len(fitting[0]))
            if not upper[end : end + 1].isalnum():
                yield Found(match.start(), end, 1.0, "IBAN_CODE")


def _checksum(iban: str) -> int:
    """ISO 7064 mod 97-10: 1 for a valid IBAN."""
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97


def _length_with(text: str, characters: int) -> int:
    """The length of the beginning of the text that has so many characters besides spaces and dashes."""
    positions = chain((position for position, character in enumerate(text) if character not in " -"), (len(text),))
    return next(position + 1 for number, position in enumerate(positions, 1) if number == characters)
