"""What may stand before and behind a text: numbering, greetings, signatures.

Whether "Anna," is a greeting, or "b" a number, cannot always be said, so a text has several cores: with and without each.
All functions take texts in plain form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, product

from perpetune.curation.duplicates.letters import has_content, has_words, words_of

_HELLO = (
    r"hi|hiya|hello|hey|heya|howdy|greetings|dear|good (?:day|morning|afternoon|evening)|to whom it may concern"
    r"|hallo|guten (?:tag|morgen|abend)|moin|servus|grüss (?:gott|dich|sie)|sehr geehrte\w*|liebe[rs]?"
    r"|bonjour|bonsoir|salut|coucou|hola|buenos d[ií]as|buenas (?:tardes|noches)|ciao|buongiorno|buonasera"
    r"|ol[aá]|bom dia|boa (?:tarde|noite)|hoi|goede(?:morgen|middag|navond)|goeden?(?:dag| dag| middag| avond)"
    r"|cześć|dzień dobry|witam|dobrý den|ahoj|hej|hejsan|god dag|hei|hyvää päivää|merhaba|selam|bună(?: ziua)?|szia"
    r"|здравствуйте|привет|добрый (?:день|вечер)|доброе утро|вітаю|добрий день|привіт|γεια(?: σασ| σου)?|καλημέρα"
    r"|مرحبا|السلام عليكم|سلام|שלום|नमस्ते|नमस्कार|xin chào|halo|selamat (?:pagi|siang|sore|malam)"
)
# Words that are a greeting only before a name.
_ADDRESS = (
    r"chère?s?|estimad[oa]s?|querid[oa]s?|gentil[ei]|gentilissim[oaie]|egregi[oa]?|car[oai]s?|prezad[oa]s?|beste|geachte"
    r"|szanown\w+|vážen\w+|kära|bästa|kære|sayın|уважаем\w+|шановн\w+|αγαπητ\w+|kedves|tisztelt|stimat\w*|dragă|werte[rs]?"
)
# Greetings of scripts without spaces.
_JOINED_HELLO = r"こんにちは|こんばんは|おはようございます|お世話になっております|你好|您好|大家好|안녕하세요|안녕하십니까|สวัสดี(?:ครับ|ค่ะ)?"
_ADDRESSED = r"there|all|team|everyone|everybody|folks|guys|again|sir|madam|sirs?/madam|or|and|support|customer|service"
_NO_NAMES = (
    r"i|i'm|im|my|me|the|a|an|is|are|am|was|be|this|that|these|it|its|it's|you|your|we|can|could|how|what|why|when|where|who"
    r"|which|please|help|to|in|on|of|at|by|for|from|with|not|no|so|just|still|do|does|did|don't|have|has|had|will|would|if"
    r"|but|very|too|one|as|after|before"
)
_ANY_NAME = r"[ \t]+[^\W\d_][\w.'’-]*"
_NAME = rf"[ \t]+(?!(?:{_NO_NAMES})\b)[^\W\d_][\w.'-]*"
_PAUSE = r"(?:[,!:;.\n–—،、。]|\s-\s)+"
# Before a comma or a line end, other words may be a name: "Hi Anna,", "Dear Ms Smith,".
_GREETING = re.compile(
    rf"dear(?:{_NAME}){{1,3}}[ \t]*[,:!\n]+\s*|(?:{_HELLO})\b(?:(?:[ \t]+(?:{_ADDRESSED})\b)*[ \t]*{_PAUSE}"
    rf"|(?:{_NAME}){{1,2}}[ \t]*[,:\n]+|\s)\s*|(?:{_JOINED_HELLO})[\s,!.~、。]*"
)
_GREETINGS = (
    _GREETING,
    re.compile(rf"\W*(?:{_HELLO})\b(?:{_PAUSE})?\s*"),
    re.compile(rf"\W*(?:{_HELLO})\b(?:[ \t]+(?:{_ADDRESSED})\b)+(?:{_PAUSE})?\s*"),
    re.compile(rf"\W*(?:{_HELLO}|{_ADDRESS})(?:{_ANY_NAME}){{1,4}}[ \t]*{_PAUSE}\s*"),
)

_LABEL = (
    r"q|a|question|no|nr|item|row|ticket|case|example|step|number|section|sec|article|art|clause|chapter|point|paragraph"
    r"|para|part|line|entry|record|message|sample|task|problem|frage|nummer|schritt|punkt|artikel|abschnitt|numéro|étape"
    r"|pregunta|número|paso|domanda|pergunta|вопрос|пункт|статья"
)
_NUMBERING = re.compile(
    rf"(?:(?:(?:{_LABEL})[ .]*)?[#(\[]*\d{{1,6}}[)\]]*\s?[.):\]–/-]+\s+"
    r"|#\s?\d{1,6}\s+|[(\[]\d{1,6}[)\]]\s*|(?:\d{1,6}\.)+\d{1,6}\s+|[(\[]?(?:[a-z]|[ivx]{1,5})[.)\]]+\s+"
    r"|[-*•·–—>+#]+\s+|(?:q|question|input|text)\s?:\s+)"
)
_RANK = r"(?:\d{1,6}(?:[.:/-]\d{1,4}){0,4}\s?[a-z]?|[ivxlcdm]{1,7}|[^\W\d_])"
_RANK = r"(?:\d{1,6}(?:[.:/-]\d{1,4}){0,4}\s?[a-z]?|[ivxlcdm]{1,7}|[^\W\d_])"
_NUMBERINGS = (
    _NUMBERING,
    re.compile(
        rf"\W*(?:(?:{_LABEL})\W{{0,3}})?(?:(?:no|nr|n)?[.°º]|№)?\s?{_RANK}(?:st|nd|rd|th|[ºª°])?\s?"
        r"(?:[)\]}]+[.:]?\s*|(?<=\d)[.:]+\s*(?!\d)|[.:–—|>/-]+\s+)"
    ),
    re.compile(r"[^\w\s]*[#№§(\[{<]\s?(?:\d{1,6}(?:\.\d{1,4}){0,4}|[ivx]{1,5}|[^\W\d_])[)\]}>]*\s+"),
    re.compile(r"第?[一二三四五六七八九十百\d]{1,4}[、.章条節节項项]\s*(?!\d)|\([一二三四五六七八九十]{1,3}\)\s*"),
)

_OPERATORS = tuple("-–—/|>+*")
_OPENINGS = (*_NUMBERINGS, *_GREETINGS)
# What each of them begins with, so that most texts are tried once.
_MAY_OPEN = re.compile(
    rf"\W*(?:(?:{_HELLO}|{_ADDRESS}|{_LABEL}|input|text)(?:\b|\d)|{_JOINED_HELLO}|\d|[№°º第一二三四五六七八九十]|[ivxlcdm]{{1,7}}\W"
    r"|[^\W\d_]\W)|[-*•·–—>+#]"
)

_CLOSING = (
    r"(?:many thanks|thanks|thank you|thx)(?: (?:a lot|so much|very much|again|in advance|for (?:your|the) help|all))*"
    r"|(?:with )?(?:(?:kind|kindest|best|warm|warmest|many) )?regards|best wishes|all the best|best|cheers"
    r"|sincerely(?: yours)?|yours(?: (?:sincerely|faithfully|truly))?|respectfully"
    r"|(?:mit )?freundlichen? gr(?:ü|ue?)sse?n?|(?:viele|liebe|beste|schöne) gr(?:ü|ue?)sse|danke(?: sch(?:ö|oe)n)?"
    r"|(?:vielen dank|danke)(?: im voraus)?|mfg|lg|(?:bien )?cordialement|merci(?: (?:d'avance|beaucoup))?"
    r"|saludos(?: cordiales)?|un saludo|atentamente|(?:muchas )?gracias(?: de antemano)?"
    r"|(?:cordiali |distinti )?saluti|grazie(?: mille)?|atenciosamente|cumprimentos|obrigad[oa]"
    r"|(?:met )?vriendelijke groet(?:en)?|groet(?:en|jes)?|(?:alvast )?bedankt|pozdrawiam|z poważaniem|dziękuję"
    r"|s pozdravem|děkuji|(?:med )?vänliga hälsningar|mvh|(?:tack|takk|tak)(?: på förhand)?|med ven(?:n)?lig hilsen"
    r"|terveisin|kiitos|saygılarımla|teşekkürler|с уважением|(?:заранее )?спасибо|з повагою|дякую|με εκτίμηση|ευχαριστώ"
    r"|شكرا|تודה|धन्यवाद|(?:sent from|get outlook for) (?:my )?\w+(?: \w+)?"
)
_SIGNATURE = re.compile(
    rf"(?:[.!?,;:\n–—-]\s*(?:{_CLOSING})\b\W*?(?:[,\n!.–—-]\s*[^\W\d_][\w.'-]*(?:\s+[^\W\d_][\w.'-]*){{0,3}})?"
    r"|\s(?:thanks|thank you|cheers|thx)|\n\s*--\s*\n.*|\n\s*[-–—~]\s*[^\W\d_]\w*(?: [^\W\d_]\w*)?)\W*$",
    re.DOTALL,
)
_SIGNATURES = (
    _SIGNATURE,
    re.compile(rf"\n[ \t]*(?:{_CLOSING})\b[^\n]{{0,40}}(?:\n[^\n]{{0,60}}){{0,8}}$"),
    re.compile(
        r"(?:ありがとうございます|よろしくお願い(?:します|いたします|致します)|谢谢|謝謝|此致|감사합니다|ขอบคุณ(?:ครับ|ค่ะ)?)[^\n]{0,12}$"
    ),
)
# What one of them has.
_MAY_CLOSE = re.compile(rf"(?<!\w)(?:{_CLOSING}|thanks)\b|\n\s*[-–—~]|ます|谢|謝|此致|감사|ขอบคุณ")
_LONGEST_SIGNATURE = 500

_FIRST_CLAUSE = re.compile(r"\W*\w[^\n,.!?:;–—…،؟、。]*(?:[,.!?:;…،؟]+(?=\s)\s*|\s*[–—、。]\s*|\s-\s+|\s*\n\s*)")
_LAST_CLAUSE = re.compile(r"(?:\n|[,.!?;…،؟]\s|[–—、。]|\s-\s)[^\n,.!?;–—…،؟、。]*[^\w\n]*$")
_CLAUSE_WORDS, _REST_WORDS = 6, 3
"""A greeting or a signature that is in no list: a first or last clause or line of at most so many words, before a rest of
so many at least."""
_LAST_CLAUSES = 5


def core(text: str) -> str:
    """The text without what is certainly numbering, greeting and signature.

    What would leave nothing is not taken away: "Hello!" and "Thanks" are texts of their own.
    """
    for pattern, times in ((_NUMBERING, 1), (_GREETING, 2), (_NUMBERING, 1)):
        text = _without_start(pattern, text, times)
    return _without_end(_SIGNATURE, text, 3)


@dataclass(frozen=True, slots=True)
class Edges:
    """Where a text may begin, and where it may end: all of it first."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def are_any(self) -> bool:
        return len(self.starts) + len(self.ends) > 2


