from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perpetune.curation.readers.reader import ReadResult, read_examples
from perpetune.errors import PerpetuneError
from perpetune.records import Message


def read(path: Path, data: bytes | str) -> ReadResult:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_examples(path, "mine")


def test_a_plain_row_gets_id_group_and_source(tmp_path: Path) -> None:
    reading = read(
        tmp_path / "a.jsonl",
        '{"input": "Hi  There", "output": "x", "colour": "red"}\n{"input": "hi there ", "output": "y"}\n',
    )

    first, second = reading.examples
    assert (first.input, first.output, first.source, first.time, first.messages) == ("Hi  There", "x", "mine", None, ())
    assert len(first.id) == 16
    assert first.id != second.id
    assert first.group == second.group, "inputs that are equal but for case and space share a group"


def test_a_row_may_name_itself(tmp_path: Path) -> None:
    line = {"input": "a", "output": "b", "id": 7, "group": "g", "time": "2024-05-01T12:00:00Z", "source": "crm"}
    (row,) = read(tmp_path / "a.jsonl", json.dumps(line)).examples

    assert (row.id, row.group, row.source) == ("7", "g", "crm")
    assert row.time is not None
    assert row.time.isoformat() == "2024-05-01T12:00:00+00:00"


def test_other_right_outputs_are_read_from_every_format(tmp_path: Path) -> None:
    wanted = ("two days", '{"days":2}')
    line = {"input": "a", "output": "48 hours", "references": ["two days", {"days": 2}, "48 hours", "two days"]}
    (row,) = read(tmp_path / "a.jsonl", json.dumps(line)).examples
    assert row.references == wanted
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (row,) = read(tmp_path / "b.jsonl", json.dumps({"messages": turns, "references": ["c"]})).examples
    assert (row.output, row.references) == ("b", ("c",))

    cell = json.dumps(["two days", {"days": 2}]).replace('"', '""')
    reading = read(tmp_path / "a.csv", f'input,output,references\na,48 hours,"{cell}"\nb,x,\nc,x,two days\n')
    assert [row.references for row in reading.examples] == [wanted, ()]
    assert (reading.rejected[0].line, reading.rejected[0].field) == (4, "references")
    assert "must be a JSON list" in reading.rejected[0].reason

    table = pyarrow.table({"input": ["a", "b"], "output": ["x", "y"], "references": [["z", "x"], None]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert [row.references for row in read_examples(tmp_path / "a.parquet", "mine").examples] == [("z",), ()]


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ({"b": 1, "a": "é"}, '{"b":1,"a":"é"}'),
        (["x", None], '["x",null]'),
        (3.5, "3.5"),
        (True, "true"),
    ],
)
def test_outputs_that_are_no_text_become_compact_json(tmp_path: Path, output: object, text: str) -> None:
    (row,) = read(tmp_path / "a.jsonl", json.dumps({"input": "a", "output": output})).examples

    assert row.output == text


def chat(*turns: tuple[str, object], **more: object) -> str:
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in turns], **more})


def test_chat_rows_keep_only_conversations_that_say_more_than_the_input(tmp_path: Path) -> None:
    rows = [
        chat(("user", "one"), ("assistant", "a"), id="first"),
        chat(("system", ""), ("user", [{"type": "text", "text": "two"}]), ("assistant", "b")),
        chat(("developer", "be short"), ("user", "three"), ("assistant", "c")),
        chat(("user", "x"), ("assistant", "y"), ("user", "four"), ("assistant", "d")),
    ]
    reading = read(tmp_path / "a.jsonl", "\n".join(rows))

    assert [(row.input, row.output) for row in reading.examples] == [
        ("one", "a"),
        ("two", "b"),
        ("three", "c"),
        ("four", "d"),
    ]
    assert reading.examples[0].id == "first"
    assert [len(row.messages) for row in reading.examples] == [0, 0, 2, 3]
    assert reading.examples[2].messages[0] == Message(role="system", content="be short")


