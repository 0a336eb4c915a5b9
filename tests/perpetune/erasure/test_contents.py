"""One file without the erased rows: what is left is untouched."""

from __future__ import annotations

import gzip
import io
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from perpetune.curation.hosted.matching import turns_hash
from perpetune.curation.quarantine import Quarantined, Rejected
from perpetune.curation.rows.dedup_key import row_hash
from perpetune.erasure.contents import cleaned, examples_in
from perpetune.erasure.scrubber import Scrubber
from perpetune.erasure.selection import Selector, Targets
from perpetune.records import Example


def row(id: str, text: str, output: str = "yes", source: str = "inbox") -> Example:
    return Example(input=text, output=output, id=id, group=id, source=source)


GONE, COPY = row("1", "please call Ann Other about the bill"), row("9", "Please call  Ann Other about the bill", "no")
STAYS = row("2", "call about the bill, said: please call Ann about it")
QUOTING = row("3", "he wrote: please call Ann Other about the bill")


def targets(selector: Selector) -> tuple[Targets, Scrubber]:
    found = Targets(selector.selects, selector.pattern())
    found.add_if_selected([GONE, COPY, STAYS, QUOTING])
    return found, Scrubber(found.pattern, found.texts)


def lines(*rows: Example | Quarantined | Rejected) -> bytes:
    return "".join(each.model_dump_json(exclude_defaults=True) + "\n" for each in rows).encode()


def test_a_row_and_its_copies_go_and_the_others_stay_byte_for_byte() -> None:
    found = cleaned(lines(GONE, STAYS, COPY, QUOTING), *targets(Selector(id="1")))
    assert found.data == lines(STAYS, QUOTING), "another row that quotes it is another row"
    assert found.rows == 2
    assert cleaned(lines(STAYS), *targets(Selector(id="1"))).data is None
    by_text = cleaned(lines(GONE, STAYS, COPY, QUOTING), *targets(Selector(match="ann  OTHER")))
    assert by_text.data == lines(STAYS)


def test_an_id_is_that_of_a_source_if_it_is_given() -> None:
    one, other = row("7", "the first of all texts", source="a"), row("7", "quite another text", source="b")
    selector = Selector(id="b:7")
    assert not selector.selects(one) and selector.selects(other)
    assert Selector(id="7").selects(one) and Selector(id="7").selects(row("a:7", "x", source="a"))


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_compressed_files_are_read_through(pack: object) -> None:
    assert callable(pack)
    data = pack(lines(GONE, STAYS))
    assert [each.id for each in examples_in(data)] == ["1", "2"]
    found = cleaned(data, *targets(Selector(id="1")))
    assert found.rows == 1 and found.data is not None
    assert [each.id for each in examples_in(found.data)] == ["2"]
    assert cleaned(pack(lines(STAYS)), *targets(Selector(id="1"))).data is None


def test_parquet_is_read_through() -> None:
    written = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist([{"id": "1", "input": "a", "n": 1}, {"id": "2", "input": "b", "n": 2}]), written
    )
    found = cleaned(written.getvalue(), *targets(Selector(id="1")))
    assert found.data is not None
    assert pq.read_table(io.BytesIO(found.data)).to_pylist() == [{"id": "2", "input": "b", "n": 2}]


def test_every_kind_of_line_that_quotes_a_row_goes() -> None:
    text = GONE.input
    kinds: list[dict[str, object]] = [
        json.loads(Quarantined(reason="duplicate", example=GONE).model_dump_json()),
        {"file": "a.csv", "line": 3, "reason": "no output", "raw": f'{{"input": "{text}"}}'},
        {"prompt": [{"role": "user", "content": text}], "chosen": [], "rejected": []},
        {"source": "inbox", "id": "1", "field": "input", "before": "x", "after": "y"},
        {"source": "inbox", "id": "8", "input": text, "label": "a", "suggested": "b"},
        {"id": "1", "holdout": "frozen", "output": "yes", "confidence": None, "score": 1.0},
        {"feedback": {"request_id": "1", "comment": "x"}},
    ]
    for kind in kinds:
        other = {"id": "77", "holdout": "frozen", "output": "no"}
        data = "".join(json.dumps(each) + "\n" for each in (kind, other)).encode()
        found = cleaned(data, *targets(Selector(id="1")))
        assert found.data == (json.dumps(other) + "\n").encode(), kind


