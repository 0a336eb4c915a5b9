"""Loading with transformers, whose faults become one clear error each.

Weights that are missing are not invented: transformers would initialise them at random with no more than a log line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from perpetune.errors import PerpetuneError
from perpetune.model.weights import first_line, weight_files

# Tensors that quantised weights are to be multiplied with. If transformers has no use for them, the weights are wrong.
FACTORS = re.compile(r"(scale|scale_inv|scales|qweight|qzeros|absmax|zero_point)$")

Loaded = TypeVar("Loaded")


def read_config(folder: Path) -> PreTrainedConfig:
    """The model's configuration. Raises PerpetuneError if it is damaged or of an unknown architecture."""
    with _clear_errors(folder, "config.json"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    assert isinstance(config, PreTrainedConfig)
    return config


def read_tokenizer(folder: Path, load: Callable[[Path], Any] | None = None) -> Tokenizer:
    """The tokenizer. Raises PerpetuneError if it is missing or damaged."""
    with _clear_errors(folder, "tokenizer"):
        tokenizer = (load or _tokenizer)(folder)
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer


def read_model(folder: Path, dtype: torch.dtype, **settings: Any) -> PreTrainedModel:
    """The model with its weights in `dtype`; those in 8 or 4 bits floating point are dequantised.

    Raises PerpetuneError if weights are missing, damaged or quantised otherwise, or transformers cannot load the model.
    """
    config = read_config(folder)
    weight_files(folder)
    if "quantization_config" not in settings:
        settings |= _dequantised(folder)
    with _clear_errors(folder, "weights"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, trust_remote_code=False, output_loading_info=True, **settings
        )
    model, found = loaded
    _refuse_incomplete(folder, found)
    assert isinstance(model, PreTrainedModel)
    model.config.use_cache = False
    model.train(False)
    return model


def _tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _dequantised(folder: Path) -> dict[str, Any]:
    """Settings that dequantise the weights. Raises PerpetuneError if they cannot be trained or merged with an adapter."""
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    quantised = stored.get("quantization_config") or stored.get("text_config", {}).get("quantization_config")
    if not quantised:
        return {}
    method = quantised.get("quant_method")
    if method == "fp8":
        from transformers import FineGrainedFP8Config

        return {"quantization_config": FineGrainedFP8Config(dequantize=True)}
    if method == "mxfp4":
        from transformers.utils.quantization_config import Mxfp4Config

        return {"quantization_config": Mxfp4Config(dequantize=True)}
    raise PerpetuneError(
        f"the weights are quantised ({method}), so adapters cannot be trained and merged exactly",
        where=str(folder),
        do="use the model that was quantised; train.method: qlora loads it in 4 bits",
    )


def _refuse_incomplete(folder: Path, found: dict[str, Any]) -> None:
    if missing := sorted(found.get("missing_keys", ())):
        raise PerpetuneError(
            f"{len(missing)} of the model's weights are not in the files, such as {missing[0]}",
            where=str(folder),
            do="fetch the model again, and check that config.json belongs to its weights",
        )
    if factors := sorted(key for key in found.get("unexpected_keys", ()) if FACTORS.search(key)):
        raise PerpetuneError(
            f"the weights are quantised in a way that transformers does not read: it has no use for {factors[0]}",
            where=str(folder),
            do="use the model that was quantised",
        )


@contextmanager
def _clear_errors(folder: Path, part: str) -> Iterator[None]:
    """What transformers, safetensors, json and torch raise for a damaged or unknown model, as a PerpetuneError."""
    try:
        yield
    except PerpetuneError:
        raise
    except torch.OutOfMemoryError:
        raise
    except Exception as fault:  # each library has its own
        own_code = "trust_remote_code" in str(fault)
        raise PerpetuneError(
            "the model has code of its own, which is not run"
            if own_code
            else f"cannot load the {part}: {first_line(fault)}",
            where=str(folder),
            do="use an architecture of transformers" if own_code else "fetch the model again, or use another one",
        ) from fault
