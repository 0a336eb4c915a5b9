"""A real PostgreSQL server, if this machine has one, and a gateway in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from waiting import eventually

from perpetune.errors import PerpetuneError
from perpetune.params import ServeParams
from perpetune.prediction_log.database import open_log


def _programs() -> Path | None:
    found = shutil.which("initdb")
    positions = [Path(found).resolve().parent] if found else []
    positions += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next(
        (position for position in positions if (position / "initdb").exists() and (position / "postgres").exists()),
        None,
    )


def _as_somebody_else() -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return []
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


class Postgres:
    """A server in `folder` that can be killed and started again."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.url = f"postgresql://ann@/postgres?host={folder}"
        self.data = folder / "data"
        self._run: list[str | Path] = [*_as_somebody_else(), programs / "postgres", "-D", folder / "data", "-k", folder]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["-c", "listen_addresses=", "-c", "fsync=off"]
        self._process = subprocess.Popen([*self._run, *options], stderr=subprocess.DEVNULL, cwd="/")
        eventually(self._answers, 20)

    def _answers(self) -> bool:
        try:
            open_log(self.url).dispose()
        except PerpetuneError:
            return False
        return True

    def stop(self) -> None:
        """At once, as its immediate shutdown does: SIGTERM would wait for pooled connections."""
        if self._process:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=20)
            self._process = None


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A server in a folder of its own; skips the test if this machine has none."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: `apt-get install postgresql` (initdb and postgres are enough)")
    if _as_somebody_else() and not shutil.which("setpriv"):
        pytest.skip("PostgreSQL does not run as root and setpriv is missing: `apt-get install util-linux`")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if _as_somebody_else():
        shutil.chown(folder, "nobody", "nogroup")
    make: list[str | Path] = [
        programs / "initdb",
        "-D",
        folder / "data",
        "-U",
        "ann",
        "--no-sync",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    subprocess.run([*_as_somebody_else(), *make], check=True, capture_output=True, cwd="/")
    postgres = Postgres(programs, folder)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.stop()
        shutil.rmtree(folder)


GATEWAY = textwrap.dedent("""
    import sys
    from pathlib import Path

    from perpetune.params import BaseParams, ServeParams
    from perpetune.model.release import Release, Trial
    from perpetune.testing.fake_engine import FakeEngine
    from perpetune.testing.fake_registry import FakeSource
    from perpetune.gateway.app import create_app
    from perpetune.prediction_log.database import open_log
    from perpetune.gateway.server import listen, run

    folder, url, params = Path(sys.argv[1]), *sys.argv[2:]
    base = BaseParams(model="path:tiny", revision=None)
    releases = [Release("killed", version, folder, "Judge it.", None, base) for version in "12"]
    app = create_app(
        "killed",
        engine=FakeEngine(),
        source=FakeSource(releases, champion="1", trial=Trial("2", "shadow", 1.0)),
        log=open_log(url),
        params=ServeParams.model_validate_json(params),
        max_new_tokens=16,
        spool=folder / "spool",
    )
    with listen("127.0.0.1", 0) as address:
        print(address.getsockname()[1], flush=True)
        run(app, address, grace_seconds=5)
""")


@contextmanager
def gateway(folder: Path, url: str, params: ServeParams) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A gateway in a process of its own, which is killed in the end."""
    command = [sys.executable, "-c", GATEWAY, str(folder), url, params.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            with httpx.Client(base_url=f"http://127.0.0.1:{int(process.stdout.readline())}", timeout=20) as client:
                eventually(lambda: client.get("/readyz").json().get("trial") == "2")
                yield process, client
        finally:
            process.kill()
