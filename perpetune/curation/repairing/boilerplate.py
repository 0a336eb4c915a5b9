"""What mail programs and templates add to a text, and its writer did not."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from perpetune.curation.repairing.code import is_code
from perpetune.curation.text import normalised

SIGNATURE = "signature"
DEVICE = "line of a mail program"
QUOTED = "quoted mail"
DISCLAIMER = "disclaimer"
REPEATED = "line that many inputs have"

MIN_LINE = 20
"""Characters of a line that may be boilerplate because many inputs have it: shorter ones are greetings and answers."""
MIN_ROWS = 20

_DEVICES = (
    r"sent (?:from|via|using) (?:my |the )?\S.{0,40}|get outlook for \S+.*|sent with \S.{0,30}|"
    r"(?:von|aus) meinem \S.{0,30} gesendet|gesendet (?:von|mit) \S.{0,40}|envoyé (?:de(?:puis)?|à partir de) mon \S.{0,30}|"
    r"enviado (?:desde|do) (?:mi|meu) \S.{0,30}|inviato da(?:l mio)? \S.{0,30}|verzonden vanaf mijn \S.{0,30}|"
    r"skickat från min \S.{0,30}|wysłane z \S.{0,30}"
)
_DEVICE_LINE = re.compile(rf"\n[ \t]*(?:{_DEVICES})\s*\Z", re.IGNORECASE)
_KNOWN_DEVICE = re.compile(
    r"iphone|ipad|android|samsung|galaxy|huawei|pixel|blackberry|outlook|mail|phone|handy|mobil|tablet|ios|smartphone|proton|"
    r"aquamail|spark|móvil|telefon|téléphone|celular",
    re.IGNORECASE,
)
_SIGNATURE = re.compile(r"\n--[ \t]*\n((?:[^\n]*\n?){1,12})\Z")
_QUOTED = re.compile(
    r"\n[ \t]*(?:-{2,} ?(?:original message|original-nachricht|ursprüngliche nachricht|message d'origine|mensaje original|"
    r"forwarded message|weitergeleitete nachricht)\b[^\n]*"
    r"|_{10,}[ \t]*\n[ \t]*(?:from|von|de|da):[^\n]*"
    r"|(?:from|von|de|da|från): [^\n]+\n[ \t]*(?:sent|date|gesendet|datum|envoyé|enviado|inviato|fecha|skickat)[^\n]*\n"
    r"|(?:on|am|le|el|il|op)\b[^\n]{5,120}(?:\n[^\n]{1,80})?(?:wrote|schrieb[^\n:]*|a écrit|escribió|ha scritto|schreef[^\n:]*) ?:"
    r"[ \t]*\n(?:[ \t]*\n)*[ \t]*>)",
    re.IGNORECASE,
)
_DISCLAIMER = re.compile(
    r"confidential[^\n]*(?:intended|recipient|addressee)|intended (?:solely|only)[^\n]*(?:addressee|recipient|use of|individual)|"
    r"(?:not|nicht) the intended recipient|vertraulich[^\n]*(?:empfänger|adressat)|confidentiel[^\n]*destinataire|"
    r"confidencial[^\n]*destinatario|riservat[^\n]*destinatari|please consider the environment before printing",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Trimmed:
    """A text without its boilerplate; `removed` are its parts, each with what it is."""

    text: str
    removed: tuple[tuple[str, str], ...] = ()


class Ends(NamedTuple):
    """The hash of an input, 64 bits, and the normalised lines that it begins and ends with, if they are long enough."""

    digest: int
    lines: tuple[str, ...]


def ends_of(text: str) -> Ends:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return Ends(int.from_bytes(digest, "big"), tuple(dict.fromkeys(_ends(text))))


def repeated_lines(inputs: Iterable[Ends], ratio: float) -> frozenset[str]:
    """The normalised lines that so many of the different inputs begin or end with."""
    known: set[int] = set()
    counts: Counter[str] = Counter()
    for each in inputs:
        if each.digest not in known:
            known.add(each.digest)
            counts.update(each.lines)
    least = max(MIN_ROWS, ratio * len(known))
    return frozenset(line for line, count in counts.items() if count >= least)


def trimmed(text: str, repeated: frozenset[str] = frozenset()) -> Trimmed:
    """The text without boilerplate. One that is nothing else, and code, stays as it is."""
    if not (repeated or "\n" in text) or is_code(text):
        return Trimmed(text)
    removed: list[tuple[str, str]] = []
    rest = text
    while (found := _one_part(rest, repeated)) is not None:
        rest, part = found
        removed.append(part)
    return Trimmed(rest, tuple(removed))


def _one_part(text: str, repeated: frozenset[str]) -> tuple[str, tuple[str, str]] | None:
    """The text without one part, and the part; None if there is none, or nothing would be left."""
    for start, end, reason in _parts(text, repeated):
        rest = "\n".join(filter(None, (text[:start].rstrip(), text[end:].lstrip())))
        if any(map(str.isalnum, rest)):
            return rest, (reason, text[start:end].strip())
    return None


def _parts(text: str, repeated: frozenset[str]) -> Iterable[tuple[int, int, str]]:
    if quoted := _QUOTED.search(text):
        yield quoted.start(), len(text), QUOTED
    if signature := _SIGNATURE.search(text):
        yield signature.start(), len(text), SIGNATURE
    if (device := _DEVICE_LINE.search(text)) and _KNOWN_DEVICE.search(device[0]):
        yield device.start(), len(text), DEVICE
    last = text.rstrip().rpartition("\n")
    if last[1] and _DISCLAIMER.search(last[2]):
        yield len(last[0]), len(text), DISCLAIMER
    if repeated and "\n" in text.strip():
        first = text.lstrip().partition("\n")[0]
        if normalised(first) in repeated:
            yield 0, text.index(first) + len(first), REPEATED
        if normalised(last[2]) in repeated:
            yield len(last[0]), len(text), REPEATED


def _ends(text: str) -> Iterable[str]:
    lines = text.strip().splitlines()
    ends = (normalised(lines[0]), normalised(lines[-1])) if len(lines) > 1 else ()
    return (line for line in ends if len(line) >= MIN_LINE)
