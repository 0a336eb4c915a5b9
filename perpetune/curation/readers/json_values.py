"""The records of a JSON list, or of JSON objects one after another, indented or not, with commas too many."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from perpetune.curation.readers.table import Row, UnreadableRow, WantedColumns
from perpetune.curation.readers.text_encoding import UNDECODABLE
from perpetune.curation.text import shortened

TOO_DEEP = "it is nested too deeply"


class Ambiguous(dict[str, object]):
    """An object that has a key several times, with different values: none of them is known to be the right one."""

    key = ""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeated = next((key for key, value in pairs if value != found[key]), None)
    if repeated is None:
        return found
    ambiguous = Ambiguous(found)
    ambiguous.key = repeated
    return ambiguous


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
_BETWEEN = re.compile(r"[\s,]*")
_SCALAR = re.compile(r"[^,\n\]]*.?")
# A string ends with its line at the latest: JSON has no line breaks in strings.
_SPARE_COMMAS = re.compile(r'("(?:[^"\\\n]|\\.)*")|,(?=\s*[}\]])')
_TOKENS = re.compile(r'"(?:[^"\\\n]|\\.)*"?|[{}\[\]]')


def json_values(text: str, wanted: WantedColumns) -> Iterator[Row | UnreadableRow]:
    """One row for each object, and for each element of each list.

    A broken element is one rejected row: objects inside it are not taken for rows. A list that does not end is
    rejected as a row of its own, because what follows is lost.
    """
    position, counted, line = 0, 0, 1
    in_list, broken = False, False
    while (position := _after(_BETWEEN, text, position)) < len(text):
        line += text.count("\n", counted, position)
        counted = position
        if text[position] == ("]" if in_list else "["):
            in_list, position = not in_list, position + 1
            continue
        try:
            value, end = _first_value(text, position)
            broken = False
            yield json_row(line, text[position:end], value, wanted)
        except (ValueError, RecursionError) as fault:
            end, broken = _end_of_broken(text, position), True
            reason = fault.msg if isinstance(fault, json.JSONDecodeError) else str(fault)
            reason = TOO_DEEP if isinstance(fault, RecursionError) else reason
            yield UnreadableRow(line, text[position:end], f"broken JSON: {reason}")
        position = end
    if in_list and not broken:
        yield UnreadableRow(line, "", "the list has no end: the file may be cut off")


def _first_value(text: str, position: int) -> tuple[object, int]:
    """The value that begins here, and its end. Raises ValueError, RecursionError."""
    try:
        return _DECODER.raw_decode(text, position)
    except json.JSONDecodeError:
        # Anything but an object or a list is no row, and to look for its end would read all the rest each time.
        end = _closed(text, position) if text[position] in "{[" else None
        if end is None:
            raise
        return decoded(_without_spare_commas(text[position:end])), end


def _without_spare_commas(text: str) -> str:
    """The text without commas before a closing bracket, which people and JavaScript leave behind."""
    return _SPARE_COMMAS.sub(lambda found: found[1] or "", text)


def json_row(line: int, raw: str, value: object, wanted: WantedColumns) -> Row | UnreadableRow:
    """An object as a row; `wanted` keys must have been decoded."""
    if not isinstance(value, dict):
        return UnreadableRow(line, raw, "not a JSON object")
    if repeated := _repeated_key(value, wanted):
        return UnreadableRow(line, raw, f"the key {shortened(repeated, 40)!r} is there twice, with different values")
    damage = UNDECODABLE.search(raw)
    read = wanted.of(tuple(value)) if damage else ()
    if damage and any(_is_damaged(value[key]) for key in value if key in read):
        byte = len(raw[: damage.start()].encode("utf-8", "surrogateescape")) + 1
        return UnreadableRow(line, raw, f"not UTF-8 at byte {byte}")
    return Row(line, raw, value)


def decoded(text: str) -> object:
    """The value of a JSON text; an object with a key that has several values is `Ambiguous`. Raises ValueError, RecursionError."""
    return json.loads(text, object_pairs_hook=_object)


def decoded_line(line: str) -> object:
    """The value of a line, which may have commas too many, as one that was cut out of a list. Raises as `decoded`."""
    try:
        return decoded(line)
    except json.JSONDecodeError as fault:
        try:
            return decoded(_without_spare_commas(line.rstrip(" \t\r,")))
        except ValueError:
            raise fault from None  # which counts the characters of the line as it is


def _repeated_key(row: dict[str, object], wanted: WantedColumns) -> str | None:
    """A key that is there twice among what is read of the row. Elsewhere it costs nothing."""
    found = {key: inner for key, value in row.items() if (inner := repeated_in(value))}
    if isinstance(row, Ambiguous):
        found[row.key] = row.key
    read = wanted.of(tuple(row)) if found else ()
    return next((inner for key, inner in found.items() if key in read), None)


def repeated_in(value: object) -> str | None:
    """A key that some object in the value has twice, with different values."""
    if isinstance(value, Ambiguous):
        return value.key
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for part in parts if (found := repeated_in(part))), None)


def is_value(text: str, *, whole: bool = True) -> bool:
    """Whether the text is, or if not `whole` begins with, a JSON value."""
    try:
        _, end = _DECODER.raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return False
    return not whole or end == len(text.strip())


def _is_damaged(value: object) -> bool:
    return bool(UNDECODABLE.search(json.dumps(value, ensure_ascii=False)))


def _after(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return found.end() if found else position


def _end_of_broken(text: str, position: int) -> int:
    """The end of the broken element: its closing bracket, or earlier the next element, or the line that it is."""
    if text[position] not in "{[":
        return max(_after(_SCALAR, text, position), position + 1)
    ends = [
        end
        for end in (_closed(text, position), _next_sibling(text, position), _own_line(text, position))
        if end is not None
    ]
    return min(ends, default=len(text))


def _closed(text: str, position: int) -> int | None:
    depth = 0
    for token in _TOKENS.finditer(text, position):
        mark = token.group()
        depth += (mark in "{[") - (mark in "}]")
        if depth == 0 and mark in "}]":
            return token.end()
    return None


def _own_line(text: str, position: int) -> int | None:
    """The end of the line if the element seems to be just that, and has a quote too many or too few.

    Without such a quote the brackets can be counted.
    """
    start, end = text.rfind("\n", 0, position) + 1, text.find("\n", position)
    line = text[position:end].rstrip(", \t\r") if end >= 0 else ""
    strings = [token.group() for token in _TOKENS.finditer(line) if token.group().startswith('"')]
    odd = bool(strings) and (len(strings[-1]) == 1 or not strings[-1].endswith('"'))
    return position + len(line) if odd and line.endswith("}") and not text[start:position].strip() else None


def _next_sibling(text: str, position: int) -> int | None:
    """The next object that begins a line as this one does, behind a closed one."""
    indent = text[text.rfind("\n", 0, position) + 1 : position]
    if indent.strip():
        return None
    for found in re.compile(rf"[}}\]]\s*,?[ \t\r]*\n{re.escape(indent)}(?=\{{)").finditer(text, position):
        return found.end()
    return None
