"""DVC's objects in a store that is no folder of this machine."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from uuid import uuid4

import pytest
from dvc_data.hashfile.db import get_odb
from dvc_objects.fs import MemoryFileSystem

from perpetune.erasure.contents import cleaned
from perpetune.erasure.data_store import Store, clean_store, examples_of
from perpetune.erasure.scrubber import Scrubber
from perpetune.erasure.selection import Selector, Targets
from perpetune.records import Example


def row(id: str) -> Example:
    return Example(input=f"the text of {id}", output="yes", id=id, group=id, source="inbox")


def put(store: Store, data: bytes, suffix: str = "") -> str:
    oid = hashlib.md5(data).hexdigest() + suffix
    store.write(oid, data)
    return oid


@pytest.fixture
def store() -> Store:
    return Store("DVC remote far", get_odb(MemoryFileSystem(), f"/bucket-{uuid4().hex}/files/md5", hash_name="md5"))


def test_versions_keep_their_names_and_lose_the_row(store: Store) -> None:
    train = put(store, b"".join(row(each).model_dump_json().encode() + b"\n" for each in ("a", "b")))
    frozen = put(store, row("c").model_dump_json().encode() + b"\n")
    listed = [{"md5": train, "relpath": "train.jsonl"}, {"md5": frozen, "relpath": "frozen.jsonl"}]
    version = put(store, json.dumps(listed).encode(), ".dir")
    other = put(store, json.dumps(listed[1:]).encode(), ".dir")
    kept = store.read(other)
    selector = Selector(id="b")
    targets = Targets(selector.selects)
    targets.add_if_selected(examples_of(store))
    clean = partial(cleaned, targets=targets, scrubber=Scrubber(None, targets.texts))

    planned = clean_store(store, clean, dry_run=True)
    assert train in set(store.oids()), "a dry run changes nothing"
    done = clean_store(store, clean, dry_run=False)
    assert planned == done
    assert (done.rows, done.objects, done.versions) == (1, 1, {version.removesuffix(".dir"): ("train.jsonl",)})
    [new, same] = json.loads(store.read(version))
    assert same == listed[1] and store.read(other) == kept
    assert new["relpath"] == "train.jsonl" and hashlib.md5(store.read(new["md5"])).hexdigest() == new["md5"]
    assert [each.id for each in examples_of(store)] in (["a", "c"], ["c", "a"])
    assert train not in set(store.oids())
    assert clean_store(store, clean, dry_run=False).objects == 0, "a second run finds nothing"


def test_a_store_that_is_not_there_holds_nothing() -> None:
    assert list(Store("none", get_odb(MemoryFileSystem(), f"/no-{uuid4().hex}", hash_name="md5")).oids()) == []
