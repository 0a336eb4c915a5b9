from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from redaction_texts import PERSONAL, PLAIN

from perpetune.prediction_log.redaction import Redactor, group_key
from perpetune.records import Message, Prediction
from perpetune.redacting.folded_text import fold


@pytest.fixture
def redactor(monkeypatch: pytest.MonkeyPatch) -> Redactor:
    def refuse(*_: object) -> None:
        raise AssertionError("redaction reached for the network")

    made = Redactor(b"key")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return made


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("write to ann@corp.internal!", "write to <EMAIL_ADDRESS>!"),
        ("call +1 (415) 555-2671 now", "call <PHONE_NUMBER> now"),
        ("card 4111 1111 1111 1111.", "card <CREDIT_CARD>."),
        ("from DE89 3704 0044 0532 0130 00", "from <IBAN_CODE>"),
        ("host 10.0.0.7 is down", "host <IP_ADDRESS> is down"),
        ("ssn 536-22-1234", "ssn <US_SSN>"),
        ("https://bob:secret@example.com/x", "https://<URL_CREDENTIALS>/x"),
        ("3 of 10 films in 2024", "3 of 10 films in 2024"),
        ("good", "good"),
    ],
)
def test_texts(redactor: Redactor, text: str, redacted: str) -> None:
    assert redactor.text(text) == redacted


def test_precision_and_recall_on_200_texts(redactor: Redactor) -> None:
    assert len(PERSONAL) >= 100 and len(PLAIN) >= 100
    missed = [(text, redactor.text(text)) for text, redacted in PERSONAL if redactor.text(text) != redacted]
    wrong = [(text, redactor.text(text)) for text in PLAIN if redactor.text(text) != text]
    found = len(PERSONAL) - len(missed)
    recall, precision = found / len(PERSONAL), found / (found + len(wrong))
    assert recall >= 0.98, missed
    assert precision >= 0.98, wrong


@pytest.mark.parametrize("text", ["", "plain", "ﬁ ½ ① ２", "a\u200bb", "\u200b\u200b", "é\u0301", "🙂 x", "\ufeffx１"])
def test_a_folded_text_knows_where_it_comes_from(text: str) -> None:
    folded = fold(text)
    for start in range(len(folded.text)):
        for end in range(start + 1, len(folded.text) + 1):
            first, last = folded.source_span(start, end)
            assert folded.text[start:end] in fold(text[first:last]).text
            assert last - first <= len(text)


def test_what_stands_around_is_kept_as_it_was(redactor: Redactor) -> None:
    text = "１\u200b２ café – write to \u200bａｎｎ＠example.org\u200b, „ok“ ½"
    assert redactor.text(text) == "１\u200b２ café – write to \u200b<EMAIL_ADDRESS>\u200b, „ok“ ½"


def test_a_row_keeps_its_shape(redactor: Redactor, prediction: Callable[..., Prediction]) -> None:
    call = {"id": "call_a", "function": {"name": "send", "arguments": '{"to": "ann@example.com", "n": 4155552671}'}}
    messages = (
        Message(role="user", content="I am ann@example.com"),
        Message(role="assistant", content="", tool_calls=(call,)),
    )
    row = redactor.row(prediction(1, messages=messages, group="ann@example.com", output="hi ann@example.com"))
    assert "ann@example.com" not in row.model_dump_json()
    assert row.messages[1].tool_calls is not None
    arguments = row.messages[1].tool_calls[0]["function"]["arguments"]
    assert arguments == '{"to": "<EMAIL_ADDRESS>", "n": "<PHONE_NUMBER>"}'
    again = redactor.row(prediction(2, group="ann@example.com"))
    other = redactor.row(prediction(3, group="bob@example.com"))
    assert row.group == again.group != other.group


def test_secrets_in_the_arguments_of_a_call(redactor: Redactor, prediction: Callable[..., Prediction]) -> None:
    arguments = (
        '{"password": "hunter2hunter", "user": "hunter2hunter", "max_tokens": "1024", "deep": {"apiKey": "a1b2c3d4e5"}}'
    )
    call = {"id": "call_a", "function": {"name": "send", "arguments": arguments}}
    row = redactor.row(prediction(1, messages=(Message(role="assistant", content="", tool_calls=(call,)),)))
    assert row.messages[0].tool_calls is not None
    assert row.messages[0].tool_calls[0]["function"]["arguments"] == (
        '{"password": "<SECRET>", "user": "hunter2hunter", "max_tokens": "1024", "deep": {"apiKey": "<SECRET>"}}'
    )


def test_an_output_of_json_is_read_as_such(redactor: Redactor, prediction: Callable[..., Prediction]) -> None:
    calls = '[{"function": {"name": "send", "arguments": "{\\"password\\": \\"hunter2hunter\\"}"}}]'
    others = ('{"to":  "Bonn", "n": 3}', '{"to": "ann@example.org"}')
    row = redactor.row(prediction(1, output=calls, other_outputs=others))
    assert row.output == calls.replace("hunter2hunter", "<SECRET>")
    assert row.other_outputs == (others[0], '{"to": "<EMAIL_ADDRESS>"}')


def test_the_key_of_a_folder_stays(tmp_path: Path) -> None:
    assert group_key(tmp_path / "spool") == group_key(tmp_path / "spool") != group_key(None)