def test_tool_calls_and_their_results_stay_in_the_conversation(tmp_path: Path) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}

    def row(*calls: object) -> str:
        turns = [
            {"role": "user", "content": "look up"},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "content": "blue", "tool_call_id": "call_1"},
            {"role": "user", "content": "and?"},
            {"role": "assistant", "content": "It is blue."},
        ]
        return json.dumps({"messages": turns})

    lines = [row(call), row({**call, "id": "call_2"}), row(), row("look"), row({**call, "id": "\ud800"})]
    reading = read(tmp_path / "a.jsonl", "\n".join(lines))

    first, second = reading.examples
    assert first.messages[1] == Message(role="assistant", content="", tool_calls=(call,))
    assert first.messages[2] == Message(role="tool", content="blue", tool_call_id="call_1")
    assert first.id != second.id
    fields = ["messages[1].content", "messages[1].tool_calls", "messages[1].tool_calls"]
    assert [rejected.field for rejected in reading.rejected] == fields


@pytest.mark.parametrize(
    ("line", "field", "reason"),
    [
        (b'{"input": "a", "output": ', None, "broken JSON at character"),
        (b'["input", "output"]', None, "not a JSON object"),
        (b'{"input": "\xff", "output": "b"}', None, "not UTF-8 at byte 12"),
        (b'{"input": "a", "output": NaN}', "output", "missing"),
        (b'{"input": "a", "output": Infinity}', "output", "is an infinite number"),
        (b'{"input": "a"}', "output", "missing"),
        (b'{"input": null, "output": "b"}', "input", "missing"),
        (b'{"input": " \\n", "output": "b"}', "input", "empty"),
        (b'{"input": 3, "output": "b"}', "input", "must be text, got a number"),
        (b'{"input": "a\\u0000", "output": "b"}', "input", "NUL"),
        (b'{"input": "\\ud800", "output": "b"}', "input", "surrogate"),
        (b'{"input": "a", "output": {"x": "\\ud800"}}', "output", "surrogate"),
        (b'{"input": "%s", "output": "b"}' % (b"a" * 1_000_001), "input", "1,000,001 characters long"),
        (b'{"input": "a", "output": "b", "time": "yesterday"}', "time", "ISO 8601"),
        (b'{"input": "a", "output": "b", "time": 1714564800}', "time", "ISO 8601"),
        (b'{"input": "a", "output": "b", "id": ["x"]}', "id", "must be text, got a list"),
        (b'{"messages": []}', "messages", "at least one message"),
        (b'{"messages": "hello"}', "messages", "must be a list"),
        (b'{"messages": [{"role": "user", "content": "a"}]}', "messages", "must be the assistant's"),
        (b'{"messages": [{"role": "assistant", "content": "a"}]}', "messages", "user's message right before"),
        (b'{"messages": [{"role": "robot", "content": "a"}]}', "messages[0].role", "must be one of system"),
        (b'{"messages": [{"role": "user", "content": [{"type": "image"}]}]}', "messages[0].content", "not text"),
        (b"[" * 100_000, None, "unreadable JSON"),
    ],
)
def test_a_bad_line_costs_one_line(tmp_path: Path, line: bytes, field: str | None, reason: str) -> None:
    good = b'{"input": "good", "output": "yes"}'
    reading = read(tmp_path / "a.jsonl", b"\n".join([good, b"", line + b"\r", good]))

    assert [row.input for row in reading.examples] == ["good", "good"]
    (rejected,) = reading.rejected
    assert (rejected.file, rejected.line, rejected.field) == ("a.jsonl", 3, field)
    assert reason in rejected.reason
    assert len(rejected.raw) <= 200


def test_csv_counts_lines_through_quoted_line_breaks_and_a_byte_order_mark(tmp_path: Path) -> None:
    data = '\ufeffid,input,output\n1,"two\nlines",a\n\n2,,b\n3,"comma, quote ""q""",c\n4,x,y,z\n5,last,d\n'
    reading = read(tmp_path / "a.csv", data)

    assert [(row.id, row.input, row.output) for row in reading.examples] == [
        ("1", "two\nlines", "a"),
        ("3", 'comma, quote "q"', "c"),
        ("5", "last", "d"),
    ]
    assert [(row.line, row.field, row.reason) for row in reading.rejected] == [
        (5, "input", "empty"),
        (7, None, "4 columns, but the header has 3"),
    ]