def test_a_summary_stays_and_loses_the_text() -> None:
    summary = {"rows": 4, "groups": 1, "examples": [[GONE.input, "another text of the group"]]}
    found = cleaned((json.dumps(summary) + "\n").encode(), *targets(Selector(id="1")))
    assert found.data is not None and found.rows == 0
    assert json.loads(found.data) == {"rows": 4, "groups": 1, "examples": [["[erased]", "another text of the group"]]}


def test_weights_are_left_alone() -> None:
    assert cleaned(b"\xff\xfe\x00 Ann Other", *targets(Selector(match="ann other"))).data is None
    assert re.search("Ann", GONE.input)


def test_a_private_form_of_a_row_is_the_row_and_a_corrected_one_is_not() -> None:
    private = row("1", "please call <PERSON_1> about the bill")
    corrected = row("1", "please call the bank about <PERSON_1>")
    other = row("2", "please call <PERSON_2> about the bill", source="elsewhere")
    selector = Selector(match="Ann Other")
    found = Targets(selector.selects, selector.pattern())
    found.add_if_selected([private, corrected, other, GONE])  # the private form is met before the row itself
    found.add_private_forms()
    assert len(found.found) == 2
    scrubber = Scrubber(found.pattern, found.texts)
    assert cleaned(lines(private, corrected, other), found, scrubber).data == lines(corrected, other)


@pytest.mark.parametrize(
    "value",
    [
        {"id": "1", "output": "by id", "rows": ["inbox:1"]},
        {"turns": turns_hash(GONE), "conversation": "of another system message", "output": "no name"},
        {"turns": "t", "conversation": "c", "output": "no name", "rows": ["1"]},
        {"input": GONE.input, "output": "yes", "source": "label rules", "confidence": 0.9, "votes": {"a": "yes"}},
        {"source": "inbox", "id": "1", "input": "as a step changed it", "label": "yes", "why": "a guess"},
        {"subject": {"kind": "row", "id": "1", "source": "inbox"}, "text": "hi", "label": "yes", "annotator": "a"},
        {"subject": {"kind": "new", "id": "x"}, "text": GONE.input, "label": "yes", "annotator": "a"},
        {"asked": "key", "row": row_hash(GONE), "answer": {"text": "no name"}},
        {"asked": "of before rows were noted", "answer": {"text": "no name"}},
        {"feedback": {"request_id": "1", "comment": "no name"}},
        {"request_id": "1", "input": "", "label": ""},
    ],
)
def test_what_is_about_the_row_is_dropped(value: dict[str, object]) -> None:
    data = (json.dumps(value) + "\n").encode()
    assert cleaned(data, *targets(Selector(id="1"))).data == b""


@pytest.mark.parametrize(
    "value",
    [
        {"id": "1", "turns": "t", "conversation": "c", "output": "of another conversation"},
        {"id": "2", "output": "by id", "rows": ["other:1"]},
        {"source": "other", "id": "1", "input": "of another source", "label": "yes", "why": "a guess"},
        {"subject": {"kind": "row", "id": "1", "source": "other"}, "text": "hi", "label": "yes", "annotator": "a"},
        {"asked": "key", "row": row_hash(STAYS), "answer": {"text": "no name"}},
        {"step": 1, "loss": 0.5},
    ],
)
def test_what_is_about_others_stays(value: dict[str, object]) -> None:
    data = (json.dumps(value) + "\n").encode()
    assert cleaned(data, *targets(Selector(id="inbox:1"))).data is None
