"""Each stage is a process of its own: what it imports is a cost of every refresh, a dozen times."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from workspaces import write_params

HEAVY = {"numpy", "pandas", "sklearn", "torch", "tqdm", "jinja2", "httpx", "jsonschema"}
RUN = """
import runpy, sys
try:
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
finally:
    print(*sys.modules)
"""


@pytest.mark.parametrize("stage", ["params", "validate"])
def test_a_stage_imports_its_own_step_alone(stage: str, tmp_path: Path) -> None:
    write_params(tmp_path, fetch={"sources": ["mine.csv"]})
    (tmp_path / "data/raw").mkdir(parents=True)
    row = '{"id": "1", "group": "1", "input": "a", "output": "b", "source": "mine"}\n'
    (tmp_path / "data/raw/examples.jsonl").write_text(row)
    command = [sys.executable, "-P", "-c", RUN, "perpetune.curation", stage]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith(f"{stage}: "), done.stderr
    imported = set(done.stdout.split())
    assert not imported & HEAVY
    assert not [each for each in imported if each.startswith("perpetune.curation.steps.c")], "of another stage"
