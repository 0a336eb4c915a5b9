"""A remote behind a real S3 API: no object of the bucket holds an erased row, and an old version is pulled from it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from workspaces import write_params

from perpetune.curation.running import dvc
from perpetune.erasure.contents import cleaned
from perpetune.erasure.data_store import StoreResult, clean_store, examples_of, stores
from perpetune.erasure.scrubber import Scrubber
from perpetune.erasure.selection import Selector, Targets
from perpetune.records import Example, read_jsonl

pytest.importorskip("moto", reason="needs moto[server]")
pytest.importorskip("dvc_s3", reason="needs dvc-s3: `make test-s3`")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
MARKER = "Quincy Zanzibarson"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def contents(endpoint: str) -> dict[str, bytes]:
    import boto3

    client = boto3.client("s3", endpoint_url=endpoint)
    keys = [each["Key"] for each in client.list_objects_v2(Bucket="rows").get("Contents", [])]
    return {key: client.get_object(Bucket="rows", Key=key)["Body"].read() for key in keys}


def test_no_object_of_the_bucket_holds_the_row(tmp_path: Path, endpoint: str) -> None:
    import boto3

    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="rows")
    write_params(tmp_path, fetch={"sources": ["mine.csv"]}, task={"labels": None})
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    rows = [f"text {n} of {MARKER if n % 9 == 0 else 'somebody'},{'yes' if n % 2 else 'no'}" for n in range(80)]
    (tmp_path / "mine.csv").write_text("\n".join(["input,output", *rows]))
    dvc.prepare(tmp_path, "s3://rows/data")
    config = tmp_path / ".dvc/config.local"
    config.write_text(config.read_text().replace("s3://rows/data", f"s3://rows/data\nendpointurl = {endpoint}"))
    version = dvc.reproduce(tmp_path).version
    dvc.push(tmp_path)
    assert any(MARKER.encode() in data for data in contents(endpoint).values())

    results = erased(tmp_path)
    assert {each.name for each in results if each.rows} == {"DVC cache", "DVC remote perpetune"}
    assert all(version in each.versions for each in results if each.rows)
    assert not any(MARKER.encode() in data for data in contents(endpoint).values())
    shutil.rmtree(tmp_path / ".dvc/cache")
    splits = dvc.checkout_splits(tmp_path, version, tmp_path / "older")
    left = [row for file in splits.iterdir() for row in read_jsonl(file, Example)]
    assert len(left) > 60 and not any(MARKER in row.input for row in left)


def erased(workspace: Path) -> list[StoreResult]:
    selector = Selector(match=MARKER)
    targets = Targets(selector.selects, selector.pattern())
    with stores(workspace) as found:
        for store in found:
            targets.add_if_selected(examples_of(store))
        clean = partial(cleaned, targets=targets, scrubber=Scrubber(targets.pattern, targets.texts))
        return [clean_store(store, clean, dry_run=False) for store in found]
