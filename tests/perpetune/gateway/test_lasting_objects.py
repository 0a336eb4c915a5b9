from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from perpetune.gateway.lasting_objects import LastingObjects


class _Node:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_what_was_loaded_is_not_visited_again() -> None:
    loaded: tuple[str, ...] = ()
    lasting = LastingObjects(lambda: loaded)
    lasting.freeze_new()
    few = gc.get_freeze_count()
    assert few > 1000
    release = [[number] for number in range(5000)]
    lasting.freeze_new()  # nothing was loaded since
    assert gc.get_freeze_count() < few + 5000
    loaded = ("1",)
    lasting.freeze_new()
    assert gc.get_freeze_count() > few + 5000 - 1000
    del release


def test_cycles_of_an_unloaded_release_are_collected() -> None:
    loaded: tuple[str, ...] = ("1",)
    lasting = LastingObjects(lambda: loaded)
    node = _Node()
    seen = weakref.ref(node)
    lasting.freeze_new()
    del node
    gc.collect()
    assert seen() is not None  # frozen
    loaded = ("2",)
    lasting.freeze_new()
    assert seen() is None


@pytest.mark.slow
@pytest.mark.integration
def test_a_gateway_freezes_what_it_has_loaded() -> None:
    code = """
import gc, sys, threading, time
from pathlib import Path
from tempfile import mkdtemp
from perpetune.gateway.app import create_app
from perpetune.gateway.server import listen, _Server, server_config
from perpetune.model.release import Release
from perpetune.params import BaseParams, ServeParams
from perpetune.prediction_log.database import open_log
from perpetune.testing.fake_engine import FakeEngine
from perpetune.testing.fake_registry import FakeSource
folder = Path(mkdtemp())
release = Release("frozen", "1", folder, "Judge it.", None, BaseParams(model="path:tiny", revision=None))
params = ServeParams()
app = create_app("frozen", engine=FakeEngine(), source=FakeSource([release], champion="1"),
                 log=open_log(f"sqlite:///{folder}/log.db"), params=params, max_new_tokens=16)
server = _Server(server_config(app, params, 1), app, 0)
def share():
    return gc.get_freeze_count() / (gc.get_freeze_count() + len(gc.get_objects()))
def watch():
    deadline = time.monotonic() + 30
    while app.state.follower.versions != ("1",) or share() < 0.9 and time.monotonic() < deadline:
        time.sleep(0.05)
    print(share())
    server.should_exit = True
threading.Thread(target=watch).start()
with listen("127.0.0.1", 0) as address:
    server.run(sockets=[address])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert float(ran.stdout) > 0.9, ran.stderr
