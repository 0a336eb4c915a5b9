"""Estimated against measured memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import LlamaConfig

from perpetune.errors import PerpetuneError
from perpetune.params import BaseParams, TrainParams
from perpetune.records import Example
from perpetune.training.batches import Encoded
from perpetune.training.job_files import Job
from perpetune.training.launch import launch
from perpetune.training.memory_estimate import MemoryEstimate, estimate_memory, refuse_if_too_small, shape_of
from perpetune.training.trainer import Forecast

pytestmark = pytest.mark.slow

LLAMA_3_8B = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    tie_word_embeddings=False,
)
ROWS = [Encoded(tuple(range(500)), 490)] * 8

# Trains a model of 20 million parameters in a separate process, whose peak the kernel records.
MEASURED = """
import gc, json, sys
from pathlib import Path
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from perpetune.params import TrainParams
from perpetune.model.base import Base
from perpetune.model.adapters import trainable
from perpetune.training.decoder.fused import summed_loss, training_network
from perpetune.training.memory_estimate import estimate_memory, shape_of
from perpetune.training.batches import Encoded
torch.set_num_threads(1)
params = TrainParams.model_validate(json.loads(sys.argv[1]))
config = LlamaConfig(vocab_size=4096, hidden_size=256, intermediate_size=1024, num_hidden_layers=16,
                     num_attention_heads=8, num_key_value_heads=4, tie_word_embeddings=False)
torch.manual_seed(0)
base = Base(LlamaForCausalLM(config).to(torch.bfloat16 if params.precision == "bf16" else torch.float32), None, "")
rows = [Encoded((*range(100), *(100 + (17 * n + k) % 3000 for k in range(50))), 140) for n in range(16)]
def kept(key):
    return int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1]) * 1024
def step(rows):
    summed_loss(network, rows, torch.device("cpu")).backward()
    optimizer.step()
    optimizer.zero_grad()
model = trainable(base, "lora", params.lora, 1)
network = training_network(model, base.model.dtype, checkpointing=params.gradient_checkpointing)
network.train()
optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], fused=True)
step(rows[:1])  # what torch itself allocates at its first products is not the run's
gc.collect()
before = kept("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
step(rows)
estimate = estimate_memory(shape_of(config, "all-linear"), params, rows, validates=False)
print(json.dumps({"measured": kept("VmHWM"), "before": before, "predicted": before + estimate.activations}))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can reset the peak of a process")
@pytest.mark.parametrize(("precision", "checkpointing"), [("fp32", False), ("bf16", False), ("fp32", True)])
def test_the_peak_is_as_predicted(train_params: TrainParams, precision: str, checkpointing: bool) -> None:
    params = train_params.model_copy(
        update={
            "precision": precision,
            "gradient_checkpointing": checkpointing,
            "batch_size": 16,
            "max_packed_tokens": 4096,
            "max_example_tokens": 4096,
            "epochs": 1.0,
        }
    )
    said = subprocess.run(
        [sys.executable, "-c", MEASURED, params.model_dump_json()], capture_output=True, text=True, check=True
    )
    found = json.loads(said.stdout.splitlines()[-1])
    assert found["measured"] > 1.1 * found["before"], "the pass must weigh something"
    assert found["predicted"] == pytest.approx(found["measured"], rel=0.15)


def llama(train_params: TrainParams, **update: object) -> tuple[MemoryEstimate, TrainParams]:
    lora = train_params.lora.model_copy(update={"rank": 16})
    params = train_params.model_copy(update={"precision": "bf16", "lora": lora, "max_packed_tokens": 4096, **update})
    return estimate_memory(shape_of(LLAMA_3_8B, "all-linear"), params, ROWS, validates=True), params


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA T4")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (int(free), int(free)))


def test_llama_3_8b_has_the_size_that_its_makers_say(train_params: TrainParams) -> None:
    shape = shape_of(LLAMA_3_8B, "all-linear")
    assert shape.parameters == 8_030_261_248
    assert shape.adapted * 16 == 41_943_040, "as peft counts the parameters of an adapter of rank 16"
    assert shape_of(LLAMA_3_8B, ("q_proj", "v_proj")).adapted * 16 == 6_815_744


@pytest.mark.parametrize(
    ("method", "checkpointing", "advice"),
    [
        ("lora", True, "set method: qlora"),
        ("full", True, "set method: lora, or train in more processes"),
        ("qlora", True, None),
    ],
)
def test_8b_on_16_gb(
    train_params: TrainParams, monkeypatch: pytest.MonkeyPatch, method: str, checkpointing: bool, advice: str | None
) -> None:
    on_a_gpu(monkeypatch, 15.8e9)
    memory, params = llama(train_params, method=method, gradient_checkpointing=checkpointing)
    shape = shape_of(LLAMA_3_8B, "all-linear")
    base = BaseParams(model="hf:meta-llama/Meta-Llama-3-8B-Instruct", revision=None)
    if advice is None:
        refuse_if_too_small(memory, base, shape, params)
        return
    with pytest.raises(
        PerpetuneError, match=r"\(8\.0B, bf16, .*needs .* GB .*this GPU \(NVIDIA T4\) has 15\.8 GB free"
    ) as fault:
        refuse_if_too_small(memory, base, shape, params)
    assert fault.value.do == advice


def test_more_processes_share_the_weights(train_params: TrainParams) -> None:
    shape = shape_of(LLAMA_3_8B, "all-linear")
    params = train_params.model_copy(update={"precision": "bf16", "max_packed_tokens": 4096})
    one, four = (estimate_memory(shape, params, ROWS, validates=False, processes=n) for n in (1, 4))
    assert four.weights == one.weights // 4
    assert four.activations <= one.activations


def test_a_run_that_cannot_fit_is_refused_before_the_base_is_loaded(
    colour_job: Callable[[TrainParams, Path], Job],
    train_params: TrainParams,
    colour_rows: list[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("perpetune.training.memory_estimate.free_bytes", lambda: 1000)
    monkeypatch.setattr("perpetune.training.job.load_base", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(PerpetuneError, match=r"needs .* GB"):
        launch(colour_job(train_params, tmp_path), colour_rows, [], lambda _: None)


def test_the_forecast_comes_before_the_first_step(
    colour_job: Callable[[TrainParams, Path], Job],
    train_params: TrainParams,
    colour_rows: list[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What this thread computes is timed: a busy machine may stop it for as long as the whole run takes.
    clock = SimpleNamespace(perf_counter=time.thread_time, monotonic=time.thread_time)
    for module in ("duration", "trainer"):
        monkeypatch.setattr(f"perpetune.training.{module}.time", clock)
    said: list[object] = []
    trained = launch(colour_job(train_params, tmp_path), colour_rows, colour_rows, said.append, None, said.append)
    forecast = said[0]
    assert isinstance(forecast, Forecast)
    assert len(said) == 1 + trained.steps
    assert forecast.steps == trained.steps
    assert trained.seconds / 10 < forecast.seconds < trained.seconds * 10, "a matter of milliseconds here"
    assert 0 < forecast.bytes_needed < forecast.bytes_free
