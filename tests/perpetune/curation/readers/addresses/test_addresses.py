from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pyarrow
import pyarrow.parquet
import pytest

from perpetune.curation.ingest import ingest
from perpetune.curation.readers.addresses.address import local_copies
from perpetune.curation.readers.reader import read_examples
from perpetune.errors import PerpetuneError

ROW = '{"input": "a", "output": "x"}\n'


def inputs(address: str) -> list[str]:
    with local_copies(address) as files:
        return [row.input for file in files for row in read_examples(file.path, "mine").examples]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("a.jsonl", "sub/b.jsonl", ".hidden/c.jsonl"):
        (tmp_path / name).write_text(ROW.replace('"a"', f'"{name}"'))
    (tmp_path / "notes.md").write_text("not data")
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", ["a.jsonl", "sub/b.jsonl"]),
        ("a.jsonl", ["a.jsonl"]),
        ("*.jsonl", ["a.jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "sub/b.jsonl"]),
    ],
)
def test_files_folders_and_globs(folder: Path, pattern: str, found: list[str]) -> None:
    assert inputs(str(folder / pattern)) == found


def test_a_name_with_brackets_is_a_file_if_it_exists(tmp_path: Path) -> None:
    (tmp_path / "export [1].jsonl").write_text(ROW)

    assert inputs(str(tmp_path / "export [1].jsonl")) == ["a"]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"input;output\na;x\n")))

    assert inputs("-") == ["a"]


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(ROW,), daemon=True)
    writer.start()

    with local_copies(str(pipe)) as files:
        done = ingest(files[0], tmp_path / "inbox")

    writer.join(timeout=10)
    assert (done.examples, done.source) == (1, "pipe")


def test_an_address_of_fsspec(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/heap/a.jsonl": ROW.encode(), "/heap/deep/b.jsonl": ROW.encode(), "/heap/notes.md": b"x"})
    try:
        assert inputs("memory://heap/a.jsonl") == ["a"]
        assert inputs("memory://heap") == ["a", "a"]
        assert inputs("memory://heap/*.jsonl") == ["a"]
    finally:
        memory.rm("/heap", recursive=True)


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_an_address_of_the_web(server: str) -> None:
    assert inputs(f"{server}/a.jsonl") == ["a.jsonl"]
    with pytest.raises(PerpetuneError, match=r"none\.jsonl"):
        inputs(f"{server}/none.jsonl")


@pytest.mark.parametrize(
    ("protocol", "package"),
    [("s3", "s3fs"), ("gs", "gcsfs"), ("gcs", "gcsfs"), ("az", "adlfs"), ("abfs", "adlfs"), ("abfss", "adlfs")],
)
def test_a_missing_package_is_named(protocol: str, package: str) -> None:
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(PerpetuneError, match=f"{protocol}:// needs the package {package}") as fault:
        inputs(f"{protocol}://bucket/a.jsonl")
    assert fault.value.do == f"pip install {package}"


@pytest.mark.skipif(importlib.util.find_spec("datasets") is not None, reason="datasets is installed")
def test_a_data_set_of_the_hub_needs_its_package() -> None:
    with pytest.raises(PerpetuneError, match="need the package datasets"):
        inputs("hf:owner/name")


@pytest.mark.parametrize("address", ["nowhere/*.jsonl", "strange://a/b.jsonl", "memory://nowhere/none.jsonl"])
def test_what_is_not_there_is_one_sentence(address: str) -> None:
    with pytest.raises(PerpetuneError):
        inputs(address)


def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "heap"
    data.mkdir()
    for split in ("train", "test"):
        table = pyarrow.table({"input": [split], "output": ["x"]})
        pyarrow.parquet.write_table(table, data / f"{split}-00000-of-00001.parquet")

    assert inputs(f"hf:{data}") == ["train"]
    assert inputs(f"hf:{data}:test") == ["test"]
    with pytest.raises(PerpetuneError, match="no split 'none'"):
        inputs(f"hf:{data}:none")


def test_a_data_set_in_the_cache_is_read_without_a_network(tmp_path: Path) -> None:
    """Laid out as the hub's data sets are in the cache of the library; in a process of its own, which reads the setting once."""
    pytest.importorskip("datasets")
    heap, cache = tmp_path / "heap", tmp_path / "cache"
    heap.mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"input": ["a"], "output": ["x"]}), heap / "train.parquet")
    variables = {**os.environ, "HF_DATASETS_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    prepare = (
        f"import datasets; datasets.load_dataset('parquet', data_files={{'train': {str(heap / 'train.parquet')!r}}})"
    )
    subprocess.run([sys.executable, "-c", prepare], check=True, env=variables, capture_output=True)
    [made] = (cache / "parquet").glob("*/0.0.0/*/dataset_info.json")
    kept = cache / "owner___name/default/0.0.0" / ("a" * 40)
    shutil.copytree(made.parent, kept)
    (kept / "parquet-train.arrow").rename(kept / "name-train.arrow")
    read = (
        "import sys; from perpetune.curation.readers.addresses.address import local_copies\n"
        "from perpetune.curation.readers.reader import read_examples\n"
        "with local_copies(sys.argv[1]) as files:\n"
        "    print([row.input for file in files for row in read_examples(file.path, 'x').examples])"
    )
    run = [sys.executable, "-c", read]
    found = subprocess.run([*run, "hf:owner/name"], check=True, env=variables, capture_output=True, text=True)
    assert found.stdout == "['a']\n"
    missing = subprocess.run([*run, "hf:owner/none"], check=False, env=variables, capture_output=True, text=True)
    assert "PerpetuneError" in missing.stderr and "it cannot be loaded" in missing.stderr


def test_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        bucket = fsspec.filesystem("s3")
        bucket.mkdir("heap")
        bucket.pipe("heap/a.jsonl", ROW.encode())
        bucket.pipe("heap/deep/b.jsonl", ROW.encode())
        assert inputs("s3://heap/a.jsonl") == ["a"]
        assert inputs("s3://heap/") == ["a", "a"]
        with pytest.raises(PerpetuneError, match=r"s3://heap/none\.jsonl"):
            inputs("s3://heap/none.jsonl")
    finally:
        server.stop()
