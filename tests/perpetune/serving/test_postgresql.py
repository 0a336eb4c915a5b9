"""The prediction log on a real PostgreSQL server, where this machine has one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from perpetune.errors import PerpetuneError
from perpetune.records import Feedback, Prediction
from perpetune.serving.label_requests import ask, count_open
from perpetune.serving.log import add_feedback, counts, labelled_examples, newly_labelled, open_log, recent_predictions
from perpetune.serving.log import record_predictions as record


def _programs() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


def _as_somebody_else() -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return []
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL's initdb and postgres are not on this machine")
    if _as_somebody_else() and not shutil.which("setpriv"):
        pytest.skip("PostgreSQL does not run as root, and setpriv, which would change the user, is not here")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if _as_somebody_else():
        shutil.chown(folder, "nobody", "nogroup")
    make = [programs / "initdb", "-D", folder / "data", "-U", "ann", "--no-sync", "-E", "UTF8", "--locale=C"]
    subprocess.run([*_as_somebody_else(), *make], check=True, capture_output=True, cwd="/")
    run = [programs / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
    with subprocess.Popen([*_as_somebody_else(), *run], stderr=subprocess.DEVNULL, cwd="/") as process:
        url = f"postgresql://ann@/postgres?host={folder}"
        try:
            _wait_for(url)
            yield url
        finally:
            process.send_signal(signal.SIGINT)  # its fast shutdown: SIGTERM would wait for pooled connections
    shutil.rmtree(folder)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            open_log(url).dispose()
            return
        except PerpetuneError:
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.05)


def test_the_log(server: str, prediction: Callable[..., Prediction]) -> None:
    with ThreadPoolExecutor(4) as pool:
        log, *others = pool.map(open_log, [server] * 4)
    for other in others:
        other.dispose()
    asked = [prediction(1), prediction(2, input="a\0b", group="\0"), prediction(3)]
    record(log, asked)
    record(log, asked)
    for minutes, label in ((1, "good"), (2, "b\0d\ud800"), (3, "good"), (1, "good")):
        time = asked[0].time + timedelta(minutes=minutes)
        add_feedback(log, Feedback(request_id=asked[0].id, time=time, label=label))

    found = recent_predictions(log, "reviews", limit=2)
    assert [row.input for row in found] == ["a\ufffdb", "question 3"]
    assert [example.output for example in labelled_examples(log, "reviews")] == ["good"]
    assert recent_predictions(log, "reviews", limit=None)[0] == asked[0].model_copy(update={"label": "good"})
    assert counts(log, "reviews").newest == asked[2].time
    log.dispose()


def test_a_wrong_database_is_one_clear_error(server: str) -> None:
    with pytest.raises(PerpetuneError, match='database "nowhere" does not exist'):
        open_log(server.replace("/postgres?", "/nowhere?"))


def test_label_requests(server: str, prediction: Callable[..., Prediction]) -> None:
    log = open_log(server)
    asked = [prediction(number, task="asked") for number in (11, 12)]
    record(log, asked)
    chosen = (("chatcmpl-11", "random"), ("chatcmpl-12", "uncertain"), ("unknown", "random"))
    assert [ask(log, chosen, asked[1].time) for _ in range(2)] == [2, 0]
    assert count_open(log, "asked") == 2
    for row in asked:
        add_feedback(log, Feedback(request_id=row.id, time=row.time, label="good"))
    assert [row.id for row in newly_labelled(log, "asked", "1", 0)[0]] == ["chatcmpl-11"]
    assert count_open(log, "asked") == 0
    log.dispose()