def edges_of(text: str) -> Edges:
    return Edges(_starts(text), _ends(text))


def cores(text: str, edges: Edges) -> Iterator[str]:
    """The text, and the text without what may be numbering, greetings and signature."""
    yield text
    for start, end in islice(product(edges.starts, edges.ends), 1, None):
        if start < end and has_content(text[start:end]):
            yield text[start:end]
    if "\n" in text:
        yield "\n".join(_without_start(_NUMBERINGS[1], line.strip(), 1) for line in text.split("\n"))


def loose_cores(text: str, edges: Edges) -> Iterator[str]:
    """The text without its first or last clauses if they are short, as those of a greeting in any language are."""
    starts = dict.fromkeys(chain(edges.starts, *(_first_clauses(text, start) for start in edges.starts)))
    ends = dict.fromkeys(chain(edges.ends, *(_last_clauses(text, end) for end in edges.ends)))
    for start, end in product(starts, ends):
        is_known = start in edges.starts and end in edges.ends
        if start < end and not is_known and _has_words(text[start:end], _REST_WORDS):
            yield text[start:end]


def _has_words(text: str, count: int) -> bool:
    return len(text.split(None, count)) >= count or (not text.isascii() and len(words_of(text)) >= count)


def _without_start(pattern: re.Pattern[str], text: str, times: int) -> str:
    for _ in range(times):
        bare = text.lstrip("\"'“”„«»‚‘’ \t\n")
        found = pattern.match(bare)
        rest = bare[found.end() :].strip() if found else bare
        if not found or rest == text or not _may_be_left(rest, found):
            break
        text = rest
    return text


