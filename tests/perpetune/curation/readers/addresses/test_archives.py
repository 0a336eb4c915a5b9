"""Archives: every file in them is read under a name that says where it lies."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import openpyxl
import pytest
import zstandard

from perpetune.curation.ingest import ingest
from perpetune.curation.readers.addresses.address import local_copies
from perpetune.curation.readers.reader import read_examples
from perpetune.errors import PerpetuneError

FILES = {
    "heap/b.jsonl": b'{"input": "b", "output": "x"}\n',
    "heap/a.csv": b"input;output\na;x\n",
    "heap/deep/a.csv": b"input;output\nother a;x\n",
    "heap/README": b"nothing to learn",
    "__MACOSX/heap/._a.csv": b"\0",
    "heap/.hidden.jsonl": b"{}",
}


def zipped(files: Mapping[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def tarred(files: Mapping[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("heap/link.jsonl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return data.getvalue()


def inputs(path: Path) -> dict[str, list[str]]:
    with local_copies(str(path)) as files:
        return {
            file.address.removeprefix(str(path)): [row.input for row in read_examples(file.path, "x").examples]
            for file in files
        }


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("heap.zip", zipped),
        ("heap.tar", tarred),
        ("heap.tar.gz", lambda files: gzip.compress(tarred(files))),
        ("heap.tgz", lambda files: gzip.compress(tarred(files))),
        ("heap.tar.bz2", lambda files: bz2.compress(tarred(files))),
        ("heap.tar.xz", lambda files: lzma.compress(tarred(files))),
        ("heap.tar.zst", lambda files: zstandard.ZstdCompressor().compress(tarred(files))),
        ("download", lambda files: gzip.compress(tarred(files))),
    ],
)
def test_every_file_is_read(tmp_path: Path, name: str, pack: Callable[[Mapping[str, bytes]], bytes]) -> None:
    path = tmp_path / name
    path.write_bytes(pack(FILES))
    expected = {" (heap/a.csv)": ["a"], " (heap/b.jsonl)": ["b"], " (heap/deep/a.csv)": ["other a"]}
    assert inputs(path) == expected


def test_members_are_ingested_under_their_own_names(tmp_path: Path) -> None:
    path = tmp_path / "heap.zip"
    path.write_bytes(zipped(FILES))
    with local_copies(str(path)) as files:
        done = [ingest(file, tmp_path / "data/inbox") for file in files]
    assert [(each.source, each.examples) for each in done] == [("a", 1), ("b", 1), ("a", 1)]


def test_a_folder_has_archives_too(tmp_path: Path) -> None:
    (tmp_path / "heap.zip").write_bytes(zipped({"a.csv": b"input;output\na;x\n"}))
    (tmp_path / "b.jsonl").write_bytes(FILES["heap/b.jsonl"])
    assert list(inputs(tmp_path).values()) == [["b"], ["a"]]


def test_the_only_file_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "heap.zip"
    path.write_bytes(zipped({"export": FILES["heap/b.jsonl"]}))
    assert inputs(path) == {" (export)": ["b"]}


def test_a_member_cannot_be_written_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "heap.zip"
    path.write_bytes(zipped({"../../evil.csv": b"input;output\na;x\n", "c:\\\\evil\\b.csv": b"input;output\nb;x\n"}))
    with local_copies(str(path)) as files:
        assert sorted(file.path.name for file in files) == ["b.csv", "evil.csv"]
        assert all(file.path.parents[2].name.startswith("perpetune-") for file in files)


def test_a_workbook_is_no_archive(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["input", "output"])
    book.active.append(["a", "x"])
    book.save(tmp_path / "a.xlsx")
    assert inputs(tmp_path / "a.xlsx") == {"": ["a"]}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\3\4 not much of an archive", "damaged or cut off"),
        (b"", "damaged or cut off"),
        (zipped(FILES)[:150], "damaged or cut off"),
        (zipped({"a.pdf": b"x", "b.docx": b"y"}), r"has no \.jsonl"),
        (zipped({"inner.zip": zipped(FILES)}), r"has no \.jsonl"),
        (zipped({}), r"has no \.jsonl"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "heap.zip"
    path.write_bytes(content)
    with pytest.raises(PerpetuneError, match=what):
        inputs(path)


def test_an_encrypted_archive_is_said_to_be_one(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.csv": b"input;output\na;x\n"}))
    for magic, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(magic) + flags] |= 1
    (tmp_path / "heap.zip").write_bytes(data)
    with pytest.raises(PerpetuneError, match="is encrypted"):
        inputs(tmp_path / "heap.zip")
