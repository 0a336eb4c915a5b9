"""The GPU benchmark's own code on the CPU: both systems learn the same from the same rows."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_training.py"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("gpu_training", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_training", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("results")
    command = [sys.executable, str(SCRIPT), "--smoke", "--methods", "lora", "--out", str(folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return said.stdout, json.loads((folder / "gpu-training-lora.json").read_text(encoding="utf-8")), folder


def test_the_smoke_run_prints_a_table_without_goals(smoke: tuple[str, dict[str, Any], Path]) -> None:
    said, record, folder = smoke
    for workload in ("short answers", "2,048 tokens"):
        for system in ("perpetune", "transformers Trainer"):
            assert any(line.startswith("LoRA") and workload in line and system in line for line in said.splitlines())
    assert "holds" not in said and "FAILS" not in said
    assert record["claims"] == [] and record["details"]["smoke"]
    assert (folder / "gpu-training-lora.png").is_file()


def test_both_systems_do_the_same_work(smoke: tuple[str, dict[str, Any], Path]) -> None:
    turns = smoke[1]["details"]["turns"]
    assert len(turns) == 4
    for ours, theirs in zip(turns[::2], turns[1::2], strict=True):
        assert (ours["system"], theirs["system"]) == ("perpetune", "transformers Trainer")
        assert ours["mean_loss"] == pytest.approx(theirs["mean_loss"], abs=1e-5)
        assert ours["seconds"] > 0 and theirs["peak_gb"] > 0
    short = turns[0]
    assert short["computed_tokens_per_second"] < short["useful_tokens_per_second"]  # the prefix is computed once


def test_the_flops_are_those_that_torch_counts(benchmark: ModuleType) -> None:
    """A forward pass: a third of attention's FLOPs, half of the matrices'; torch counts the whole square of pairs."""
    length = 32
    model = LlamaForCausalLM._from_config(LlamaConfig(**benchmark.TINY), attn_implementation="eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, length, dtype=torch.long))
    matrices = benchmark.model_flops(benchmark.TINY, length, length, 0) / 2
    attention = benchmark.model_flops(benchmark.TINY, 0, 0, length * length) / 3
    assert counter.get_total_flops() == pytest.approx(matrices + attention, rel=1e-6)


def test_the_full_run_without_a_gpu_says_so_in_a_sentence() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    said = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert said.stderr.strip().splitlines()[-1].startswith("This benchmark needs an NVIDIA GPU")


@pytest.mark.parametrize(("tokens", "rows"), [(8192, 4), (4096, 2), (100, 1), (10**6, 8)])
def test_the_peer_takes_equal_parts_of_a_batch(benchmark: ModuleType, tokens: int, rows: int) -> None:
    assert benchmark._rows_at_once(8, 2048, tokens) == rows
