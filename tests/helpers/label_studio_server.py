"""A real Label Studio of the test, on a free port, with a database of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from perpetune.runtime.processes.supervisor import free_ports

PLACE = Path(__file__).parents[2] / ".venv-label-studio"
USER = "ann@example.org"
_PATIENCE = 240.0  # seconds


@dataclass(frozen=True)
class RunningLabelStudio:
    """`token` is the user's legacy token."""

    url: str
    token: str

    def call(self, method: str, path: str, token: str | None = None, **options: object) -> object:
        """The JSON that the server answers to a user with this token."""
        headers = {"authorization": f"Token {token or self.token}"}
        found = httpx.request(method, self.url + path, headers=headers, timeout=60, **options)  # type: ignore[arg-type]
        assert found.is_success, found.text
        return found.json() if found.content else None

    def project(self, title: str) -> int:
        """The number of the project."""
        projects: Any = self.call("GET", "/api/projects/?page_size=100")
        [number] = [each["id"] for each in projects["results"] if each["title"] == title]
        return int(number)

    def tasks(self, title: str) -> list[Any]:
        """The project's tasks with all that belongs to them."""
        found: Any = self.call("GET", f"/api/tasks/?project={self.project(title)}&fields=all&page_size=2000")
        return list(found["tasks"])

    def annotate(self, task: Any, label: str, kind: str = "choices", token: str | None = None) -> None:
        value = {"choices": [label]} if kind == "choices" else {"text": [label]}
        result = [{"from_name": "answer", "to_name": "input", "type": kind, "value": value}]
        self.call("POST", f"/api/tasks/{task['id']}/annotations/", token, json={"result": result})


def is_installed() -> bool:
    """Whether `make label-studio` was run."""
    return (PLACE / "ready").is_file()


@contextmanager
def label_studio(folder: Path) -> Iterator[RunningLabelStudio]:
    """Start the server with its data in this folder, and stop it and its children at the end."""
    shutil.copytree(PLACE / "data", folder / "data")
    [port] = free_ports(1)
    token = secrets.token_hex(20)
    settings = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "data"),
        "LABEL_STUDIO_USERNAME": USER,
        "LABEL_STUDIO_PASSWORD": secrets.token_hex(8),
        "LABEL_STUDIO_USER_TOKEN": token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
    }
    command: list[str | Path] = [
        PLACE / "bin" / "label-studio",
        "start",
        "--no-browser",
        "--port",
        str(port),
        "--internal-host",
        "127.0.0.1",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=os.environ | settings, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        server = RunningLabelStudio(f"http://127.0.0.1:{port}", token)
        _wait(server, process, folder / "log")
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(server: RunningLabelStudio, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{server.url}/health", timeout=5).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise AssertionError(f"Label Studio did not start: {log.read_text(errors='replace')[-2000:]}")
