"""The base model: load model and tokenizer, choose device and precision."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from perpetune.errors import PerpetuneError
from perpetune.model.loading import read_model, read_tokenizer
from perpetune.model.weights import resolve, weights_digest
from perpetune.params import BaseParams

# peft 0.21 uses a deprecated property of transformers.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)


@dataclass(frozen=True)
class Base:
    """A base model in memory, with the sha256 of its weights."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    digest: str


def load_base(
    params: BaseParams, assets: Path, precision: Literal["auto", "fp32", "bf16"], *, four_bit: bool = False
) -> Base:
    """Load the base model onto the GPU if there is one, else the CPU; `four_bit` loads it in NF4 with bitsandbytes.

    Raises PerpetuneError if the model is missing, damaged or cannot be fetched, or bitsandbytes is not installed.
    """
    folder = resolve(params, assets)
    dtype = torch_dtype(precision)
    model = _in_four_bits(folder, dtype) if four_bit else load_model(folder, dtype)
    return Base(model, load_tokenizer(folder), weights_digest(folder))


def load_model(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Load a model that save_pretrained wrote, for inference. Raises PerpetuneError as `read_model` does."""
    model = read_model(folder, dtype)
    model.to(device_name())  # type: ignore[arg-type]
    return model


def device_name() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer, with a padding token. Raises PerpetuneError if it is missing or damaged."""
    tokenizer = read_tokenizer(folder)
    if _is_another_kind(tokenizer, folder):
        tokenizer = read_tokenizer(folder, PreTrainedTokenizerFast.from_pretrained)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _is_another_kind(tokenizer: Any, folder: Path) -> bool:
    """Whether transformers built another kind of tokenizer than tokenizer.json holds.

    For some architectures it takes the vocabulary only and adds the rules of the architecture's first model.
    """
    file = folder / "tokenizer.json"
    if not file.is_file() or not getattr(tokenizer, "is_fast", False):
        return False
    kind = json.loads(file.read_text(encoding="utf-8"))["model"].get("type")
    return kind is not None and kind != json.loads(tokenizer.backend_tokenizer.to_str())["model"]["type"]


def _in_four_bits(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise PerpetuneError(
            "4-bit weights need bitsandbytes, which is not installed",
            where="params.yaml: train.method: qlora",
            do="pip install bitsandbytes, or set method: lora",
        )
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return read_model(folder, dtype, quantization_config=config, device_map=device_name())


def torch_dtype(precision: Literal["auto", "fp32", "bf16"]) -> torch.dtype:
    """The dtype of a precision; "auto" is bf16 if the device supports it natively, because it is slower elsewhere."""
    if precision == "auto":
        return torch.bfloat16 if _supports_bf16() else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


def _supports_bf16() -> bool:
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if torch.backends.cpu.get_cpu_capability() == "AVX2":  # ATEN_CPU_CAPABILITY may limit torch
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