def test_csv_stray_quotes_and_bad_bytes_cost_one_line_each(tmp_path: Path) -> None:
    data = b'input,output\na,b\n"open,b\nc,d\nbad \xff,e\nf,"g\nh,i\n' + b'"%s",x\nj,k' % (b"y" * 1_000_001)
    reading = read(tmp_path / "a.csv", data)

    assert [row.input for row in reading.examples] == ["a", "c", "h", "j"]
    assert [row.line for row in reading.rejected] == [3, 5, 6, 8]


def test_parquet_rows_of_both_formats(tmp_path: Path) -> None:
    plain, talk = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pyarrow.parquet.write_table(
        pyarrow.table({"input": ["a", None, "c"], "output": [1.5, 2.0, float("nan")], "embedding": [[1], [2], [3]]}),
        plain,
    )
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"messages": messages}]), talk)

    reading = read_examples(plain, "mine")
    assert [(row.input, row.output) for row in reading.examples] == [("a", "1.5")]
    assert [(row.line, row.field, row.reason) for row in reading.rejected] == [
        (2, "input", "missing"),
        (3, "output", "missing"),
    ]
    assert [(row.input, row.output) for row in read_examples(talk, "mine").examples] == [("q", "r")]


def test_parquet_text_that_is_not_utf8_costs_one_row(tmp_path: Path) -> None:
    text = pyarrow.array([b"a", b"\xff", b"c"]).view(pyarrow.string())
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"input": text, "output": ["x", "y", "z"]}), path)

    reading = read_examples(path, "mine")

    assert [row.input for row in reading.examples] == ["a", "c"]
    assert [row.line for row in reading.rejected] == [2]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.txt", b"hello", [".txt", ".jsonl", ".csv", ".parquet"]),
        ("a.jsonl", b" \n\n", ["empty"]),
        ("a.jsonl", b"\x00\x01\x02\n\x00", ["not text"]),
        ("a.jsonl", "input".encode("utf-16"), ["none of its 1 lines"]),
        ("a.csv", "input,output\na,b".encode("utf-16")[:-1], ["not valid UTF-16"]),
        ("a.jsonl.gz", b"\x1f\x8b\x08 nothing", ["gzip", "damaged"]),
        ("a.jsonl", b"hello\nworld", ["none of its 2 lines", "line 1"]),
        ("a.csv", b"text,category\na,b\n", ["`text`, `category`", "--map input=text --map output=category"]),
        ("a.csv", b"text,category,answer\na,b,c\n", ["--map input=text --map output=answer"]),
        (
            "a.jsonl",
            b'{"question": "a", "context": "b", "answer": "c"}',
            ["--map input=context+question --map output=answer"],
        ),
        ("a.csv", b"Input,output\na,b\n", ["--map input=Input"]),
        ("a.csv", b"input output\na b\n", ["--separator"]),
        ("a.csv", b"input,input,output\na,b,c\n", ["`input` occurs twice"]),
        ("a.csv", b"\x00\xff\xfe,b\n", ["not UTF-8"]),
        ("a.csv", b'"input,output\na,b\n', ["header"]),
        ("a.parquet", b"PAR1 nonsense", ["Parquet"]),
    ],
)
def test_a_bad_file_is_one_error_that_says_what_to_do(tmp_path: Path, name: str, data: bytes, words: list[str]) -> None:
    with pytest.raises(PerpetuneError) as caught:
        read(tmp_path / name, data)

    assert str(tmp_path / name) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name, word in (("none.csv", "does not exist"), ("folder.csv", "cannot be read")):
        with pytest.raises(PerpetuneError, match=word):
            read_examples(tmp_path / name, "mine")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.binary(max_size=40).filter(lambda line: line.strip()), max_size=8), st.sampled_from(["jsonl", "csv"])
)
def test_whatever_the_bytes_nothing_good_is_lost(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], kind: str
) -> None:
    first, last = (b"input,output\ngood,yes", b"good,yes")
    if kind == "jsonl":
        first = last = b'{"input": "good", "output": "yes"}'
    path = tmp_path_factory.mktemp("hostile") / f"a.{kind}"
    reading = read(path, b"\n".join([first, *lines, last]))

    assert reading.examples[0].input == "good"
    # In CSV an open quote in the noise may close in the last line.
    assert reading.examples[-1].input == "good" or kind == "csv"
