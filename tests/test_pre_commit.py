"""The hooks of .pre-commit-config.yaml run what `make check` runs, and hold the length of a commit's subject."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
HOOKS: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]


def test_the_hooks_are_the_commands_of_make_check() -> None:
    makefile = (ROOT / "Makefile").read_text()
    [recipe] = re.findall(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    [site] = re.findall(r"^SITE := (.*)$", makefile, re.MULTILINE)
    wanted = recipe.replace("$(SITE)", site).replace("$(BIN)", ".venv/bin").replace("\t", "").splitlines()
    assert [hook["entry"] for hook in HOOKS if hook["language"] == "system"] == wanted


@pytest.mark.parametrize("letter", ["a", "é"])
def test_a_subject_has_at_most_72_characters(letter: str) -> None:
    [hook] = [hook for hook in HOOKS if "commit-msg" in hook.get("stages", [])]
    too_long = re.compile(hook["entry"].encode(), re.MULTILINE | re.DOTALL)  # as pre-commit does with --multiline
    body = "a body that goes on for longer than a subject may, which is nothing that anybody would mind at all"
    assert not too_long.search(f"{letter * 72}\n\n{body}\n".encode())
    assert too_long.search(f"{letter * 73}\n".encode())
