"""The setup of the serving benchmark: vLLM, a registry with real versions, and the gateway, as processes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import yaml
from mlflow.tracking import MlflowClient

from perpetune.errors import PerpetuneError
from perpetune.inference.predictor import Predictor
from perpetune.model.adapters import trainable
from perpetune.model.base import load_base, load_tokenizer
from perpetune.model.release import EVALUATED, GoldenPrompt, ModelCard, ServingFacts
from perpetune.model.weights import resolve
from perpetune.params import BaseParams, LoraParams, Params, load_params
from perpetune.records import Message, to_json, with_instruction
from perpetune.runtime.processes.supervisor import Supervisor, answers, free_ports
from perpetune.runtime.stack import gateway
from perpetune.runtime.vllm_service import vllm_service
from perpetune.tracking import registry
from perpetune.tracking.runs import close_run, connect, log_text, open_run
from perpetune.workspace import open_workspace

TASK = "bench"
INSTRUCTION = "Continue what the customer says in the same tone."
MAX_TOKENS = 4
PRECISION: Literal["bf16"] = "bf16"  # in fp32 vLLM answers one request a second on two cores
READY_SECONDS = 120.0
_LORA = LoraParams(rank=8, alpha=16, dropout=0.0, target_modules="all-linear")
_WEIGHT = 0.2  # standard deviation of an adapter's second matrix, so that each seed gives other answers


@dataclass(frozen=True)
class Stage:
    """The addresses of both servers, and each version's adapter. The first version is champion."""

    vllm: str
    gateway: str
    adapters: dict[str, Path]


@contextmanager
def stage(
    folder: Path, assets: Path, prompts: Sequence[str], versions: int, golden: int, *, tiny: bool
) -> Iterator[Stage]:
    """Create a workspace, register so many versions with golden prompts, and run vLLM and the gateway.

    The base model is that of params.yaml or a `tiny` one with its tokenizer.
    """
    params = _workspace(folder, assets, tiny)
    os.environ["PERPETUNE_ASSETS"] = str(assets.absolute())
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    adapters = _register(params, folder, assets, prompts[:golden], versions)
    vllm_port, gateway_port = free_ports(2)
    engine = vllm_service(open_workspace(folder), vllm_port)
    address = f"http://127.0.0.1:{vllm_port}"
    environment = {
        "PERPETUNE_VLLM_URL": address,
        "PERPETUNE_HOME": str(folder / "home"),
        "GOMP_SPINCOUNT": "20000",
    }
    with Supervisor(folder, folder / "logs", environment, print) as running:
        print("starting vLLM and the gateway", flush=True)
        running.start([engine])
        running.start([gateway(gateway_port)])
        _wait_until_ready(f"http://127.0.0.1:{gateway_port}")
        yield Stage(address, f"http://127.0.0.1:{gateway_port}", adapters)


def _wait_until_ready(gateway: str) -> None:
    """Wait until the gateway is ready: the first release loads after /healthz answers."""
    deadline = time.monotonic() + READY_SECONDS
    while not answers(f"{gateway}/readyz"):
        if time.monotonic() > deadline:
            raise PerpetuneError(f"the gateway was not ready: {httpx.get(f'{gateway}/readyz').text}")
        time.sleep(0.2)


def _workspace(folder: Path, assets: Path, tiny: bool) -> Params:
    values = load_params(Path("params.yaml")).model_dump(mode="json")
    if tiny:
        real = resolve(load_params(Path("params.yaml")).base, assets)
        values["base"] = {"model": f"path:{_write_tiny(real, folder / 'tiny')}", "revision": None}
    values["task"] |= {"name": TASK, "kind": "generation", "instruction": INSTRUCTION}
    values["serve"] |= {"engine": "vllm", "poll_seconds": 2}
    values["train"] |= {"precision": PRECISION}
    values["tune"] |= {"rank": [_LORA.rank, _LORA.rank]}  # vLLM pads every adapter to the highest rank there may be
    # In half precision two engines part where two words are nearly as likely, which random adapters make common.
    values["release"] |= {"parity_rate": 0.5}
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return load_params(folder / "params.yaml")


def _write_tiny(real: Path, folder: Path) -> Path:
    """A random Llama of two layers, with the tokenizer and the chat template of a real model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_tokenizer(real)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _register(params: Params, folder: Path, assets: Path, golden: Sequence[str], versions: int) -> dict[str, Path]:
    connect(os.environ["MLFLOW_TRACKING_URI"])
    # By default a local store writes artifacts to the current folder.
    MlflowClient().create_experiment(TASK, artifact_location=str(folder / "artifacts"))
    adapters: dict[str, Path] = {}
    for number in range(versions):
        adapter = folder / "adapters" / str(number)
        _write_adapter(params.base, assets, adapter, seed=number)
        predictor = Predictor(load_base(params.base, assets, PRECISION), params.evaluate.batch_tokens)
        predictor.load_adapter("new", adapter)
        run = open_run(TASK, f"refresh {number}", {"perpetune.kind": "refresh"}, {})
        version = registry.register(run, adapter, _card(params, predictor), {"adapter.digest": str(number)})
        evaluated = ServingFacts(
            max_tokens=MAX_TOKENS,
            golden=tuple(
                GoldenPrompt(messages=(_user(prompt),), output=text, confidence=None)
                for prompt, text in zip(golden, _answers(predictor, golden), strict=True)
            ),
        )
        log_text(run, to_json(evaluated.model_dump(mode="json")), EVALUATED)
        close_run(run, succeeded=True)
        adapters[version] = adapter
        print(f"version {version} registered: {json.dumps(evaluated.golden[0].output)}", flush=True)
    registry.promote(TASK, next(iter(adapters)))
    return adapters


def _write_adapter(base: BaseParams, assets: Path, folder: Path, seed: int) -> None:
    import torch

    model = trainable(load_base(base, assets, PRECISION), "lora", _LORA, seed)
    torch.manual_seed(seed)
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=_WEIGHT)
    model.save_pretrained(str(folder))


def _answers(predictor: Predictor, prompts: Sequence[str]) -> list[str]:
    conversations = [with_instruction(INSTRUCTION, (_user(prompt),)) for prompt in prompts]
    return [answer.text for answer in predictor.answer("new", conversations, None, MAX_TOKENS)]


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _card(params: Params, predictor: Predictor) -> ModelCard:
    return ModelCard(
        task=TASK,
        kind="generation",
        instruction=INSTRUCTION,
        labels=None,
        base=params.base,
        base_digest=predictor.base.digest,
        precision=PRECISION,
        max_new_tokens=MAX_TOKENS,
    )


@contextmanager
def reference(vllm: str, version: str, adapter: Path) -> Iterator[str]:
    """The name of a second copy of a version's adapter in vLLM, unknown to the gateway."""
    name = f"reference-{version}"
    httpx.post(
        f"{vllm}/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(adapter)}, timeout=60
    ).raise_for_status()
    try:
        yield name
    finally:
        httpx.post(f"{vllm}/v1/unload_lora_adapter", json={"lora_name": name}, timeout=60).raise_for_status()


def adapter_in(vllm: str) -> str:
    """The name in vLLM of the one adapter that the gateway has loaded."""
    served = httpx.get(f"{vllm}/v1/models", timeout=10).json()["data"]
    (adapter,) = [model["id"] for model in served if model.get("parent")]
    return str(adapter)
