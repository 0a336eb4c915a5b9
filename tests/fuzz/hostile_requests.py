"""Requests that no well-behaved client sends, as the bytes on the connection; each follows from a seed and a number."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from hostile_json import KNOWN_ID, TASK, hostile_json

HELLO = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object", "properties": {"a": {"enum": ["b", "c"]}}, "required": ["a"], "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": SCHEMA}}]

# Valid bodies of every path that takes one.
BODIES: dict[str, list[Any]] = {
    "/v1/chat/completions": [
        {"model": TASK, "messages": HELLO},
        {"model": f"{TASK}@2", "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}},
        {"model": TASK, "messages": HELLO, "n": 2, "logprobs": True, "top_logprobs": 3, "seed": 1, "temperature": 1.0},
        {"model": TASK, "messages": HELLO, "stop": ["x"], "metadata": {"request_id": "mine"}, "user": "ann"},
        {
            "model": TASK,
            "messages": HELLO,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
        },
        {"model": TASK, "messages": HELLO, "tools": TOOLS, "tool_choice": "required", "stream": True},
        {
            "model": TASK,
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "be kind"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
                },
                {"role": "tool", "content": "done", "tool_call_id": "1"},
                *HELLO,
            ],
        },
    ],
    "/v1/completions": [
        {"model": TASK, "prompt": "hello"},
        {"model": TASK, "prompt": ["one", "two"], "logprobs": 2, "metadata": {"a": 1}},
        {"model": TASK, "prompt": "hello", "stream": True, "n": 2, "best_of": 2},
    ],
    "/v1/responses": [
        {"model": TASK, "input": "hello", "instructions": "be kind"},
        {"model": TASK, "input": HELLO, "stream": True, "temperature": 0.5, "metadata": {"a": "b"}},
        {"model": TASK, "input": "hello", "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}},
        {"model": TASK, "input": "hello", "tools": [{"type": "function", "name": "look", "parameters": SCHEMA}]},
    ],
    "/v1/embeddings": [{"model": TASK, "input": "hello"}],
    "/v1/feedback": [
        {"request_id": KNOWN_ID, "label": "good", "score": 0.5, "comment": "so", "index": 0, "propensity": 0.5},
        [{"request_id": KNOWN_ID, "score": 1}, {"request_id": "unknown", "score": 0}],
        {"request_id": KNOWN_ID, "comment": "so"},
    ],
    "/v1/release/check": [{"task": TASK, "workspace": None}],
    "/v1/release/rollback": [{"task": "another", "reason": "why"}],
    "/v1/release/answers": [{"version": "1", "task": TASK, "conversations": [HELLO, HELLO]}],
    "/v1/approvals/3": [{"approve": True, "comment": "yes"}, {"approve": False, "comment": "no"}],
}
_ASKING = ("/v1/chat/completions", "/v1/completions", "/v1/responses")  # more often than the others
GETS = (
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/models",
    f"/v1/models/{TASK}",
    "/v1/approvals",
    "/openapi.json",
    "/docs",
    "/",
)
METHODS = [
    *[
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "TRACE",
        "CONNECT",
        "PROPFIND",
        "MKCOL",
        "SEARCH",
        "PURGE",
        "M-SEARCH",
        "QUERY",
        "get",
        "FOO",
        "GËT",
    ]
]
_SEGMENTS = [
    *[
        "%00",
        "%ff",
        "%ed%a0%80",
        "%c0%80",
        "%2e%2e",
        "%2f",
        "%25",
        "%",
        "%zz",
        "..",
        ".",
        "*",
        ";",
        "?",
        "#",
        "\\",
        "|",
        "~",
        "a%0d%0ab",
        "%0a",
        "'",
        '"',
        "<",
        ">",
        "é",
        "\x7f",
    ],
    "x" * 3000,
    "1" * 400,
    f"{TASK}@%00",
    f"{TASK}@1",
    "%e2%80%ae",
    "-1",
    "%20",
]
_VALUES = (
    b"",
    b"\x80\xff",
    b"\xed\xa0\x80",
    b"x" * 3000,
    b"%00",
    b"a\tb",
    b"0",
    b"-1",
    b"9" * 400,
    b"null",
    b'"',
    b",",
    b";=",
    b"*",
)
_HEADERS = (
    b"x-request-id x-client-request-id x-session-id traceparent tracestate baggage origin referer forwarded x-forwarded-for "
    b"x-forwarded-proto x-forwarded-host host cookie accept accept-encoding range if-none-match expect upgrade te trailer "
    b"via date user-agent content-language x-http-method-override access-control-request-method content-md5 connection"
).split()


@dataclass(frozen=True)
class HostileRequest:
    """What is sent. `is_due` says that the gateway owes an answer, because the request is whole; else it may close.

    `methods` are those of the requests in it, for a reader of the replies. Between the chunks lie `pause` seconds.
    """

    name: str
    chunks: tuple[bytes, ...]
    methods: tuple[str, ...] = ("POST",)
    is_due: bool = False
    pause: float = 0.0


def hostile_request(seed: int, number: int, key: str) -> HostileRequest:
    """Number `number` of the requests of this seed, by a client with this API key."""
    random = Random(f"{seed} {number}")
    return random.choice(_KINDS)(random, key)


def request_bytes(
    method: str, path: str, headers: Sequence[tuple[bytes, bytes]], body: bytes = b"", *, close: bool = True
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1".encode("latin-1", "replace"), b"host: fuzz"]
    lines += [name + b": " + value for name, value in headers]
    if body or method == "POST":
        lines.append(b"content-length: %d" % len(body))
    if close:
        lines.append(b"connection: close")
    return b"\r\n".join([*lines, b"", body])


def _json(random: Random, key: str) -> HostileRequest:
    path, body = _path_and_body(random)
    head = [*_key(key), _type(b"application/json")]
    if path == "/v1/feedback" and random.random() < 0.2:
        lines = [hostile_json(random, body).replace(b"\n", b" ") for _ in range(random.randint(1, 5))]
        head, sent = [*_key(key), _type(b"application/x-ndjson")], b"\n".join(lines)
    else:
        sent = hostile_json(random, body)
    return _due(f"json to {path}", "POST", request_bytes("POST", path, head, sent))


def _content_type(random: Random, key: str) -> HostileRequest:
    path, body = _path_and_body(random)
    kind = random.choice(
        (
            b"",
            b"text/plain",
            b"application/x-www-form-urlencoded",
            b"multipart/form-data; boundary=x",
            b"multipart/form-data",
            b"application/json; charset=utf-16",
            b"application/json; charset=\xff",
            b"application/problem+json",
            b"application/+json",
            b"APPLICATION/JSON",
            b"application/json, application/json",
            b"application/x-ndjson",
            b"\x80",
            b"/",
        )
    )
    content = random.choice(
        (json.dumps(body).encode(), b"a=b&c=%00", b"--x\r\n\r\n--x--", json.dumps(body).encode("utf-16"))
    )
    return _due(f"content-type {kind!r}", "POST", request_bytes("POST", path, [*_key(key), _type(kind)], content))


def _encoding(random: Random, key: str) -> HostileRequest:
    path, body = _path_and_body(random)
    whole = json.dumps(body).encode()
    packed = gzip.compress(whole)
    at = random.randrange(len(packed))
    encoding, content = random.choice(
        (
            (b"gzip", packed),
            (b"x-gzip", packed + packed),
            (b"gzip", packed[:at]),
            (b"gzip", packed[:at] + random.randbytes(2) + packed[at + 2 :]),
            (b"gzip", b""),
            (b"gzip", whole),
            (b"gzip", gzip.compress(b" " * 20_000_000, 1)),
            (b"gzip", gzip.compress(b"[" * 100_000)),
            (b"gzip, gzip", gzip.compress(packed)),
            (b"deflate", zlib.compress(whole)),
            (b"br", random.randbytes(50)),
            (b"zstd", random.randbytes(50)),
            (b"identity", whole),
            (b"\xff", whole),
            (b"gzip\t", packed),
        )
    )
    head = [*_key(key), _type(b"application/json"), (b"content-encoding", encoding)]
    return _due(f"content-encoding {encoding!r}", "POST", request_bytes("POST", path, head, content))


def _method(random: Random, key: str) -> HostileRequest:
    method, path = random.choice(METHODS), random.choice([*BODIES, *GETS])
    body = b"" if random.random() < 0.5 else b"{}"
    # The parser refuses methods that it does not know, and CONNECT, with the connection.
    return HostileRequest(
        f"{method} {path}", (request_bytes(method, path, [*_key(key), _type(b"application/json")], body),), (method,)
    )


def _path(random: Random, key: str) -> HostileRequest:
    base = random.choice(
        ("/", "/v1/", "/v1/models/", "/v1/approvals/", "/v1/release/", "/docs/", "//", "*", "http://other/")
    )
    path = base + "/".join(random.choice(_SEGMENTS) for _ in range(random.randint(0, 3)))
    path += random.choice(("", "", "?", "?a=%00&b=%ff", "?" + "&".join(["a=b"] * 500), "?x=" + "y" * 3000))
    method = random.choice(("GET", "GET", "HEAD", "POST"))
    body = json.dumps({"approve": True, "comment": "x"}).encode() if method == "POST" else b""
    head = [*_key(key), _type(b"application/json")]
    return HostileRequest(f"path {path[:60]!r}", (request_bytes(method, path, head, body),), (method,))


def _headers(random: Random, key: str) -> HostileRequest:
    path, body = _path_and_body(random)
    odd = [(random.choice(_HEADERS), random.choice(_VALUES)) for _ in range(random.randint(1, 4))]
    return HostileRequest(
        f"headers {[name for name, _ in odd]!r}",
        (request_bytes("POST", path, [*_key(key), _type(b"application/json"), *odd], json.dumps(body).encode()),),
    )


def _large_head(random: Random, key: str) -> HostileRequest:
    more = random.choice(
        (
            [(b"x", b"y" * 70_000)],
            [(b"x" * 70_000, b"y")],
            [(b"x-%d" % number, b"y") for number in range(6000)],
            [(b"x-%d" % number, b"y") for number in range(1000)],
            [(b"cookie", b"a=b; " * 9000)],
            [(b"authorization", b"Bearer " + b"z" * 60_000)],
        )
    )
    return HostileRequest("a large head", (request_bytes("GET", random.choice(GETS), [*_key(key), *more]),), ("GET",))


def _authorization(random: Random, key: str) -> HostileRequest:
    value = random.choice(
        (
            b"",
            b"Bearer",
            b"Bearer ",
            b"Basic Og==",
            b"Bearer \xff\x80",
            b"Bearer " + b"x" * 5000,
            b"Bearer ppt_wrong",
            b"\xed\xa0\x80",
        )
    )
    path, body = _path_and_body(random)
    twice = _key(key) if random.random() < 0.2 else []
    head = [(b"authorization", value), *twice, _type(b"application/json")]
    return _due(f"authorization {value[:20]!r}", "POST", request_bytes("POST", path, head, json.dumps(body).encode()))


def _lengths(random: Random, key: str) -> HostileRequest:
    """Lengths and chunks that contradict the body or each other."""
    path, body = _path_and_body(random)
    whole = json.dumps(body).encode()
    head = b"\r\n".join(
        [
            b"POST %b HTTP/1.1" % path.encode(),
            b"host: fuzz",
            b"authorization: Bearer " + key.encode(),
            b"content-type: application/json",
        ]
    )
    size = b"%x" % len(whole)
    framed = random.choice(
        (
            b"content-length: -1\r\n\r\n" + whole,
            b"content-length: +5\r\n\r\n" + whole,
            b"content-length: 5, 6\r\n\r\n" + whole,
            b"content-length: 5\r\ncontent-length: 6\r\n\r\n" + whole,
            b"content-length: 99999999999999999999999\r\n\r\n" + whole,
            b"content-length: 10000000000\r\n\r\n" + whole,
            b"content-length: %d\r\n\r\n" % (len(whole) - 3) + whole,
            b"content-length: %d\r\n\r\n" % (len(whole) + 30) + whole,
            b"content-length: \xb2\r\n\r\n" + whole,
            b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            b"transfer-encoding: gzip\r\n\r\n" + whole,
            b"transfer-encoding: chunked, chunked\r\n\r\n" + whole,
            b"transfer-encoding: xchunked\r\n\r\n" + whole,
            b"transfer-encoding: chunked\r\n\r\n" + size + b"\r\n" + whole + b"\r\n0\r\n\r\n",
            b"transfer-encoding: chunked\r\n\r\n"
            + size
            + b";"
            + b"e" * 5000
            + b"\r\n"
            + whole
            + b"\r\n0\r\na: b\r\n\r\n",
            b"transfer-encoding: chunked\r\n\r\nzz\r\n" + whole,
            b"transfer-encoding: chunked\r\n\r\n-1\r\n" + whole,
            b"transfer-encoding: chunked\r\n\r\nfffffffffffffffffffff\r\n" + whole,
            b"transfer-encoding: chunked\r\n\r\n" + size + whole + b"0\r\n\r\n",
            b"transfer-encoding: chunked\r\n\r\n" + size + b"\n" + whole + b"\n0\n\n",
            b"transfer-encoding: chunked\r\n\r\n" + b"".join(b"1\r\n%c\r\n" % byte for byte in whole) + b"0\r\n\r\n",
            b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(whole) + whole,
            b"expect: nonsense\r\ncontent-length: %d\r\n\r\n" % len(whole) + whole,
            b"upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABk\r\ncontent-length: %d\r\n\r\n"
            % len(whole)
            + whole,
            b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: \xff\r\n\r\n",
        )
    )
    return HostileRequest("lengths and chunks", (head + b"\r\n" + framed,))


def _broken_head(random: Random, key: str) -> HostileRequest:
    line = random.choice(
        (
            b"GET",
            b"GET /",
            b"GET / HTTP/9.9",
            b"GET / HTTP/1.0",
            b"GET / HTTP/0.9",
            b"GET  / HTTP/1.1",
            b"GET / HTTP/1.1 x",
            b" GET / HTTP/1.1",
            b"GET /\0 HTTP/1.1",
            b"GET /\xff\xfe HTTP/1.1",
            b"PRI * HTTP/2.0\r\n\r\nSM",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"*1\r\n$4\r\nPING",
            b"GET / HTTP/1.1\r\nno colon",
            b"GET / HTTP/1.1\r\n: empty name",
            b"GET / HTTP/1.1\r\nna me: x",
            b"GET / HTTP/1.1\r\na: \0",
            b"GET / HTTP/1.1\r\na: b\r\n folded",
            b"GET / HTTP/1.1\r\na: b\rc: d",
            b"GET / HTTP/1.1\nhost: x\n",
            b"\r\n\r\n\r\nGET /healthz HTTP/1.1",
            b"GET http:// HTTP/1.1",
            b"GET http://[::1 HTTP/1.1",
            b"GET http://a:99999/ HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"GET ?a HTTP/1.1",
            random.randbytes(random.randint(1, 1000)),
        )
    )
    return HostileRequest(f"head {line[:30]!r}", (line + b"\r\nconnection: close\r\n\r\n",), ("GET",))


def _mutated(random: Random, key: str) -> HostileRequest:
    """A valid request with some bytes changed, left out or put in."""
    whole = bytearray(_valid(random, key))
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        at = random.randrange(len(whole))
        change = random.randrange(3)
        if change == 0:
            whole[at] = random.randrange(256)
        elif change == 1:
            del whole[at : at + random.choice((1, 1, 8))]
        else:
            whole[at:at] = random.randbytes(random.choice((1, 1, 8)))
    return HostileRequest("changed bytes", (bytes(whole),))


def _cut_off(random: Random, key: str) -> HostileRequest:
    whole = _valid(random, key)
    at = random.randrange(1, len(whole))
    return HostileRequest("cut off", (whole[:at],))


def _slow(random: Random, key: str) -> HostileRequest:
    whole = _valid(random, key)
    step = len(whole) // random.choice((2, 5, 20)) + 1
    pieces = tuple(whole[at : at + step] for at in range(0, len(whole), step))
    return HostileRequest("slowly", pieces, is_due=True, pause=0.02)


def _pipelined(random: Random, key: str) -> HostileRequest:
    parts: list[bytes] = []
    methods: list[str] = []
    for _ in range(random.randint(1, 6)):
        method = random.choice(("GET", "HEAD", "POST"))
        methods.append(method)
        if method == "POST":
            path, body = _path_and_body(random)
            head = [*_key(key), _type(b"application/json")]
            parts.append(request_bytes(method, path, head, hostile_json(random, body), close=False))
        else:
            parts.append(request_bytes(method, random.choice(GETS), _key(key), close=False))
    parts.append(request_bytes("GET", "/healthz", []))
    return HostileRequest("pipelined", (b"".join(parts),), (*methods, "GET"), is_due=True)


_KINDS: tuple[Callable[[Random, str], HostileRequest], ...] = (
    *(_json,) * 10,
    _content_type,
    _encoding,
    _method,
    _path,
    _path,
    _headers,
    _large_head,
    _authorization,
    _lengths,
    _lengths,
    _broken_head,
    _mutated,
    _mutated,
    _cut_off,
    _slow,
    _pipelined,
)


def _due(name: str, method: str, sent: bytes) -> HostileRequest:
    return HostileRequest(name, (sent,), (method,), is_due=True)


def _valid(random: Random, key: str) -> bytes:
    path, body = _path_and_body(random)
    return request_bytes("POST", path, [*_key(key), _type(b"application/json")], json.dumps(body).encode())


def _path_and_body(random: Random) -> tuple[str, Any]:
    path = random.choice([*BODIES, *_ASKING])
    return path, random.choice(BODIES[path])


def _key(key: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + key.encode())]


def _type(kind: bytes) -> tuple[bytes, bytes]:
    return b"content-type", kind