def _may_be_left(rest: str, taken: re.Match[str]) -> bool:
    """Whether the rest is a text of its own: "12 - 7" is a sum, and not the number 12 before a 7."""
    is_sum = taken.re in _NUMBERINGS and taken.group().rstrip().endswith(_OPERATORS)
    return has_words(rest) if is_sum else has_content(rest)


def _without_end(pattern: re.Pattern[str], text: str, times: int) -> str:
    for _ in range(times):
        found = pattern.search(text)
        rest = text[: found.start()].strip() if found else text
        if rest == text or not has_content(rest):
            break
        text = rest
    return text


def _starts(text: str) -> tuple[int, ...]:
    places = [0]
    for start in places:
        if len(places) >= _MOST or not _MAY_OPEN.match(text, start):
            break
        found = (pattern.match(text, start) for pattern in _OPENINGS)
        ends = {each.end() for each in found if each and _may_be_left(text[each.end() :], each)}
        places += sorted(ends - set(places))
    return tuple(places[:_MOST])


def _ends(text: str) -> tuple[int, ...]:
    places = [len(text)]
    for end in places:
        begin = max(0, end - _LONGEST_SIGNATURE)
        if len(places) >= _MOST or not _MAY_CLOSE.search(text, begin, end):
            break
        found = (pattern.search(text, begin, end) for pattern in _SIGNATURES)
        starts = {each.start() for each in found if each and has_content(text[: each.start()])}
        places += sorted(starts - set(places), reverse=True)
    return tuple(places[:_MOST])


_MOST = 6
"""Places at which a text may begin, and at which it may end."""


def _first_clauses(text: str, start: int) -> Iterator[int]:
    """The ends of the first one and two clauses if they are short."""
    for _ in range(2):
        found = _FIRST_CLAUSE.match(text, start, start + 100)
        if not found or len(words_of(found.group())) > _CLAUSE_WORDS:
            return
        start = found.end()
        yield start


def _last_clauses(text: str, end: int) -> Iterator[int]:
    """The starts of the last clauses if they are short."""
    for _ in range(_LAST_CLAUSES):
        found = _LAST_CLAUSE.search(text, max(0, end - 100), end)
        if not found or len(words_of(found.group())) > _CLAUSE_WORDS:
            return
        end = found.start()
        yield end
