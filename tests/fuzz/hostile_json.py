"""JSON that no well-behaved client sends: of a valid body, or in place of one."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

TASK = "fuzzed"
KNOWN_ID = "an id that the log knows"

_TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "\ud83d",
    "\udc00\ud800",
    "\ufffe\uffff",
    "\U0010ffff",
    "\u202e\u2066\u200d",
    "e" + "\u0301" * 2000,
    "x" * 600,
    "x" * 5000,
    "%s%n{0}{}$(id)`id`",
    "'; DROP TABLE predictions; --",
    "</s><s>[INST]<|im_end|><|im_start|>",
    "../../../etc/passwd",
    "\r\nSet-Cookie: a=b",
    "1e400",
    "NaN",
    "reviews@1",
    TASK,
    f"{TASK}@1",
    f"{TASK}@\0",
    f"{TASK}@{'9' * 500}",
    KNOWN_ID,
)
_NUMBERS = (0, -1, 1, -0.0, 0.5, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, 1e-320, 1e308)
# Python's own encoder writes neither of them as JSON has it, so that they are put into the text.
_LITERALS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "-1e400",
    "1e-400",
    "9" * 5000,
    "-" + "9" * 4400,
    "0." + "1" * 5000,
    "01",
    "+1",
    ".5",
    "1.",
    "0x10",
    "True",
    "undefined",
    "'single'",
    '"\\u0000"',
    '"\\ud83d"',
    '"\\ud83d\\ude00"',
    '"\\x41"',
    '"\t"',
    "[" * 200 + "]" * 200,
    "[" * 3000 + "]" * 3000,
    '{"a":' * 900 + "1" + "}" * 900,
    '{"a":' * 50_000,
    '{"a":1,"a":2}',
)
_PLACE = "a place for a literal"


def hostile_json(random: Random, valid: Any) -> bytes:
    """A body made of a valid one: other values, other literals, or other bytes."""
    kind = random.choice(
        (_other_values, _other_values, _other_literal, _other_literal, _twice, _other_bytes, _no_object)
    )
    return kind(random, copy.deepcopy(valid))


def _other_values(random: Random, body: Any) -> bytes:
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        body = _replaced(random, body, _value(random))
    return json.dumps(body, ensure_ascii=True).encode()


def _other_literal(random: Random, body: Any) -> bytes:
    whole = json.dumps(_replaced(random, body, _PLACE))
    return whole.replace(f'"{_PLACE}"', random.choice(_LITERALS), 1).encode()


def _twice(random: Random, body: Any) -> bytes:
    """With one key twice."""
    name = random.choice(list(body)) if isinstance(body, dict) and body else "a"
    first = json.dumps({name: _value(random)})
    return (first[:-1] + ", " + json.dumps(body)[1:]).encode()


def _other_bytes(random: Random, body: Any) -> bytes:
    text = json.dumps(body, ensure_ascii=False)
    whole = text.encode()
    at = random.randrange(len(whole) + 1)
    return random.choice(
        (
            whole[:at],
            whole[:at] + random.randbytes(random.randint(1, 8)) + whole[at:],
            whole[:at] + b"\xff\xfe" + whole[at:],
            whole[:at] + b"\xed\xa0\x80" + whole[at:],  # a surrogate as UTF-8 would have it
            whole[:at] + b"\xc0\x80" + whole[at:],  # NUL in two bytes
            whole[:at] + b"\0" + whole[at:],
            whole + whole,
            whole + b"}",
            b"\xef\xbb\xbf" + whole,
            text.encode("utf-16"),
            text.encode("utf-32-le"),
            whole.replace(b" ", b"\x0b"),
            b" " * 100_000 + whole,
        )
    )


def _no_object(random: Random, body: Any) -> bytes:
    return random.choice(
        (
            b"",
            b" ",
            b"null",
            b"true",
            b"[]",
            b"{}",
            b'""',
            b"0",
            b"[null]",
            b"[[]]",
            b"\0",
            b"[" * 100_000,
            b"<xml/>",
            *(literal.encode() for literal in _LITERALS),
        )
    )


def _value(random: Random) -> Any:
    """A value in place of another."""
    simple: list[Any] = [None, True, False, random.choice(_NUMBERS), random.choice(_TEXTS), random.choice(_TEXTS)]
    shapes: list[Any] = [
        [],
        {},
        [random.choice(_TEXTS)] * random.choice((1, 5, 200)),
        {random.choice(_TEXTS): random.choice(_NUMBERS)},
        [[random.choice(_NUMBERS)]],
        {"type": random.choice(("text", "image_url", "json_schema", "function")), "text": random.choice(_TEXTS)},
    ]
    return random.choice(simple + shapes)


def _replaced(random: Random, body: Any, value: Any) -> Any:
    """The body with one value replaced at any depth, removed, or put under a new name."""
    if not isinstance(body, dict | list) or not body or random.random() < 0.05:
        return value
    if isinstance(body, dict) and random.random() < 0.1:
        return {**body, random.choice(_TEXTS): value}
    places: list[Any] = list(body if isinstance(body, dict) else range(len(body)))
    # Seldom the model, without which a request comes nowhere near the engine.
    place = random.choice([place for place in places if place != "model" or random.random() < 0.2] or places)
    if random.random() < 0.05:
        del body[place]
    elif random.random() < 0.7:
        body[place] = _replaced(random, body[place], value)
    else:
        body[place] = value
    return body
