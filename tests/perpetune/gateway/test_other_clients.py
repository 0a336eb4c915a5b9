"""Clients that are no part of the environment, unchanged, each in a process of its own: `make clients` installs them.

Each is a program in clients/ that runs named cases and prints a line of the Test Anything Protocol for each. A new case
is a function there; a new client is a program, and a line in CLIENTS.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gateways import Gateway, gateway_over

from perpetune.engines.engine import NotLoaded
from perpetune.generation.answer import Answer, PromptTooLong
from perpetune.generation.parameters import GenerationConfig, OnDelta
from perpetune.records import Message
from perpetune.testing.fake_engine import FakeEngine

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
FOLDER = Path(__file__).parent / "clients"
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
MODULES = FOLDER / "node_modules"

# The program, what runs it, and what must be there.
CLIENTS: dict[str, tuple[Sequence[str], Path | str]] = {
    "openai_node.mjs": (["node"], MODULES / "openai"),
    "ai_sdk.mjs": (["node"], MODULES / "ai"),
    "litellm_client.py": ([str(PYTHON)], PYTHON),
    "instructor_client.py": ([str(PYTHON)], PYTHON),
    "Client.java": (["java", "-XX:TieredStopAtLevel=1"], "javac"),
}


class ObligingEngine(FakeEngine):
    """Repeats what it hears, fills the schema of a review, calls the first tool, and has 184 words for a prompt.

    Version 2 has more.
    """

    async def answer(
        self, version: str, messages: Sequence[Message], generation: GenerationConfig, on_delta: OnDelta | None = None
    ) -> tuple[Answer, ...]:
        if version not in self.loaded:
            raise NotLoaded(version)
        words = sum(len(message.content.split()) for message in messages)
        if version == "1" and words > 184:
            raise PromptTooLong(words, 184, 16)
        return await super().answer(version, messages, generation, on_delta)

    def _answer(self, version: str, messages: Sequence[Message], generation: GenerationConfig) -> Answer:
        answer = super()._answer(version, messages, generation)
        said = messages[-1].content
        review = json.dumps({"stars": 4, "reason": "review"})
        if generation.tools is not None and messages[-1].role == "user":
            name = json.loads(generation.tools)[0]["function"]["name"]
            arguments = '{"city": "Bonn"}' if name == "weather" else review
            call: dict[str, object] = {
                "id": "call_1",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            return replace(answer, text="", tool_calls=(call,), finish_reason="tool_calls")
        if generation.json_schema is not None:
            return replace(answer, text=review, finish_reason="stop")
        return replace(answer, text=f"you said {said}") if answer.logprobs is None else answer


def repeat(version: str, messages: Sequence[Message]) -> str:
    return f"you said {messages[-1].content}"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway_over(ObligingEngine(repeat, pause=0.005), tmp_path_factory.mktemp("clients"), "1", "2") as gateway:
        yield gateway


@pytest.mark.parametrize("program", CLIENTS)
def test_a_client(gateway: Gateway, program: str) -> None:
    runner, needed = CLIENTS[program]
    if isinstance(needed, Path) and not needed.exists():
        pytest.skip(f"{program} needs {needed.relative_to(ROOT)}: run `make clients`")
    if shutil.which(runner[0]) is None or (isinstance(needed, str) and shutil.which(needed) is None):
        pytest.skip(f"{program} needs {needed}, which is not on this machine")
    done = subprocess.run(
        [*runner, program, gateway.url], cwd=FOLDER, env=_environment(), capture_output=True, text=True, timeout=120
    )
    passed = [line for line in done.stdout.splitlines() if line.startswith("ok ")]
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(passed) >= 5, done.stdout + done.stderr


def _environment() -> dict[str, str]:
    """This one without settings that would send the client elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "LITELLM_"))}


def test_every_program_is_run() -> None:
    programs: set[Any] = {path.name for path in FOLDER.iterdir() if path.is_file()}
    shared = {"cases.py", "cases.mjs", "package.json", "package-lock.json", "requirements.lock"}
    assert programs - shared == set(CLIENTS)
